"""The contextual convolution tap by tap in plain PyTorch: fast on a CPU, with little memory.

A tap of a depthwise kernel is a weighted sum of four channels-last rows of the image, which
`embedding_bag` gathers and blends in one pass, followed by a multiply-add with the tap's kernel.
Backward does the same from output pixels to the image. It computes the gradients of the image and
of the kernel without storing samples or computing them again. A dense kernel, which has few taps,
samples once into columns for a single matrix product.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from .bags import CORNERS, blend, corner_gradients, sample_starts, transpose_samples
from .sampling import Pair, output_size, sample_taps

# Most entries that the depthwise backward sorts at once, which limits its memory.
SORTED_AT_ONCE = 2**17


@torch.library.custom_op('mmctx::sampled_depthwise_conv', mutates_args=())
def sampled_depthwise_conv(
    rows: Tensor, indices: Tensor, corners: Tensor, kernels: Tensor
) -> Tensor:
    """Depthwise convolution of bilinear samples.

    Args:
        rows (Tensor): Pixels of the whole batch, channels last, (B·H·W, C).
        indices (Tensor): Rows that each tap blends, (K, B, P, 4), int64, P output pixels.
        corners (Tensor): Their weights, the mask included, (K, B, P, 4).
        kernels (Tensor): Kernel of each image and tap, (K, B, C).

    Returns:
        Tensor: (B, P, C).
    """
    _, batch, pixels, _ = indices.shape
    out = rows.new_zeros(batch, pixels, rows.shape[1])
    starts = sample_starts(indices, batch * pixels)
    for tap_indices, tap_corners, kernel in zip(indices.flatten(1), corners.flatten(1), kernels):
        sampled = blend(rows, tap_indices, tap_corners, starts)
        out.addcmul_(sampled.view_as(out), kernel[:, None])
    return out


@sampled_depthwise_conv.register_fake
def _(rows, indices, corners, kernels):
    return rows.new_empty(indices.shape[1], indices.shape[2], rows.shape[1])


@torch.library.custom_op('mmctx::sampled_depthwise_conv_backward', mutates_args=())
def sampled_depthwise_conv_backward(
    grad: Tensor,
    rows: Tensor,
    indices: Tensor,
    corners: Tensor,
    kernels: Tensor,
    needed: list[bool],
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of `sampled_depthwise_conv` by rows, corners and kernels; empty if not needed."""
    grad_rows, grad_corners, grad_kernels = results = _empty_gradients(
        (rows, corners, kernels), needed
    )
    taps, batch, pixels, _ = indices.shape
    grad_pixels = grad.flatten(0, 1)  # [B·P, C]
    indices, corners = indices.flatten(1, 2), corners.flatten(1, 2)  # [K, B·P, 4]
    if needed[0] or needed[2]:
        images = rows.view(batch, len(rows) // max(batch, 1), rows.shape[1])
        grad_images = grad_rows.zero_().view_as(images) if needed[0] else None
        at_once = max(SORTED_AT_ONCE // max(indices[0].numel(), 1), 1)
        for first in range(0, taps, at_once):
            some = slice(first, first + at_once)
            transposed = transpose_samples(indices[some], corners[some], len(rows))
            for tap, (sources, weights, starts) in enumerate(zip(*transposed), first):
                spread = blend(grad_pixels, sources, weights, starts).view_as(images)
                if needed[0]:
                    grad_images.addcmul_(spread, kernels[tap][:, None])
                if needed[2]:
                    torch.sum(spread.mul_(images), 1, out=grad_kernels[tap])
    if needed[1]:
        starts = sample_starts(indices, batch * pixels)
        for tap in range(taps):
            grad_samples = (grad * kernels[tap][:, None]).flatten(0, 1)
            grad_corners[tap] = corner_gradients(grad_samples, rows, indices[tap], starts).view(
                batch, pixels, CORNERS
            )
    return results


def _empty_gradients(inputs: tuple[Tensor, ...], needed: list[bool]) -> tuple[Tensor, ...]:
    return tuple(
        torch.empty_like(x) if wanted else x.new_empty(0) for x, wanted in zip(inputs, needed)
    )


@sampled_depthwise_conv_backward.register_fake
def _(grad, rows, indices, corners, kernels, needed):
    return _empty_gradients((rows, corners, kernels), needed)


@torch.library.custom_op('mmctx::sampled_rows', mutates_args=())
def sampled_rows(rows: Tensor, indices: Tensor, corners: Tensor) -> Tensor:
    """Blend rows (R, C) at indices (N, 4) by corners (N, 4) -> (N, C)."""
    starts = sample_starts(indices, len(indices))
    return blend(rows, indices.flatten(), corners.flatten(), starts)


@sampled_rows.register_fake
def _(rows, indices, corners):
    return rows.new_empty(indices.shape[0], rows.shape[1])


@torch.library.custom_op('mmctx::sampled_rows_backward', mutates_args=())
def sampled_rows_backward(
    grad: Tensor, rows: Tensor, indices: Tensor, corners: Tensor, needed: list[bool]
) -> tuple[Tensor, Tensor]:
    """Gradients of `sampled_rows` by rows and corners; empty if not needed."""
    grad_rows, grad_corners = _empty_gradients((rows, corners), [False, False])
    if needed[0]:
        transposed = transpose_samples(indices[None], corners[None], len(rows))
        grad_rows = blend(grad, *(t[0] for t in transposed))
    if needed[1]:
        starts = sample_starts(indices, len(indices))
        grad_corners = corner_gradients(grad, rows, indices, starts)
    return grad_rows, grad_corners


@sampled_rows_backward.register_fake
def _(grad, rows, indices, corners, needed):
    return _empty_gradients((rows, corners), needed)


def _register_backward(forward, backward):
    """Make one operator the backward of another, of (rows, indices, ...); refuse its own."""

    def setup_context(ctx, inputs, output):
        ctx.save_for_backward(*inputs)

    def differentiate(ctx, grad):
        needs_rows, _, *others = ctx.needs_input_grad
        needed = [needs_rows, *others]
        gradients = backward(grad.contiguous(), *ctx.saved_tensors, needed)
        grad_rows, *other_grads = [g if wanted else None for g, wanted in zip(gradients, needed)]
        return grad_rows, None, *other_grads

    def refuse(ctx, *grads):
        raise NotImplementedError(
            "back end 'tapwise' has no second derivatives: pass backend='reference'"
        )

    forward.register_autograd(differentiate, setup_context=setup_context)
    backward.register_autograd(refuse)


_register_backward(sampled_depthwise_conv, sampled_depthwise_conv_backward)
_register_backward(sampled_rows, sampled_rows_backward)


def _multiply_columns(columns: Tensor, weight: Tensor) -> Tensor:
    """Columns (B, P, M) by weights (N, M) -> (B, P, N)."""
    if columns.device.type != 'cpu':
        return F.linear(columns, weight)
    # On an AMD CPU oneDNN's convolutions are twice as fast as MKL's products. The dilation does
    # not change a kernel of one pixel, but with one thread PyTorch gives only dilated convolutions
    # to oneDNN.
    image = columns.transpose(1, 2)[:, :, None]  # [B, M, 1, P], channels last
    return F.conv2d(image, weight[..., None, None], dilation=2)[:, :, 0].transpose(1, 2)


def _multiply_each(columns: Tensor, shared: Tensor) -> Tensor:
    """Columns (B, P, M) by one vector for each image (B, M, 1) -> (B, P, 1)."""
    if columns.requires_grad:
        # Slower itself, but its gradient has the layout of the columns' other gradient; adding two
        # different layouts would take longer than the rest of backward.
        return columns @ shared
    return (shared.transpose(1, 2) @ columns.transpose(1, 2)).transpose(1, 2)


def contextual_conv2d_tapwise(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    sampling_offset: Tensor | None,
    weight_offset: Tensor | None,
    mask: Tensor | None,
    stride: Pair,
    padding: Pair,
    dilation: Pair,
) -> Tensor:
    """See `mmctx.ops.contextual_conv2d`, which checks the arguments.

    Raises:
        NotImplementedError: Second derivatives are asked for.
    """
    batch, channels, *size = x.shape
    kernel = weight.shape[-2:]
    out_size = output_size(size, kernel, stride, padding, dilation)
    indices, corners = sample_taps(x, kernel, stride, padding, dilation, sampling_offset)
    compute_type = corners.dtype
    first_row = torch.arange(batch, device=x.device) * (size[0] * size[1])
    indices = indices + first_row[:, None, None, None]  # [B, K, P, 4], P output pixels
    corners = corners.expand_as(indices)
    if mask is not None:
        corners = corners * mask.flatten(2)[..., None].to(compute_type)
    # For a single image, reshape returns a strided view, on which embedding_bag is slow.
    rows = x.permute(0, 2, 3, 1).reshape(-1, channels).to(compute_type).contiguous()

    weight = weight.to(compute_type)
    if weight_offset is not None:
        weight_offset = weight_offset.flatten(3).to(compute_type)
    if weight.shape[1] == 1 and channels > 1:
        kernels = weight.flatten(1)[None].expand(batch, -1, -1)  # [B, C, K]
        if weight_offset is not None:
            kernels = kernels + weight_offset[:, :, 0]
        out = sampled_depthwise_conv(
            rows,
            indices.transpose(0, 1).contiguous(),
            corners.transpose(0, 1).contiguous(),
            kernels.permute(2, 0, 1).contiguous(),
        )
    else:
        by_pixel = [t.transpose(1, 2).reshape(-1, CORNERS) for t in (indices, corners)]
        columns = sampled_rows(rows, *by_pixel).view(
            batch, out_size[0] * out_size[1], kernel[0] * kernel[1] * channels
        )
        out = _multiply_columns(columns, weight.permute(0, 2, 3, 1).flatten(1))  # [B, P, C_out]
        if weight_offset is not None:
            shared = weight_offset[:, 0].transpose(1, 2).flatten(1)[..., None]  # [B, K·C, 1]
            out = out + _multiply_each(columns, shared)
    if bias is not None:
        out = out + bias.to(compute_type)
    return out.to(x.dtype).transpose(1, 2).unflatten(2, out_size)
