"""The dense contextual convolution in plain PyTorch, for a CPU: samples, then one product.

All output channels of an image share Δw, so its part of the output is one number for a pixel.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from .bags import (
    CORNERS,
    corner_gradients,
    even_starts,
    first_rows,
    transpose_samples,
    weighted_rows,
)
from .operator_pair import empty_gradients, operator_pair

# Fewest input channels of columns whose gradient oneDNN computes well
FEWEST_CHANNELS = 16


def sampled_dense_conv(
    x: Tensor, indices: Tensor, corners: Tensor, weight: Tensor, weight_offset: Tensor | None
) -> Tensor:
    """Dense convolution of bilinear samples.

    Args:
        x (Tensor): Images, channels last, (B, R, C_in), R pixels.
        indices (Tensor): Pixels that each tap blends, (B, P, K, 4), int32, P output pixels.
        corners (Tensor): Their weights, the mask included, (B, P, K, 4).
        weight (Tensor): Kernel, (C_out, C_in, K).
        weight_offset (Tensor, optional): Δw of each image, (B, K, C_in).

    Returns:
        Tensor: (B, P, C_out).
    """
    columns = _columns(x, _in_batch(x, indices), corners)
    out = _multiply_columns(columns, weight)
    if weight_offset is not None:
        out += _shared_products(columns, weight_offset)[..., None]
    return out


def _in_batch(x: Tensor, indices: Tensor) -> Tensor:
    """Indices of pixels of an image as those of the whole batch."""
    return indices + first_rows(x)[:, None, None, None]


def _columns(x: Tensor, indices: Tensor, corners: Tensor) -> Tensor:
    """Samples, (B, P, K, C_in)."""
    starts = even_starts(indices[..., 0].numel(), CORNERS, x.device)
    rows = weighted_rows(x.flatten(0, 1), indices, corners, starts)
    return rows.view(*indices.shape[:3], x.shape[2])


def _multiply_columns(columns: Tensor, weight: Tensor) -> Tensor:
    """Columns (B, P, K, C_in) by a kernel (C_out, C_in, K) -> (B, P, C_out)."""
    if columns.device.type != 'cpu':
        return F.linear(columns.flatten(2), weight.transpose(1, 2).flatten(1))
    # On an AMD CPU oneDNN's convolutions are twice as fast as MKL's products. One that jumps from
    # pixel to pixel takes the kernel as it lies in memory.
    return F.conv2d(_as_image(columns), weight[:, :, None], stride=(1, weight.shape[2]))[
        :, :, 0
    ].transpose(1, 2)


def _as_image(columns: Tensor) -> Tensor:
    """Columns (B, P, K, C_in) as an image whose rows hold all taps, (B, C_in, 1, P·K)."""
    return columns.flatten(1, 2).transpose(1, 2)[:, :, None]


def _shared_products(columns: Tensor, vectors: Tensor) -> Tensor:
    """Columns (B, P, K, C_in) by one vector for each image (B, K, C_in) -> (B, P)."""
    # The other way round, columns by vectors, takes PyTorch five to ten times as long.
    return (vectors.flatten(1)[:, None] @ columns.flatten(2).transpose(1, 2))[:, 0]


def sampled_dense_conv_backward(
    grad: Tensor,
    x: Tensor,
    indices: Tensor,
    corners: Tensor,
    weight: Tensor,
    weight_offset: Tensor | None,
    needed: list[bool],
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Gradients of `sampled_dense_conv` by all but the indices; empty if not needed."""
    needs_x, needs_corners, needs_weight, needs_weight_offset = needed
    grad_x, grad_corners, grad_weight, grad_weight_offset = grads = empty_gradients(
        (x, corners, weight, weight_offset), needed
    )
    entries = _in_batch(x, indices)
    # Of all output channels, which share Δw
    shared = None if weight_offset is None else grad.sum(2)  # [B, P]
    if needs_x or needs_corners:
        grad_columns = _column_gradients(grad, weight)
        if weight_offset is not None:
            grad_columns.addcmul_(shared[..., None, None], weight_offset[:, None])
        grad_rows = grad_columns.flatten(0, 2)  # [B·P·K, C_in]
        rows, samples = x.flatten(0, 1), entries.flatten(0, 2)  # [B·R, C_in], [B·P·K, 4]
        if needs_corners:
            grad_corners.copy_(corner_gradients(grad_rows, rows, samples).view(corners.shape))
        if needs_x:
            (transposed,) = transpose_samples(samples[None], corners.flatten(0, 2)[None], len(rows))
            grad_x.copy_(weighted_rows(grad_rows, *transposed).view(x.shape))
    if needs_weight or needs_weight_offset:
        columns = _columns(x, entries, corners)
        if needs_weight:
            grad_weight.copy_(_weight_gradient(grad, columns))
        if needs_weight_offset:
            products = shared[:, None] @ columns.flatten(2)  # [B, 1, K·C_in]
            grad_weight_offset.copy_(products.view(weight_offset.shape))
    return grads


def _column_gradients(grad: Tensor, weight: Tensor) -> Tensor:
    """Gradient of the columns, (B, P, K, C_in), from that of the output, (B, P, C_out)."""
    (batch, pixels, _), (_, channels, taps) = grad.shape, weight.shape
    if grad.device.type != 'cpu' or channels < FEWEST_CHANNELS:
        return (grad @ weight.transpose(1, 2).flatten(1)).view(batch, pixels, taps, channels)
    columns = grad.new_empty(batch, pixels, taps, channels)  # for its shape and layout alone
    image, *_ = torch.ops.aten.convolution_backward(
        grad.transpose(1, 2)[:, :, None], _as_image(columns), weight[:, :, None], None,
        stride=(1, taps), padding=(0, 0), dilation=(1, 1), transposed=False, output_padding=(0, 0),
        groups=1, output_mask=(True, False, False),
    )  # fmt: skip
    return image[:, :, 0].transpose(1, 2).contiguous().view(columns.shape)


def _weight_gradient(grad: Tensor, columns: Tensor) -> Tensor:
    """Gradient of the kernel, (C_out, C_in, K), of columns (B, P, K, C_in)."""
    outputs, (taps, channels) = grad.shape[2], columns.shape[2:]
    columns = columns.flatten(2)  # [B, P, K·C_in]
    if grad.device.type != 'cpu':
        by_column = grad.flatten(0, 1).t() @ columns.flatten(0, 1)
    else:
        # As of a 1×1 convolution, which oneDNN computes faster than that of one that jumps. See
        # `linear_of_pixels` for the dilation.
        _, by_column, _ = torch.ops.aten.convolution_backward(
            grad.transpose(1, 2)[:, :, None], columns.transpose(1, 2)[:, :, None],
            grad.new_empty(outputs, taps * channels, 1, 1), None, stride=(1, 1), padding=(0, 0),
            dilation=(2, 2), transposed=False, output_padding=(0, 0), groups=1,
            output_mask=(False, True, False),
        )  # fmt: skip
    return by_column.view(outputs, taps, channels).transpose(1, 2)


def _empty_output(x, indices, corners, weight, weight_offset):
    return x.new_empty(x.shape[0], indices.shape[1], weight.shape[0])


dense_conv = operator_pair(
    'sampled_dense_conv',
    'Tensor x, Tensor indices, Tensor corners, Tensor weight, Tensor? weight_offset',
    sampled_dense_conv,
    sampled_dense_conv_backward,
    _empty_output,
)
