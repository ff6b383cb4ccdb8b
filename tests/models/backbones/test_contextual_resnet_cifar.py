"""Contextual ResNet with the stem for small images: vanilla at first, and all of it learns."""

import pytest
import torch
from mmpretrain.models import ResNet_CIFAR

from mmctx.models.backbones import ContextualResNet_CIFAR

SMALL = dict(depth=50, stem_channels=8, base_channels=8)
CONTEXT = dict(num_classes=12, considered=(8, 5, 3), embed_dims=16)


@pytest.mark.parametrize('strides', [(1, 2, 2, 2), (2, 2, 2, 2)])
def test_starts_as_the_vanilla_network(strides):
    vanilla = ResNet_CIFAR(strides=strides, out_indices=(0, 1, 2, 3), **SMALL)
    vanilla.eval()
    contextual = ContextualResNet_CIFAR(
        strides=strides, out_indices=(0, 1, 2, 3), **SMALL, **CONTEXT
    ).eval()
    missing, unexpected = contextual.load_state_dict(vanilla.state_dict(), strict=False)
    assert not unexpected and all('predictor' in n or 'contextualizing' in n for n in missing)
    x = torch.randn(2, 3, 33, 40)
    for ours, theirs in zip(contextual(x), vanilla(x), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)


def test_stride_is_that_of_the_stages():
    network = ContextualResNet_CIFAR(strides=(2, 2, 2, 2), **SMALL, **CONTEXT)
    assert network.stride == 16
    with pytest.raises(ValueError, match='smaller than the stride 16'):
        network(torch.zeros(2, 3, 15, 32))


def test_learns_in_half_precision():
    network = ContextualResNet_CIFAR(out_type='logits', **SMALL, **CONTEXT)
    for name, parameter in network.named_parameters():
        if 'predictor' in name:
            torch.nn.init.normal_(parameter, std=0.1)
    with torch.autocast('cpu', dtype=torch.bfloat16):
        logits = network(torch.randn(4, 3, 16, 16))
    assert [stage.dtype for stage in logits] == [torch.float32] * 4
    sum(stage.masked_fill(stage.isinf(), 0).square().sum() for stage in logits).backward()
    for name, parameter in network.named_parameters():
        assert parameter.grad is not None and parameter.grad.isfinite().all(), name
