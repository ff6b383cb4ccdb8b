"""The contextual layer: equal to the vanilla one at first, following its prior afterwards."""

import pytest
import torch
import torch.nn as nn
import torch.nn.functional as F
from torchvision.ops import deform_conv2d

from mmctx.models.layers import (
    ContextualConv2d,
    forward_contextual_block,
    make_contextual,
    using_prior,
)

LAYOUTS = {
    'paper depthwise': dict(
        groups=6, kernel_size=7, padding=3, depthwise_predictor=True, weight_offset_hidden=2
    ),
    'released depthwise': dict(
        groups=6,
        kernel_size=7,
        padding=3,
        sampling_offset_hidden=3,
        weight_offset_hidden=3,
        modulated=True,
    ),
    'dense': dict(
        kernel_size=3,
        padding=1,
        stride=2,
        sampling_offset_hidden=4,
        weight_offset_hidden=4,
        norm='BN',
    ),
    'dense modulated': dict(
        kernel_size=3,
        padding=2,
        dilation=2,
        sampling_offset_hidden=4,
        weight_offset_hidden=4,
        modulated=True,
    ),
}


def randomize(module):
    for parameter in module.parameters():
        nn.init.normal_(parameter, std=0.3)
    return module


@pytest.mark.parametrize('batch', [1, 3])
@pytest.mark.parametrize('layout', LAYOUTS)
def test_starts_as_the_vanilla_convolution(layout, batch):
    conv = ContextualConv2d(6, 6, prior_channels=5, **LAYOUTS[layout])
    conv.eval()  # BatchNorm1d has no statistics of a batch of 1
    x, prior = torch.randn(batch, 6, 9, 11), torch.randn(batch, 5)
    with using_prior(prior):
        out = conv(x)
    share = 0.5 if conv.modulated else 1.0
    expected = F.conv2d(
        x, conv.weight * share, conv.bias, conv.stride, conv.padding, conv.dilation, conv.groups
    )
    torch.testing.assert_close(out, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize('layout', ['released depthwise', 'dense modulated'])
def test_follows_its_predictors(layout):
    """Written out with the concatenated prior and torchvision's deformable convolution."""
    conv = randomize(ContextualConv2d(6, 6, prior_channels=5, **LAYOUTS[layout]))
    x, prior = torch.randn(2, 6, 8, 7), torch.randn(2, 5)
    with using_prior(prior):
        out = conv(x)
    everywhere = prior[:, :, None, None].expand(-1, -1, *x.shape[2:])
    grid = conv.sampling_offset_predictor(torch.cat([everywhere, x], 1))
    taps = conv.kernel_size[0] ** 2
    weight_offset = conv.weight_offset_predictor(
        torch.cat([prior, F.adaptive_avg_pool2d(x, 1).flatten(1)], 1)
    )
    for i in range(2):
        own = weight_offset[i].view(6, 1, *conv.kernel_size)
        weight = conv.weight + (own if conv.groups > 1 else own.transpose(0, 1))
        expected = deform_conv2d(
            x[i : i + 1], grid[i : i + 1, : 2 * taps], weight, conv.bias, conv.stride,
            conv.padding, conv.dilation, mask=grid[i : i + 1, 2 * taps :].sigmoid()
        )  # fmt: skip
        torch.testing.assert_close(out[i : i + 1], expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize('layout', LAYOUTS)
def test_every_parameter_learns_once_offsets_are_not_zero(layout):
    conv = randomize(ContextualConv2d(6, 6, prior_channels=5, **LAYOUTS[layout]))
    prior = torch.randn(3, 5, requires_grad=True)
    with using_prior(prior):
        conv(torch.randn(3, 6, 8, 8)).square().sum().backward()
    assert prior.grad.abs().sum() > 0
    still = [name for name, p in conv.named_parameters() if p.grad is None or not p.grad.any()]
    # A norm of the batch cancels the bias before it.
    cancelled = (
        {'sampling_offset_predictor.0.bias', 'weight_offset_predictor.0.bias'}
        if 'BN' in str(conv)
        else set()
    )
    assert set(still) <= cancelled


def test_needs_a_prior_and_forgets_it():
    conv = ContextualConv2d(2, 2, 3, prior_channels=1, weight_offset_hidden=2)
    with pytest.raises(RuntimeError, match='prior'):
        conv(torch.zeros(1, 2, 5, 5))
    with pytest.raises(ZeroDivisionError), using_prior(torch.zeros(1, 1)):
        raise ZeroDivisionError
    with pytest.raises(RuntimeError, match='prior'):
        conv(torch.zeros(1, 2, 5, 5))


@pytest.mark.parametrize(
    'bad',
    [
        dict(groups=3),
        dict(norm='GN'),
        dict(offsets=('weight', 'grid')),
    ],
)
def test_wrong_arguments_are_named(bad):
    with pytest.raises(ValueError, match=next(iter(bad))):
        ContextualConv2d(6, 6, 3, prior_channels=1, **bad)


def test_a_depthwise_convolution_has_one_output_for_each_input():
    with pytest.raises(ValueError, match='6 and 12 channels'):
        ContextualConv2d(6, 12, 3, groups=6, prior_channels=1)


class Block(nn.Module):
    def __init__(self):
        super().__init__()
        self.with_cp = True
        self.conv = nn.Conv2d(4, 4, 3, padding=1)

    def forward(self, x):
        return x + self.conv(x).tanh()


def test_blocks_keep_their_weights_and_checkpointing_its_gradients():
    block = Block()
    x, prior = torch.randn(2, 4, 6, 6, requires_grad=True), torch.randn(2, 3, requires_grad=True)
    before = block(x)
    make_contextual(block, 'conv', prior_channels=3, weight_offset_hidden=2)
    after = forward_contextual_block(block, 'conv', x, prior)
    torch.testing.assert_close(after, before)

    randomize(block)
    results = []
    for with_cp in (True, False):
        block.context_cp = with_cp
        out = forward_contextual_block(block, 'conv', x, prior)
        # The block runs again for another batch before the first one's gradients are asked for.
        forward_contextual_block(block, 'conv', x + 1, prior - 1)
        leaves = [x, prior, *block.parameters()]
        results.append([out, *torch.autograd.grad(out.square().sum(), leaves)])
    for checkpointed, kept in zip(*results):
        torch.testing.assert_close(checkpointed, kept)
    with pytest.raises(RuntimeError, match='prior'):
        block(x)


def test_the_innermost_prior_counts():
    conv = randomize(ContextualConv2d(2, 2, 3, prior_channels=1, weight_offset_hidden=2))
    x, outer, inner = torch.randn(1, 2, 5, 5), torch.zeros(1, 1), torch.ones(1, 1)
    with using_prior(inner):
        of_inner = conv(x)
    with using_prior(outer):
        of_outer = conv(x)
        with using_prior(inner):
            assert torch.equal(conv(x), of_inner)
        assert torch.equal(conv(x), of_outer)
    assert not torch.equal(of_inner, of_outer)


def test_offsets_stay_float32_under_autocast():
    """The last layer of the predictor alone leaves autocast, whose bfloat16 is too coarse."""
    conv = randomize(ContextualConv2d(6, 6, prior_channels=5, **LAYOUTS['released depthwise']))
    x, prior = torch.randn(2, 6, 8, 7), torch.randn(2, 5)
    with torch.autocast('cpu', torch.bfloat16), using_prior(prior):
        sampling_offset, mask_logits = conv.predict_sampling_offset(x, prior)
        out = conv(x)
    assert out.dtype == torch.bfloat16
    assert sampling_offset.dtype == mask_logits.dtype == torch.float32
    assert (sampling_offset != sampling_offset.bfloat16().float()).any()
    out.float().sum().backward()
    assert conv.sampling_offset_predictor[-1].weight.grad.abs().sum() > 0
