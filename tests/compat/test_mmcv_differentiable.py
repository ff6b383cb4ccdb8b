"""mmcv's deformable convolutions, focal loss and deformable attention, and their gradients."""

import pytest
import torch
import torch.nn.functional as F
from torch.autograd import gradcheck

import mmctx  # noqa: F401

ops = pytest.importorskip('mmcv.ops')
served = pytest.importorskip('mmcv._ext')
if not served.__file__.endswith('mmcv_ops.py'):
    pytest.skip('this mmcv has its own compiled ops', allow_module_level=True)


def random(*shape, seed=0):
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def convolution_case(groups=1, deform_groups=1, shift=None):
    """Input, offsets, weights and options of a convolution whose two axes differ."""
    input, weight = random(2, 4, 7, 6), random(6, 4 // groups, 3, 2, seed=1) - 0.5
    options = dict(stride=(2, 1), padding=(1, 2), dilation=(1, 2))
    height, width = F.conv2d(input, weight, groups=groups, **options).shape[2:]
    offset = random(2, deform_groups * 12, height, width, seed=2) - 0.5
    if shift is not None:
        # The first entry of each pair moves the rows, the second one the columns.
        offset = torch.tensor(shift, dtype=torch.float64).repeat(deform_groups * 6)[:, None, None]
        offset = offset.expand(2, -1, height, width).clone()
    return input, offset, weight, [*options.values(), groups, deform_groups]


@pytest.mark.parametrize(('groups', 'deform_groups'), [(1, 1), (2, 1), (1, 2), (2, 2)])
@pytest.mark.parametrize('shift', [(0, 0), (1, -2)])
def test_a_whole_shift_of_all_samples_shifts_the_input(groups, deform_groups, shift):
    input, offset, weight, options = convolution_case(groups, deform_groups, shift)
    far = F.pad(input, [4] * 4).roll([-shift[0], -shift[1]], (2, 3))
    padded = far[:, :, 4 - 1 : 11 + 1, 4 - 2 : 10 + 2]
    stride, _, dilation = options[:3]
    expected = F.conv2d(padded, weight, None, stride, 0, dilation, groups)
    torch.testing.assert_close(ops.deform_conv2d(input, offset, weight, *options), expected)
    mask = torch.full((2, deform_groups * 6, *expected.shape[2:]), 0.25, dtype=torch.float64)
    bias = random(6)
    modulated = ops.modulated_deform_conv2d(input, offset, mask, weight, bias, *options)
    torch.testing.assert_close(modulated, expected / 4 + bias[:, None, None])


@pytest.mark.parametrize(('groups', 'deform_groups'), [(1, 1), (2, 2)])
@pytest.mark.parametrize('kind', ['plain', 'modulated', 'modulated with bias'])
def test_gradients_of_deformable_convolutions(groups, deform_groups, kind):
    input, offset, weight, options = convolution_case(groups, deform_groups)
    if kind == 'plain':
        given = [input, offset, weight]
        function = lambda *args: ops.deform_conv2d(*args, *options)  # noqa: E731
    else:
        mask = random(2, deform_groups * 6, *offset.shape[2:], seed=3)
        given = [input, offset, mask, weight, *([random(6)] if 'bias' in kind else [])]
        rest = options if 'bias' in kind else [None, *options]
        function = lambda *args: ops.modulated_deform_conv2d(*args, *rest)  # noqa: E731
    assert gradcheck(function, [v.requires_grad_() for v in given], fast_mode=True)


def test_larger_maps_are_read_as_if_they_had_the_size_of_the_output():
    """DyHead passes those of a finer level."""
    input, weight = random(2, 3, 4, 4), random(5, 3, 3, 3)
    offset, mask = random(2, 18, 8, 8), random(2, 9, 8, 8, seed=1).requires_grad_()
    found = ops.modulated_deform_conv2d(input, offset, mask, weight, None, 1, 1)
    offset, read = (
        torch.stack([torch.as_strided(image, (channels, 4, 4), (16, 4, 1)) for image in maps])
        for maps, channels in ((offset, 18), (mask.detach().clone(), 9))
    )
    expected = ops.modulated_deform_conv2d(input, offset, read, weight, None, 1, 1)
    torch.testing.assert_close(found, expected)
    (gradient,) = torch.autograd.grad(found.sum(), mask)
    assert gradient.flatten(1)[:, : 9 * 16].any() and not gradient.flatten(1)[:, 9 * 16 :].any()


def test_layers_of_half_precision():
    layer = ops.ModulatedDeformConv2dPack(4, 6, 3, padding=1).to(torch.bfloat16)
    x = random(2, 4, 5, 5).to(torch.bfloat16).requires_grad_()
    y = layer(x)
    y.float().square().sum().backward()
    assert y.dtype == x.grad.dtype == torch.bfloat16
    assert layer.weight.grad.abs().sum() > 0


@pytest.mark.parametrize('reduction', ['none', 'mean', 'sum'])
def test_focal_loss_is_that_of_the_paper(reduction):
    scores, labels = (random(5, 3) * 4 - 2).requires_grad_(), torch.tensor([0, 2, 3, 1, 3])
    loss = ops.sigmoid_focal_loss(scores, labels, 1.5, 0.3, None, reduction)
    positive = labels[:, None] == torch.arange(3)
    p = scores.sigmoid().where(positive, 1 - scores.sigmoid())
    alpha = torch.where(positive, 0.3, 0.7)
    expected = -alpha * (1 - p) ** 1.5 * p.log()
    if reduction != 'none':
        expected = expected.sum() / (5 if reduction == 'mean' else 1)
    torch.testing.assert_close(loss, expected)
    found, wanted = (torch.autograd.grad(v.sum(), scores)[0] for v in (loss, expected))
    torch.testing.assert_close(found, wanted)


def test_focal_loss_with_weights_of_classes_is_refused():
    with pytest.raises(NotImplementedError, match='weights of classes'):
        ops.sigmoid_focal_loss(random(2, 3), torch.tensor([0, 1]), 2.0, 0.25, random(3), 'none')


def test_deformable_attention_is_mmcvs_form_for_a_cpu():
    from mmcv.ops.multi_scale_deform_attn import (
        MultiScaleDeformableAttnFunction,
        multi_scale_deformable_attn_pytorch,
    )

    shapes = torch.tensor([[4, 3], [2, 2]])
    value, places, weights = (
        random(2, 16, 2, 3).requires_grad_(),
        random(2, 5, 2, 2, 4, 2).requires_grad_(),
        random(2, 5, 2, 2, 4).requires_grad_(),
    )
    starts = torch.tensor([0, 12])
    found = MultiScaleDeformableAttnFunction.apply(value, shapes, starts, places, weights, 64)
    expected = multi_scale_deformable_attn_pytorch(value, shapes, places, weights)
    torch.testing.assert_close(found, expected)
    pairs = zip(
        *(
            torch.autograd.grad(v.square().sum(), [value, places, weights])
            for v in (found, expected)
        )
    )
    for mine, theirs in pairs:
        torch.testing.assert_close(mine, theirs)
