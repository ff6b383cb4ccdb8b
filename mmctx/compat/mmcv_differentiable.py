"""Ops of mmcv that torchvision and mmcv also have as differentiable functions.

These are deformable convolutions (RepPoints, TOOD, VFNet, DyHead, DCN) and, needed on a GPU only,
the focal loss of RetinaNet and FCOS and the attention of Deformable DETR and DINO. mmcv asks for
the gradients by ops of their own: PyTorch finds them from the same function, computed once more.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from mmctx.errors import Unavailable

# torchvision's kernels take no other types.
FLOATS = (torch.float32, torch.float64)


def _gradients(function: Callable, inputs: list[Tensor], grad_output: Tensor) -> tuple[Tensor, ...]:
    with torch.enable_grad():
        inputs = [value.detach().requires_grad_() for value in inputs]
        return torch.autograd.grad(function(*inputs), inputs, grad_output)


def _deform_conv(input, weight, offset, mask=None, bias=None, *, stride, padding, dilation):
    from torchvision.ops import deform_conv2d

    dtype = input.dtype if input.dtype in FLOATS else torch.float32
    given = [None if v is None else v.to(dtype) for v in (input, offset, weight, bias, mask)]
    input, offset, weight, bias, mask = given
    return deform_conv2d(input, offset, weight, bias, stride, padding, dilation, mask)


def _plain_geometry(options):
    pairs = ('dH', 'dW'), ('padH', 'padW'), ('dilationH', 'dilationW')
    names = ('stride', 'padding', 'dilation')
    return {name: tuple(options[key] for key in pair) for name, pair in zip(names, pairs)}


def _modulated_geometry(options):
    pairs = dict(stride='stride', padding='pad', dilation='dilation')
    return {name: (options[f'{key}_h'], options[f'{key}_w']) for name, key in pairs.items()}


def _modulated(input, weight, offset, mask, bias=None, *, size, **geometry):
    # DyHead passes maps of a finer level, which mmcv reads row by row as if they had the output's
    # size.
    offset, mask = (
        maps.flatten(1)[:, : maps.shape[1] * size.numel()].unflatten(1, (maps.shape[1], *size))
        for maps in (offset, mask)
    )
    return _deform_conv(input, weight, offset, mask, bias, **geometry)


def deform_conv_forward(input, weight, offset, output, columns, ones, **options):
    """Deformable convolution (DCN) of `input`, (B, C, H, W), into `output`, (B, C', H', W').

    Args:
        input, weight, offset (Tensor): As of torchvision's `deform_conv2d`.
        output (Tensor): Result.
        columns, ones (Tensor): Not used.
        **options: Geometry, by mmcv's names. The numbers of groups follow from the shapes.
    """
    output.copy_(_deform_conv(input, weight, offset, **_plain_geometry(options)))


def deform_conv_backward_input(
    input, offset, grad_output, grad_input, grad_offset, weight, columns, **options
):
    """Gradients of :func:`deform_conv_forward`, into `grad_input` and `grad_offset`."""
    geometry = _plain_geometry(options)
    found = _gradients(
        lambda x, o: _deform_conv(x, weight, o, **geometry), [input, offset], grad_output
    )
    for result, gradient in zip((grad_input, grad_offset), found):
        result.copy_(gradient)


def deform_conv_backward_parameters(
    input, offset, grad_output, grad_weight, columns, ones, scale=1, **options
):
    """Gradient of :func:`deform_conv_forward`, `scale` times, into `grad_weight`."""
    geometry = _plain_geometry(options)
    (found,) = _gradients(
        # The convolution is linear in its weights, so that any have the same gradient.
        lambda w: _deform_conv(input, w, offset, **geometry),
        [grad_weight],
        grad_output,
    )
    grad_weight.copy_(scale * found)


def modulated_deform_conv_forward(
    input, weight, bias, ones, offset, mask, output, columns, with_bias, **options
):
    """Modulated deformable convolution (DCNv2) of `input`, into `output`.

    Args:
        input, weight, bias, offset, mask (Tensor): As of torchvision's `deform_conv2d`.
        ones, columns (Tensor): Not used.
        output (Tensor): Result.
        with_bias (bool): Whether `bias` counts.
        **options: Geometry, by mmcv's names. The numbers of groups follow from the shapes.
    """
    given = [input, weight, offset, mask, *([bias] if with_bias else [])]
    output.copy_(_modulated(*given, size=output.shape[2:], **_modulated_geometry(options)))


def modulated_deform_conv_backward(
    input,
    weight,
    bias,
    ones,
    offset,
    mask,
    columns,
    grad_input,
    grad_weight,
    grad_bias,
    grad_offset,
    grad_mask,
    grad_output,
    with_bias,
    **options,
):
    """Gradients of :func:`modulated_deform_conv_forward`, into the arguments of such names."""
    geometry = dict(_modulated_geometry(options), size=grad_output.shape[2:])
    given = [input, weight, offset, mask, *([bias] if with_bias else [])]
    found = _gradients(lambda *args: _modulated(*args, **geometry), given, grad_output)
    results = grad_input, grad_weight, grad_offset, grad_mask, grad_bias
    for result, gradient in zip(results, found):
        result.copy_(gradient)


def _focal_loss(scores, target, gamma, alpha):
    from torchvision.ops import sigmoid_focal_loss

    # The last number stands for the background, which has no scores.
    classes = torch.nn.functional.one_hot(target, scores.shape[1] + 1)[:, :-1]
    return sigmoid_focal_loss(scores, classes.to(scores.dtype), alpha, gamma)


def sigmoid_focal_loss_forward(input, target, weight, output, gamma, alpha):
    """Focal loss of each score, written into `output`.

    Args:
        input (Tensor): Logits, (N, C).
        target (Tensor): Classes, (N,); C is the background.
        weight (Tensor): Weights of the classes; only an empty one is available.
        output (Tensor): Result, (N, C).
        gamma (float): Exponent of the modulating factor.
        alpha (float): Weight of the foreground.

    Raises:
        NotImplementedError: There are weights of the classes.
    """
    if weight.numel():
        raise Unavailable('the focal loss with weights of classes needs an mmcv with compiled ops')
    output.copy_(_focal_loss(input, target, gamma, alpha))


def sigmoid_focal_loss_backward(input, target, weight, grad_input, gamma, alpha):
    """Gradient of the sum of :func:`sigmoid_focal_loss_forward`, into `grad_input`."""
    (found,) = _gradients(
        lambda scores: _focal_loss(scores, target, gamma, alpha), [input], torch.ones_like(input)
    )
    grad_input.copy_(found)


def _attention(shapes):
    from mmcv.ops.multi_scale_deform_attn import multi_scale_deformable_attn_pytorch

    return lambda value, places, weights: multi_scale_deformable_attn_pytorch(
        value, shapes, places, weights
    )


def ms_deform_attn_forward(value, shapes, starts, places, weights, im2col_step):
    """Multi-scale deformable attention, by mmcv's own form for a CPU, on any device.

    Args:
        value (Tensor): Values, (B, N, heads, C).
        shapes (Tensor): Height and width of each level, (levels, 2).
        starts, im2col_step: Not used.
        places (Tensor): Sampling places (x, y), (B, queries, heads, levels, points, 2).
        weights (Tensor): Weights of the places, (B, queries, heads, levels, points).

    Returns:
        Tensor: (B, queries, heads · C).
    """
    return _attention(shapes)(value, places, weights)


def ms_deform_attn_backward(
    value,
    shapes,
    starts,
    places,
    weights,
    grad_output,
    grad_value,
    grad_places,
    grad_weights,
    im2col_step,
):
    """Gradients of :func:`ms_deform_attn_forward`, into the arguments of such names."""
    found = _gradients(_attention(shapes), [value, places, weights], grad_output)
    for result, gradient in zip((grad_value, grad_places, grad_weights), found):
        result.copy_(gradient)
