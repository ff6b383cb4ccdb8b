"""The contextual convolution tap by tap: plain PyTorch, quick on a CPU, small in memory.

A tap of a depthwise kernel is a weighted sum of four channels-last rows of the image, which
`embedding_bag` gathers and blends in one pass, followed by a multiply-add with the tap's kernel.
Backward samples again instead of keeping K images. The dense kernel, of few taps, samples once
into columns that one matrix product consumes.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from .sampling import Pair, output_size, sample_taps


def _gather_rows(rows: Tensor, indices: Tensor, corners: Tensor) -> Tensor:
    """Blend rows: (R, C) at indices (P, 4) by corners (P, 4) -> (P, C)."""
    return F.embedding_bag(indices, rows, mode='sum', per_sample_weights=corners)


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
    taps, batch, pixels, _ = indices.shape
    out = rows.new_zeros(batch, pixels, rows.shape[1])
    for tap in range(taps):
        sampled = _gather_rows(rows, indices[tap].flatten(0, 1), corners[tap].flatten(0, 1))
        out.addcmul_(sampled.view_as(out), kernels[tap][:, None])
    return out


@sampled_depthwise_conv.register_fake
def _(rows, indices, corners, kernels):
    return rows.new_empty(indices.shape[1], indices.shape[2], rows.shape[1])


@torch.library.custom_op('mmctx::sampled_depthwise_conv_backward', mutates_args=())
def sampled_depthwise_conv_backward(
    grad: Tensor, rows: Tensor, indices: Tensor, corners: Tensor, kernels: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of `sampled_depthwise_conv` by rows, corners and kernels."""
    taps, batch, pixels, corner_count = indices.shape
    bag_starts = torch.arange(0, batch * pixels * corner_count, corner_count, device=rows.device)
    bag_of_index = torch.arange(batch * pixels, device=rows.device).repeat_interleave(corner_count)
    grad_rows = torch.zeros_like(rows)
    grad_corners, grad_kernels = torch.empty_like(corners), torch.empty_like(kernels)
    for tap in range(taps):
        tap_indices, tap_corners = indices[tap].flatten(0, 1), corners[tap].flatten(0, 1)
        sampled = _gather_rows(rows, tap_indices, tap_corners).view_as(grad)
        grad_kernels[tap] = (grad * sampled).sum(1)
        grad_sampled = (grad * kernels[tap][:, None]).flatten(0, 1)  # [B·P, C]
        # What autograd calls for embedding_bag; autograd itself is not at hand inside an operator.
        grad_corners[tap] = torch.ops.aten._embedding_bag_per_sample_weights_backward(
            grad_sampled, rows, tap_indices.flatten(), bag_starts, bag_of_index, 0
        ).view_as(corners[tap])
        spread = grad_sampled[:, None] * tap_corners[..., None]  # [B·P, 4, C]
        grad_rows.index_add_(0, tap_indices.flatten(), spread.flatten(0, 1))
    return grad_rows, grad_corners, grad_kernels


@sampled_depthwise_conv_backward.register_fake
def _(grad, rows, indices, corners, kernels):
    return torch.empty_like(rows), torch.empty_like(corners), torch.empty_like(kernels)


def _setup_context(ctx, inputs, output):
    ctx.save_for_backward(*inputs)


def _backward(ctx, grad):
    by_rows, by_corners, by_kernels = sampled_depthwise_conv_backward(
        grad.contiguous(), *ctx.saved_tensors
    )
    return by_rows, None, by_corners, by_kernels


sampled_depthwise_conv.register_autograd(_backward, setup_context=_setup_context)


def contextual_conv2d_tapwise(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    offset: Tensor | None,
    weight_delta: Tensor | None,
    mask: Tensor | None,
    stride: Pair,
    padding: Pair,
    dilation: Pair,
) -> Tensor:
    """See `mmctx.ops.contextual_conv2d`, which checks the arguments."""
    batch, channels, *size = x.shape
    kernel = weight.shape[-2:]
    out_size = output_size(size, kernel, stride, padding, dilation)
    indices, corners = sample_taps(x, kernel, stride, padding, dilation, offset)
    compute_type = corners.dtype
    first_row = torch.arange(batch, device=x.device) * (size[0] * size[1])
    indices = indices + first_row[:, None, None, None]  # [B, K, P, 4], P output pixels
    corners = corners.expand_as(indices)
    if mask is not None:
        corners = corners * mask.flatten(2)[..., None].to(compute_type)
    rows = x.permute(0, 2, 3, 1).reshape(-1, channels).to(compute_type)

    weight = weight.to(compute_type)
    if weight_delta is not None:
        weight_delta = weight_delta.flatten(3).to(compute_type)
    if weight.shape[1] == 1 and channels > 1:
        kernels = weight.flatten(1)[None].expand(batch, -1, -1)  # [B, C, K]
        if weight_delta is not None:
            kernels = kernels + weight_delta[:, :, 0]
        out = sampled_depthwise_conv(
            rows,
            indices.transpose(0, 1).contiguous(),
            corners.transpose(0, 1).contiguous(),
            kernels.permute(2, 0, 1).contiguous(),
        )
    else:
        by_pixel = [t.transpose(1, 2).reshape(-1, 4) for t in (indices, corners)]  # [B·P·K, 4]
        columns = _gather_rows(rows, *by_pixel).view(
            batch, out_size[0] * out_size[1], kernel[0] * kernel[1] * channels
        )
        out = columns @ weight.permute(2, 3, 1, 0).flatten(0, 2)  # [B, P, C_out]
        if weight_delta is not None:
            shared = weight_delta[:, 0].transpose(1, 2).flatten(1)[..., None]  # [B, K·C, 1]
            out = out + columns @ shared
    if bias is not None:
        out = out + bias.to(compute_type)
    return out.to(x.dtype).transpose(1, 2).unflatten(2, out_size)
