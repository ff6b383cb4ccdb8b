"""Multiply-adds of a contextual convolution, the same through every back end.

They are K for each output value and input channel, as in the convolution that it replaces; a dense
Δw adds an output channel. The four multiply-adds that blend a sample are not counted, as usual for
deformable convolutions. PyTorch's own counters see everything outside of the operators below.
"""

from math import prod

import torch
from torch.utils.flop_counter import register_flop_formula

from . import tapwise, triton  # noqa: F401 - define the operators


def multiply_adds(x_shape, weight_shape, has_weight_offset: bool, out_shape) -> int:
    """Count the multiply-adds of a forward pass; shapes as in `mmctx.ops.contextual_conv2d`."""
    batch, channels, height, width = out_shape
    dense = weight_shape[1] > 1 or x_shape[1] == 1
    channels += dense and has_weight_offset
    return batch * channels * height * width * prod(weight_shape[1:])


@register_flop_formula(torch.ops.mmctx.contextual_conv2d)
def _(
    x_shape, weight_shape, bias, sampling_offset, weight_offset, *args, out_shape, **kwargs
) -> int:
    return 2 * multiply_adds(x_shape, weight_shape, weight_offset is not None, out_shape)


@register_flop_formula(torch.ops.mmctx.contextual_conv2d_backward)
def _(
    grad_shape, x_shape, weight_shape, bias, sampling_offset, weight_offset, *args, **kwargs
) -> int:
    # Twice the forward pass, as in any convolution: once for x, once for the kernels.
    return 4 * multiply_adds(x_shape, weight_shape, weight_offset is not None, grad_shape)


@register_flop_formula(torch.ops.mmctx.sampled_depthwise_conv)
def _(x_shape, indices_shape, *args, out_shape, **kwargs) -> int:
    return 2 * indices_shape[2] * prod(out_shape)


@register_flop_formula(torch.ops.mmctx.sampled_depthwise_conv_backward)
def _(grad_shape, x_shape, indices_shape, corners_shape, kernels_shape, needed, **kwargs) -> int:
    return 2 * _passes(*needed) * indices_shape[2] * prod(grad_shape)


@register_flop_formula(torch.ops.mmctx.sampled_dense_conv)
def _(x_shape, indices_shape, corners_shape, weight_shape, weight_offset, **kwargs) -> int:
    return 2 * sampled_dense_multiply_adds(indices_shape, weight_shape, weight_offset is not None)


@register_flop_formula(torch.ops.mmctx.sampled_dense_conv_backward)
def _(
    grad_shape, x_shape, indices_shape, corners_shape, weight_shape, weight_offset, needed, **kwargs
) -> int:
    forward = sampled_dense_multiply_adds(indices_shape, weight_shape, weight_offset is not None)
    return 2 * _passes(*needed) * forward


def _passes(needs_x: bool, needs_corners: bool, *needs_kernels: bool) -> int:
    """How often a backward pass takes the multiply-adds of the forward pass."""
    return (needs_x or needs_corners) + any(needs_kernels)


def sampled_dense_multiply_adds(indices_shape, weight_shape, has_weight_offset: bool) -> int:
    """Count the multiply-adds of `sampled_dense_conv`."""
    (batch, pixels, *_), (channels_out, channels, _) = indices_shape, weight_shape
    out_shape = batch, channels_out, pixels, 1
    return multiply_adds((batch, channels), weight_shape, has_weight_offset, out_shape)
