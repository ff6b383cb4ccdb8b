"""The cascade of considered classes against one that permutes them, sample by sample."""

from itertools import pairwise

import pytest
import torch
import torch.nn as nn
import torch.nn.functional as F

from mmctx.models.layers import Contextualizing

CLASSES, KEPT, WIDTHS, PRIORS = 11, (7, 4, 2), (3, 5, 4, 6), (2, 3, 4)


def make(selection, **options):
    layer = Contextualizing(
        WIDTHS, PRIORS, CLASSES, KEPT, embed_dims=8, selection=selection, **options
    )
    for parameter in layer.parameters():
        nn.init.normal_(parameter, std=0.5)
    return layer.double()


def maps(batch):
    return [torch.randn(batch, c, 4, 3, dtype=torch.float64) for c in WIDTHS]


def run(layer, features):
    stages, kept = [], None
    for i, x in enumerate(features):
        stages.append(layer(x, i, kept))
        kept = stages[-1].kept
    return stages


def by_sample(layer, features, selection):
    """Lists of classes that really shrink; yields (scores of considered, kept, prior)."""
    for b in range(len(features[0])):
        classes = list(range(CLASSES))
        for i, x in enumerate(features):
            fc1, norm, _, fc2 = layer.classifying[i]
            v = fc2(F.relu(norm(fc1(x[b].flatten(1).mean(1)))))
            scores = {
                n: torch.dot(v, layer.embeddings.weight[n])
                / (v.norm() * layer.embeddings.weight[n].norm())
                * layer.logit_scale.exp()
                for n in (range(CLASSES) if selection == 'rerank' else classes)
            }
            prior = None
            if i < 3:
                classes = sorted(scores, key=scores.get, reverse=True)[: KEPT[i]]
                each, joint = layer.merging[i]['each'], layer.merging[i]['joint']
                merged = [each(layer.embeddings.weight[n][None])[0] for n in classes]
                prior = joint(torch.stack(merged).mean(0)[None])[0]
            yield b, i, scores, classes, prior


@pytest.mark.parametrize('batch', [1, 5])
@pytest.mark.parametrize('selection', ['reduce', 'rerank'])
def test_agrees_with_shrinking_lists(selection, batch):
    layer, features = make(selection), maps(batch)
    stages = run(layer, features)
    for b, i, scores, classes, prior in by_sample(layer, features, selection):
        logits, kept, got = (None if t is None else t[b] for t in stages[i])
        expected = torch.full((CLASSES,), -torch.inf, dtype=torch.float64)
        expected[list(scores)] = torch.stack(list(scores.values()))
        torch.testing.assert_close(logits, expected)
        if i < 3:
            assert kept.nonzero().flatten().tolist() == sorted(classes)
            torch.testing.assert_close(got, prior)


def test_considered_classes_are_nested_and_counted():
    stages = run(make('reduce'), maps(4))
    for i, (before, after) in enumerate(pairwise(stages)):
        assert (before.kept.sum(1) == KEPT[i]).all()
        assert torch.equal(after.logits > -torch.inf, before.kept)


MERGINGS = [
    dict(),
    dict(temperature=0.5),
    dict(normalize=True),
    dict(hidden=5),
    dict(temperature=2.0, normalize=True, hidden=5),
]


@pytest.mark.parametrize('merging', MERGINGS)
@pytest.mark.parametrize('stage', [0, 2])
def test_both_ways_of_merging_agree(stage, merging):
    """Few classes of few images are gathered, many are averaged by a product."""
    layer = make('reduce', merging=merging)
    logits = torch.randn(9, CLASSES, dtype=torch.float64, requires_grad=True)
    top = layer.keep(logits, stage)
    single = torch.cat([layer.merge(t[None], stage, s[None]) for t, s in zip(top, logits)])
    together = layer.merge(top, stage, logits)
    assert top[:1].numel() < CLASSES < top.numel()
    torch.testing.assert_close(together, single)
    cotangent = torch.randn_like(single)
    wanted = layer.embeddings.weight, logits
    for got, want in zip(
        torch.autograd.grad(together, wanted, cotangent, allow_unused=True),
        torch.autograd.grad(single, wanted, cotangent, allow_unused=True),
    ):
        assert (got is None) == (want is None)
        if got is not None:
            torch.testing.assert_close(got, want)


@pytest.mark.parametrize('merging', MERGINGS)
def test_merging_agrees_with_its_definition(merging):
    layer = make('rerank', merging=merging)
    logits = torch.randn(6, CLASSES, dtype=torch.float64)
    top = layer.keep(logits, 1)
    each, joint = layer.merging[1]['each'], layer.merging[1]['joint']
    assert each[0].out_features == merging.get('hidden', 128)
    for classes, scores, got in zip(top, logits, layer.merge(top, 1, logits)):
        total = torch.zeros(each[0].out_features, dtype=torch.float64)
        shares = torch.ones(len(classes), dtype=torch.float64)
        if 'temperature' in merging:
            shares = torch.exp(scores[classes] / merging['temperature'])
        for n, share in zip(classes, shares / shares.sum()):
            embedding = layer.embeddings.weight[n]
            if merging.get('normalize'):
                embedding = embedding / embedding.square().mean().sqrt()
            total += share * each(embedding[None])[0]
        torch.testing.assert_close(got, joint(total[None])[0])


def test_a_high_temperature_is_the_papers_mean():
    logits = torch.randn(5, CLASSES, dtype=torch.float64)
    torch.manual_seed(1)
    mean = make('rerank')
    torch.manual_seed(1)
    weighted = make('rerank', merging=dict(temperature=1e12))
    top = mean.keep(logits, 0)
    torch.testing.assert_close(weighted.merge(top, 0, logits), mean.merge(top, 0, logits))


def test_scores_learn_through_the_weights_alone():
    for merging, reached in ((dict(), False), (dict(temperature=1.0), True)):
        layer = make('rerank', merging=merging)
        layer(maps(4)[0], 0).prior.sum().backward()
        assert (layer.classifying[0][0].weight.grad is not None) == reached


def test_ties_keep_exactly_as_many():
    layer = make('reduce')
    nn.init.constant_(layer.embeddings.weight, 1.0)
    assert (run(layer, maps(2))[0].kept.sum(1) == KEPT[0]).all()


def test_scores_stay_float32_under_autocast():
    layer = make('reduce').float()
    with torch.autocast('cpu', torch.bfloat16):
        context = layer(torch.randn(2, WIDTHS[0], 4, 4), 0)
    assert context.logits.dtype == torch.float32


@pytest.mark.parametrize(
    ('change', 'message'),
    [
        (dict(considered=(12, 4, 2)), '12 classes cannot be kept of 11'),
        (dict(considered=(7, 8, 2)), '8 classes cannot be kept of 7'),
        (dict(considered=(7, 4, 0)), '0 classes cannot be kept of 4'),
        (dict(considered=(7, 4)), 'needs 3 whole numbers'),
        (dict(considered=(7, 4.0, 2)), 'needs 3 whole numbers'),
        (dict(considered=7), 'needs 3 whole numbers'),
        (dict(embed_dims=0), 'embed_dims'),
        (dict(selection='sort'), 'selection'),
        (dict(norm='GN'), 'norm'),
        (dict(merging=dict(temperature=0)), 'temperature of merging'),
        (dict(merging=dict(hidden=0)), 'hidden of merging'),
    ],
)
def test_wrong_arguments_are_named(change, message):
    arguments = dict(num_classes=CLASSES, considered=KEPT, embed_dims=8)
    with pytest.raises(ValueError, match=message):
        Contextualizing(WIDTHS, PRIORS, **{**arguments, **change})


def test_scale_of_one_element_is_a_scalar():
    """FSDP has no parameters without axes, so its runs save a vector."""
    layer = Contextualizing((8,), (), 12, ())
    state = dict(layer.state_dict(), logit_scale=torch.tensor([1.5]))
    layer.load_state_dict(state)
    assert layer.logit_scale.shape == () and layer.logit_scale == 1.5
    layer.logit_scale = torch.nn.Parameter(torch.zeros(1))
    layer.load_state_dict(dict(state, logit_scale=torch.tensor(2.5)))
    assert layer.logit_scale.tolist() == [2.5]
