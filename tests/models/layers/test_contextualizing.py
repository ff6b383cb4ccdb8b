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


@pytest.mark.parametrize('stage', [0, 2])
def test_both_ways_of_merging_agree(stage):
    """Few classes of few images are gathered, many are averaged by a product."""
    layer = make('reduce')
    top = torch.rand(9, CLASSES).topk(KEPT[stage]).indices
    single = torch.cat([layer.merge(row[None], stage) for row in top])
    assert top[:1].numel() < CLASSES < top.numel()
    torch.testing.assert_close(layer.merge(top, stage), single)
    cotangent = torch.randn_like(single)
    for got, want in zip(
        torch.autograd.grad(layer.merge(top, stage), layer.embeddings.weight, cotangent),
        torch.autograd.grad(single, layer.embeddings.weight, cotangent),
    ):
        torch.testing.assert_close(got, want)


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
    ],
)
def test_refuses(change, message):
    arguments = dict(num_classes=CLASSES, considered=KEPT, embed_dims=8)
    with pytest.raises(ValueError, match=message):
        Contextualizing(WIDTHS, PRIORS, **{**arguments, **change})
