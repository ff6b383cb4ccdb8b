"""Sampling positions and bilinear weights of the taps of a contextual convolution.

All back ends in PyTorch share these functions; `triton/coordinates.py` is their twin for kernels.
"""

import torch
from torch import Tensor

Pair = tuple[int, int]


def output_size(size: Pair, kernel: Pair, stride: Pair, padding: Pair, dilation: Pair) -> Pair:
    """Height and width of a convolution's output, in pixels, for an image of `size`."""
    height, width = (
        (n + 2 * p - d * (k - 1) - 1) // s + 1
        for n, k, s, p, d in zip(size, kernel, stride, padding, dilation)
    )
    return height, width


def tap_positions(
    size: Pair,
    kernel: Pair,
    stride: Pair,
    padding: Pair,
    dilation: Pair,
    sampling_offset: Tensor | None,
    device: torch.device,
    dtype: torch.dtype,
) -> tuple[Tensor, Tensor]:
    """Sampling positions p + g(k) + Δp(k) of every tap at every output pixel (Eq. 4).

    Args:
        size (tuple[int, int]): Height and width of the input, in pixels.
        kernel, stride, padding, dilation (tuple[int, int]): Same as in a convolution, in pixels.
        sampling_offset (Tensor, optional): Δp in pixels of the input, (B, 2K, H_out, W_out),
            interleaved (Δy, Δx) for the taps in row-major order. None stands for zero.
        device (torch.device): Device of the positions.
        dtype (torch.dtype): Type of the positions, at least float32, as bfloat16 rounds to
            steps of 0.03 px from position 4 on.

    Returns:
        tuple[Tensor, Tensor]: Positions y and x, each (B or 1, K, H_out, W_out).
    """
    if sampling_offset is None:
        out_height, out_width = output_size(size, kernel, stride, padding, dilation)
    else:
        # The same numbers, but an exporter need not prove it.
        out_height, out_width = sampling_offset.shape[2:]
    rows = torch.arange(out_height, device=device, dtype=dtype) * stride[0] - padding[0]
    columns = torch.arange(out_width, device=device, dtype=dtype) * stride[1] - padding[1]
    taps = torch.arange(kernel[0] * kernel[1], device=device)
    # Only sums that broadcast: an exporter cannot follow a size that is asked for.
    y = (taps // kernel[1] * dilation[0])[:, None, None] + rows[:, None]  # [K, H_out, 1]
    x = (taps % kernel[1] * dilation[1])[:, None, None] + columns  # [K, 1, W_out]
    if sampling_offset is not None:
        sampling_offset = sampling_offset.to(dtype).unflatten(1, (-1, 2))  # [B, K, 2, H_out, W_out]
        return y + sampling_offset[:, :, 0], x + sampling_offset[:, :, 1]
    return y.expand(-1, -1, out_width)[None], x.expand(-1, out_height, -1)[None]


def bilinear_corners(y: Tensor, x: Tensor, size: Pair) -> tuple[Tensor, Tensor]:
    """Indices of the four pixels around each position, and their weights, zero outside the image.

    Args:
        y, x (Tensor): Positions in pixels of the input, of the same shape.
        size (tuple[int, int]): Height H and width W of the input, in pixels.

    Returns:
        tuple[Tensor, Tensor]: Indices into the H·W pixels in row-major order (int32, always
        valid), and weights, both of the positions' shape with a last axis of 4.
    """
    height, width = size
    # More than a pixel outside nothing is read; clamping keeps far positions within int32.
    positions = torch.stack([y.clamp(-1, height), x.clamp(-1, width)])  # [2, ...]
    before = positions.detach().floor()
    share = positions - before
    # The pixels before and after each position, on each axis
    pixels = before.int()
    pixels = torch.stack([pixels, pixels + 1])  # [2, 2, ...]
    # NaN has no index: clamping makes it a valid one.
    inside = torch.stack(
        [pixels[:, 0].clamp(0, height - 1), pixels[:, 1].clamp(0, width - 1)], dim=1
    )
    rows, columns = inside.unbind(1)
    indices = [row + column for row in (rows * width).unbind() for column in columns.unbind()]
    reads = (pixels == inside).to(share.dtype)
    # Pairs, as autograd would add up gradients of a product that broadcasts.
    (y_before, x_before), (y_after, x_after) = (1 - share) * reads[0], share * reads[1]
    weights = [
        y_before * x_before, y_before * x_after, y_after * x_before, y_after * x_after
    ]  # fmt: skip
    return torch.stack(indices, -1), torch.stack(weights, -1)


def sample_taps(
    x: Tensor,
    kernel: Pair,
    stride: Pair,
    padding: Pair,
    dilation: Pair,
    sampling_offset: Tensor | None,
    tap_by_tap: bool = False,
) -> tuple[Tensor, Tensor]:
    """Pixels that each tap blends at each output pixel, and their weights.

    Args:
        x (Tensor): Images, (B, C, H, W).
        kernel, stride, padding, dilation (tuple[int, int]): Same as in a convolution, in pixels.
        sampling_offset (Tensor, optional): Δp, same as in `tap_positions`.
        tap_by_tap (bool): Whether all that belongs to a tap lies together in memory, instead of all
            that belongs to a pixel. Defaults to False.

    Returns:
        tuple[Tensor, Tensor]: Indices into the H·W pixels and weights, in float32 at least, each
        (B or 1, H_out·W_out, K, 4).
    """
    size = x.shape[-2:]
    dtype = torch.promote_types(x.dtype, torch.float32)
    positions = tap_positions(
        size, kernel, stride, padding, dilation, sampling_offset, x.device, dtype
    )
    batch, tap = (1, 0) if tap_by_tap else (0, -1)
    y, x = (t.movedim((0, 1), (batch, tap)) for t in positions)  # [B, H_out, W_out, K] or [K, B, …]
    found = (t.flatten(batch + 1, batch + 2) for t in bilinear_corners(y, x, size))
    indices, weights = (t.movedim(0, 2) if tap_by_tap else t for t in found)
    return indices, weights
