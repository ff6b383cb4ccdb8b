"""ReLU of a LayerNorm over the channels of rows, after a vector of each image is added to them.

Forward and backward are one kernel each. A row is a pixel and stays in registers, so backward
recomputes its statistics instead of reading them.
"""

from functools import lru_cache

import torch
import triton
import triton.language as tl
from torch import Tensor

from .device_launch import aligned, launch_on_device
from .launching import Launch
from .settings import row_tile, split_evenly

MOST_PIXELS = 64
# Number of programs of the backward pass: several for each multiprocessor of a large GPU, but few
# enough that their partial sums are small.
BACKWARD_PROGRAMS = 1056
# Parameters may be slices of a larger buffer, so their addresses may have any alignment.
VECTORS = ['shares', 'scale', 'shift']


@triton.jit
def normalized_row(rows, shares, image, pixels, tile, channel, exists, eps,
                   CHANNELS: tl.constexpr, PIXELS: tl.constexpr):  # fmt: skip
    """Indices of a tile's values, whether they exist, normalised values and 1/σ, in float32."""
    pixel = (tile * PIXELS + tl.arange(0, PIXELS))[:, None]
    valid = (pixel < pixels) & exists
    at = (image.to(tl.int64) * pixels + pixel) * CHANNELS + channel
    x = tl.load(rows + at, valid, 0).to(tl.float32)
    x += tl.load(shares + image * CHANNELS + channel, exists, 0).to(tl.float32)
    mean = tl.sum(x, 1, keep_dims=True) / CHANNELS
    x = tl.where(exists, x - mean, 0)
    deviation = tl.rsqrt(tl.sum(x * x, 1, keep_dims=True) / CHANNELS + eps)
    return at, valid, x * deviation, deviation


@triton.jit(do_not_specialize=['pixels', 'tiles'], do_not_specialize_on_alignment=VECTORS)
def norm_relu_kernel(
    out,  # [B, P, C]
    rows,  # [B, P, C]
    shares,  # [B, C]
    scale,  # [C]
    shift,  # [C]
    pixels, tiles,
    EPS: tl.constexpr, CHANNELS: tl.constexpr, BLOCK: tl.constexpr, PIXELS: tl.constexpr,
):  # fmt: skip
    """A program owns a tile of an image's pixels."""
    image, tile = tl.program_id(0) // tiles, tl.program_id(0) % tiles
    channel = tl.arange(0, BLOCK)[None, :]
    exists = channel < CHANNELS
    at, valid, x, _ = normalized_row(rows, shares, image, pixels, tile, channel, exists, EPS,
                                     CHANNELS, PIXELS)  # fmt: skip
    weight = tl.load(scale + channel, exists, 0).to(tl.float32)
    y = x * weight + tl.load(shift + channel, exists, 0).to(tl.float32)
    # Not `tl.maximum(y, 0)`, which would hide a NaN.
    tl.store(out + at, tl.where(y <= 0, 0, y).to(out.dtype.element_ty), valid)


@triton.jit(
    do_not_specialize=['pixels', 'chunks', 'chunk_tiles'], do_not_specialize_on_alignment=VECTORS
)
def norm_relu_backward_kernel(
    grad_rows,  # [B, P, C]
    sums,  # [B, chunks, 3, C], gradients of shares, scale and shift by the chunk's pixels
    grad,  # [B, P, C]
    rows,  # [B, P, C]
    shares,  # [B, C]
    scale,  # [C]
    shift,  # [C]
    pixels, chunks, chunk_tiles,
    EPS: tl.constexpr, CHANNELS: tl.constexpr, BLOCK: tl.constexpr, PIXELS: tl.constexpr,
):  # fmt: skip
    """A program walks the pixel tiles of a chunk of an image."""
    image, chunk = tl.program_id(0) // chunks, tl.program_id(0) % chunks
    channel = tl.arange(0, BLOCK)[None, :]
    exists = channel < CHANNELS
    weight = tl.load(scale + channel, exists, 0).to(tl.float32)
    bias = tl.load(shift + channel, exists, 0).to(tl.float32)
    grad_share = tl.zeros([PIXELS, BLOCK], tl.float32)
    grad_scale = tl.zeros([PIXELS, BLOCK], tl.float32)
    grad_shift = tl.zeros([PIXELS, BLOCK], tl.float32)
    for tile in range(chunk * chunk_tiles, (chunk + 1) * chunk_tiles):
        at, valid, x, deviation = normalized_row(rows, shares, image, pixels, tile, channel, exists,
                                                 EPS, CHANNELS, PIXELS)  # fmt: skip
        g = tl.load(grad + at, valid, 0).to(tl.float32)
        g = tl.where(x * weight + bias <= 0, 0, g)
        grad_scale += tl.where(valid, g * x, 0)
        grad_shift += g
        g *= weight
        mean = tl.sum(g, 1, keep_dims=True) / CHANNELS
        along = tl.sum(g * x, 1, keep_dims=True) / CHANNELS
        g = tl.where(valid, (g - mean - x * along) * deviation, 0)
        grad_share += g
        tl.store(grad_rows + at, g.to(grad_rows.dtype.element_ty), valid)
    to = sums + tl.program_id(0).to(tl.int64) * 3 * CHANNELS + channel
    tl.store(to, tl.sum(grad_share, 0, keep_dims=True), exists)
    tl.store(to + CHANNELS, tl.sum(grad_scale, 0, keep_dims=True), exists)
    tl.store(to + 2 * CHANNELS, tl.sum(grad_shift, 0, keep_dims=True), exists)


def norm_relu_forward(
    rows: Tensor, shares: Tensor, scale: Tensor, shift: Tensor, eps: float
) -> Tensor:
    """ReLU(LayerNorm(rows + shares)), (B, P, C) of the type of `rows`; sums in float32.

    Args:
        rows (Tensor): Pixels of each image, (B, P, C).
        shares (Tensor): Vector of each image that is added to all of its rows, (B, C).
        scale, shift (Tensor): Scale and shift of the norm, (C,).
        eps (float): Epsilon of the norm.
    """
    rows = aligned(rows)
    out = torch.empty_like(rows)
    if out.numel():
        launch = _forward_launch(rows.device, rows.shape, eps, _types(rows, shares, scale, shift))
        launch_on_device(launch, out, rows, shares, scale, shift)
    return out


def norm_relu_backward(
    grad: Tensor, rows: Tensor, shares: Tensor, scale: Tensor, shift: Tensor, eps: float
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Gradients of rows, shares, scale and shift; those of the last three are in float32."""
    batch, _, channels = rows.shape
    rows, grad = aligned(rows), aligned(grad)
    grad_rows = torch.empty_like(rows)
    if not rows.numel():
        sums = scale.new_zeros(batch, 3, channels, dtype=torch.float32)
        return grad_rows, sums[:, 0], *sums[:, 1:].sum(0).unbind()
    types = _types(grad, rows, shares, scale, shift)
    launch, chunks = _backward_launch(rows.device, rows.shape, eps, types)
    sums = torch.empty(batch, chunks, 3, channels, dtype=torch.float32, device=rows.device)
    launch_on_device(launch, grad_rows, sums, grad, rows, shares, scale, shift)
    by_image = sums[:, 0] if chunks == 1 else sums.sum(1)
    grad_scale, grad_shift = by_image[:, 1:].sum(0).unbind()
    return grad_rows, by_image[:, 0], grad_scale, grad_shift


def _types(*tensors: Tensor) -> tuple[torch.dtype, ...]:
    """Types of the tensors, for which a launch is compiled."""
    return tuple([tensor.dtype for tensor in tensors])


@lru_cache(maxsize=4096)
def _forward_launch(device, shape, eps, types) -> Launch:
    batch, pixels, channels = shape
    block, tile = _tile(channels)
    tiles = triton.cdiv(pixels, tile)
    values = dict(pixels=pixels, tiles=tiles, EPS=eps, CHANNELS=channels, BLOCK=block, PIXELS=tile)
    return Launch(norm_relu_kernel, batch * tiles, values)


@lru_cache(maxsize=4096)
def _backward_launch(device, shape, eps, types) -> tuple[Launch, int]:
    """Launch of the backward pass, and the number of chunks of an image."""
    batch, pixels, channels = shape
    block, tile = _tile(channels)
    tiles = triton.cdiv(pixels, tile)
    chunks, chunk_tiles = split_evenly(tiles, triton.cdiv(BACKWARD_PROGRAMS, batch))
    values = dict(
        pixels=pixels, chunks=chunks, chunk_tiles=chunk_tiles,
        EPS=eps, CHANNELS=channels, BLOCK=block, PIXELS=tile,
    )  # fmt: skip
    return Launch(norm_relu_backward_kernel, batch * chunks, values), chunks


def _tile(channels: int) -> tuple[int, int]:
    """Number of channels, padded to a power of two, and of pixels of a program."""
    block, rows = row_tile(channels)
    return block, min(rows, MOST_PIXELS)
