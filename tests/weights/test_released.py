"""Released states under mmctx's names: no key lost, and the same numbers from both networks."""

from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from mmpretrain.structures import DataSample
from released_reference import ReleasedResNet, randomized_resnet, released_convnext_shapes

from mmctx.apis import build_classifier, stage_logits
from mmctx.weights import backbone_config, convert_released

CASE = Path(__file__).parents[1] / 'data' / 'released_ctx_convnext.npz'
NARROW = dict(num_classes=12, considered=(8, 5, 3), embed_dims=16)
TARGET = torch.tensor([3, 11, 0])


@pytest.fixture(params=[False, True], ids=['eval', 'train'])
def pair(request):
    """The reference, mmctx's classifier of its converted state, and images."""
    reference = randomized_resnet(base=16, **NARROW)
    state = convert_released(reference.state_dict())
    classifier = build_classifier(backbone_config(state, NARROW['considered']))
    classifier.load_state_dict(state)
    for model in (reference, classifier):
        model.double().train(request.param)
    return reference, classifier, torch.randn(3, 3, 72, 96).double()


def test_resnet_gives_the_same_logits_scores_and_losses(pair):
    reference, classifier, images = pair
    logits = stage_logits(classifier, images)
    expected = reference(images)
    for got, wanted in zip(logits, expected):
        torch.testing.assert_close(got, wanted, rtol=1e-8, atol=1e-8)
    samples = [DataSample().set_gt_label(int(label)) for label in TARGET]
    losses = classifier.head.loss(logits, samples)
    for alpha, loss, wanted in zip((0.15, 0.15, 0.15, 1.0), losses.values(), expected):
        torch.testing.assert_close(loss, alpha * F.cross_entropy(wanted, TARGET))
    if not classifier.training:
        scores = torch.stack([s.pred_score for s in classifier.predict(images, samples)])
        torch.testing.assert_close(scores, expected[-1].softmax(1))


def test_resnet_gives_the_same_gradients_and_statistics(pair):
    reference, classifier, images = pair
    weights = torch.tensor([0.15, 0.15, 0.15, 1.0]).double()
    for logits in (reference(images), stage_logits(classifier, images)):
        (weights * torch.stack([F.cross_entropy(s, TARGET) for s in logits])).sum().backward()
    expected = convert_released({n: p.grad for n, p in reference.named_parameters()})
    got = {name: parameter.grad for name, parameter in classifier.named_parameters()}
    assert got.keys() == expected.keys()
    for name, value in expected.items():
        # A bias before batch statistics has no gradient but rounding.
        error = (got[name] - value).norm()
        assert error < 1e-7 * value.norm() + 1e-10, f'{name}: {error:.1e}'
    for name, value in convert_released(reference.state_dict()).items():
        torch.testing.assert_close(classifier.state_dict()[name], value)


def test_names_of_the_recorded_case():
    with np.load(CASE) as arrays:
        recorded = {k[6:]: arrays[k].shape for k in arrays.files if k.startswith('state/')}
    shapes = released_convnext_shapes((1, 1, 4, 1), (8, 48, 48, 64), num_classes=12, embed_dims=16)
    assert recorded == shapes


FULL_SIZE = {
    'tiny': dict(depths=(3, 3, 9, 3), dims=(96, 192, 384, 768)),
    'base': dict(depths=(3, 3, 27, 3), dims=(128, 256, 512, 1024)),
}


@pytest.mark.parametrize('arch', FULL_SIZE)
def test_full_size_convnext_loads_completely(arch):
    shapes = released_convnext_shapes(**FULL_SIZE[arch])
    state = convert_released({n: torch.zeros(()).expand(shape) for n, shape in shapes.items()})
    backbone = backbone_config(state)
    assert backbone == dict(
        type='mmctx.ContextualConvNeXt',
        arch=arch,
        preset='released',
        selection='rerank',
        num_classes=1000,
        considered=(500, 200, 50),
    )
    build_classifier(backbone).load_state_dict(state)


def test_full_size_resnet_loads_completely():
    reference = ReleasedResNet()
    state = convert_released(reference.state_dict())
    assert len(state) == len(reference.state_dict())
    backbone = backbone_config(state)
    assert backbone == dict(
        type='mmctx.ContextualResNet',
        depth=50,
        preset='released',
        selection='rerank',
        num_classes=1000,
        considered=(500, 200, 50),
    )
    build_classifier(backbone).load_state_dict(state)


def test_config_tells_other_sizes():
    shapes = released_convnext_shapes((1, 1, 4, 1), (8, 48, 48, 64), 12, 16, every=2)
    del shapes['stages.0.0.gamma']
    state = convert_released({name: torch.zeros(shape) for name, shape in shapes.items()})
    assert backbone_config(state) == dict(
        type='mmctx.ContextualConvNeXt',
        arch=dict(depths=[1, 1, 4, 1], channels=[8, 48, 48, 64]),
        layer_scale_init_value=0.0,
        preset='released',
        selection='rerank',
        num_classes=12,
        considered=(6, 2, 1),
        embed_dims=16,
        every=2,
    )


def test_an_ordinary_classifier_is_left_out():
    state = ReleasedResNet(base=8, **NARROW).state_dict()
    beside = {**state, 'fc.weight': torch.zeros(12, 256), 'fc.bias': torch.zeros(12)}
    assert convert_released(beside).keys() == convert_released(state).keys()


@pytest.mark.parametrize(
    'names',
    [
        [],
        ['layer1.0.conv2.weight', 'fc.weight'],
        ['stages.0.0.dwconv.weight', 'head.weight'],
        ['layer1.0.conv2.weight', 'cls.class_token_embedding.weight'],
        ['layer1.0.conv2.conv.weight'],
    ],
)
def test_states_of_other_networks_are_refused(names):
    with pytest.raises(ValueError, match='not a state of the released') as caught:
        convert_released(dict.fromkeys(names, torch.zeros(1)))
    assert '\n' not in str(caught.value)


def test_contextual_blocks_without_a_pattern_are_refused():
    shapes = released_convnext_shapes((1, 1, 5, 1), (8, 48, 48, 64), 12, 16, every=2)
    state = {
        n: torch.zeros(s) for n, s in shapes.items() if not n.startswith('stages.3.0.dwconv.w')
    }
    with pytest.raises(ValueError, match='every n-th'):
        backbone_config(convert_released(state))
