"""The stage-wise loss against sums written out sample by sample."""

import math

import pytest
import torch
import torch.nn.functional as F

from mmctx.models.losses import StagewiseCrossEntropy, stagewise_cross_entropy

INF = math.inf


def by_hand(logits, soft, smoothing):
    """Mean over the samples whose main label is considered, in plain Python."""
    losses = []
    for row, target in zip(logits.tolist(), soft.tolist()):
        considered = [n for n, value in enumerate(row) if value > -INF]
        if target.index(max(target)) not in considered:
            continue
        total = sum(target[n] for n in considered)
        log_sum = math.log(sum(math.exp(row[n]) for n in considered))
        losses.append(
            -sum(
                ((1 - smoothing) * target[n] / total + smoothing / len(considered))
                * (row[n] - log_sum)
                for n in considered
            )
        )
    return sum(losses) / len(losses) if losses else 0.0


def make_logits(batch=6, classes=9, kept=4):
    logits = torch.randn(batch, classes, dtype=torch.float64)
    considered = torch.zeros(batch, classes, dtype=torch.bool)
    considered.scatter_(1, torch.rand(batch, classes).topk(kept).indices, True)
    return logits, logits.masked_fill(~considered, -INF)


@pytest.mark.parametrize('smoothing', [0.0, 0.1])
@pytest.mark.parametrize('soft', [False, True])
def test_agrees_with_sums_by_hand(soft, smoothing):
    every, some = make_logits()
    labels = torch.randint(0, 9, (6,))
    target = torch.rand(6, 9, dtype=torch.float64).softmax(1) if soft else labels
    loss = StagewiseCrossEntropy((0.15, 1.0), smoothing)
    got = loss([every, some], target)
    scores = target if soft else F.one_hot(labels, 9).double()
    for value, weight, logits in zip(got, (0.15, 1.0), (every, some)):
        assert value.item() == pytest.approx(weight * by_hand(logits, scores, smoothing))


def test_over_all_classes_it_is_cross_entropy():
    logits, labels = torch.randn(5, 7), torch.randint(0, 7, (5,))
    value = StagewiseCrossEntropy((1.0,), 0.1)([logits], labels)[0]
    torch.testing.assert_close(value, F.cross_entropy(logits, labels, label_smoothing=0.1))


def test_a_stage_where_no_sample_counts_gives_zero_and_finite_gradients():
    logits = torch.randn(3, 4).requires_grad_()
    considered = torch.tensor([False, True, True, True])
    value = StagewiseCrossEntropy((1.0,), 0.1)(
        [logits.masked_fill(~considered, -INF)], torch.zeros(3, dtype=torch.long)
    )[0]
    value.backward()
    assert value.item() == 0
    assert torch.equal(logits.grad, torch.zeros_like(logits))


def test_gradients_are_finite_and_right_with_classes_left_out():
    _, logits = make_logits()
    considered = logits > -INF
    free = logits.masked_fill(~considered, 0.0).requires_grad_()
    labels = torch.randint(0, 9, (6,))
    loss = StagewiseCrossEntropy((0.5,), 0.1)
    assert torch.autograd.gradcheck(
        lambda t: loss([t.masked_fill(~considered, -INF)], labels)[0], free
    )


@pytest.mark.parametrize('target', [torch.zeros(3, 1), torch.zeros(2).long(), torch.zeros(3, 5)])
def test_refuses_targets_of_another_shape(target):
    with pytest.raises(ValueError, match='target should be of shape'):
        StagewiseCrossEntropy((1.0,))([torch.zeros(3, 4)], target)


def test_refuses_smoothing_beyond_one():
    with pytest.raises(ValueError, match='label_smoothing'):
        StagewiseCrossEntropy(label_smoothing=2.0)


def test_needs_a_weight_for_each_stage():
    with pytest.raises(ValueError, match='1 stages for 4'):
        StagewiseCrossEntropy()([torch.zeros(1, 2)], torch.zeros(1, dtype=torch.long))


def test_mean_over_processes_is_the_loss_of_all_their_samples(monkeypatch):
    """Although different numbers of samples count on the two, on one of them none."""
    _, logits = make_logits(batch=5)
    logits = logits.requires_grad_()
    considered = logits > -INF
    labels = considered.long().argmax(1)
    labels[:2] = (~considered[:2]).long().argmax(1)
    loss = StagewiseCrossEntropy((0.5,), 0.1)
    (whole,) = loss([logits], labels)
    gradient = torch.autograd.grad(whole, logits)[0]
    numbers = [0, 3]
    monkeypatch.setattr(stagewise_cross_entropy, 'get_world_size', lambda: 2)
    parts = []
    for here, other in ((slice(0, 2), numbers[1]), (slice(2, 5), numbers[0])):
        monkeypatch.setattr(stagewise_cross_entropy, 'all_reduce', lambda n, add=other: n.add_(add))
        parts += loss([logits[here]], labels[here])
    torch.testing.assert_close(sum(parts) / 2, whole)
    torch.testing.assert_close(torch.autograd.grad(sum(parts) / 2, logits)[0], gradient)
    assert parts[0] == 0 < parts[1]
