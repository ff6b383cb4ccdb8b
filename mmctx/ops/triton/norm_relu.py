"""ReLU of a norm over rows, after a vector of each image is added to them.

The norm is a layer norm, or a batch norm whose statistics are known. Forward is one kernel,
backward two, and three for a batch norm in training. A row is a pixel and stays in registers, so
backward recomputes the statistics of a layer norm instead of reading them.
"""

from functools import lru_cache

import torch
import triton
import triton.language as tl
from torch import Tensor

from .device_launch import aligned, launch_on_device, on_device
from .launching import Launch, current_stream, types_of
from .settings import row_tile, split_evenly

MOST_PIXELS = 64
# Number of programs of the backward pass: several for each multiprocessor of a large GPU, but few
# enough that their partial sums are small.
BACKWARD_PROGRAMS = 1056
# Channels and images whose sums a program adds up at once.
SUMMED_CHANNELS, SUMMED_ROWS = 16, 128
# Parameters may be slices of a larger buffer, so their addresses may have any alignment.
VECTORS = ['shares', 'scale', 'shift', 'mean', 'variance']
SIZES = ['pixels', 'tiles', 'chunks', 'chunk_tiles', 'count']


@triton.jit
def normalized_row(rows, shares, mean, variance, image, pixels, tile, channel, exists, eps,
                   CHANNELS: tl.constexpr, PIXELS: tl.constexpr):  # fmt: skip
    """Indices of a tile's values, whether they exist, normalised values and 1/σ, in float32."""
    pixel = (tile * PIXELS + tl.arange(0, PIXELS))[:, None]
    valid = (pixel < pixels) & exists
    at = (image.to(tl.int64) * pixels + pixel) * CHANNELS + channel
    x = tl.load(rows + at, valid, 0).to(tl.float32)
    x += tl.load(shares + image * CHANNELS + channel, exists, 0).to(tl.float32)
    if mean is not None:
        x -= tl.load(mean + channel, exists, 0).to(tl.float32)
        deviation = tl.rsqrt(tl.load(variance + channel, exists, 1).to(tl.float32) + eps)
    else:
        x = tl.where(exists, x - tl.sum(x, 1, keep_dims=True) / CHANNELS, 0)
        deviation = tl.rsqrt(tl.sum(x * x, 1, keep_dims=True) / CHANNELS + eps)
    return at, valid, x * deviation, deviation


@triton.jit(do_not_specialize=SIZES, do_not_specialize_on_alignment=VECTORS)
def norm_relu_kernel(
    out,  # [B, P, C]
    rows,  # [B, P, C]
    shares,  # [B, C]
    scale, shift, mean, variance,  # [C]; mean and variance are None for a layer norm
    pixels, tiles,
    EPS: tl.constexpr, CHANNELS: tl.constexpr, BLOCK: tl.constexpr, PIXELS: tl.constexpr,
):  # fmt: skip
    """A program owns a tile of an image's pixels."""
    image, tile = tl.program_id(0) // tiles, tl.program_id(0) % tiles
    channel = tl.arange(0, BLOCK)[None, :]
    exists = channel < CHANNELS
    at, valid, x, _ = normalized_row(rows, shares, mean, variance, image, pixels, tile, channel,
                                     exists, EPS, CHANNELS, PIXELS)  # fmt: skip
    weight = tl.load(scale + channel, exists, 0).to(tl.float32)
    y = x * weight + tl.load(shift + channel, exists, 0).to(tl.float32)
    # Not `tl.maximum(y, 0)`, which would hide a NaN.
    tl.store(out + at, tl.where(y <= 0, 0, y).to(out.dtype.element_ty), valid)


@triton.jit(do_not_specialize=SIZES, do_not_specialize_on_alignment=VECTORS)
def norm_relu_backward_kernel(
    grad_rows,  # [B, P, C]; None for the sums of scale and shift alone
    sums,  # [B, chunks, 3, C], gradients of shares, scale and shift by the chunk's pixels
    grad,  # [B, P, C]
    rows,  # [B, P, C]
    totals,  # [3, C], sums of scale and shift over all rows, for a batch norm in training, or None
    shares,  # [B, C]
    scale, shift, mean, variance,  # [C]; mean and variance are None for a layer norm
    pixels, chunks, chunk_tiles, count,
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
    average, along = tl.zeros([1, BLOCK], tl.float32), tl.zeros([1, BLOCK], tl.float32)
    if totals is not None:
        along = tl.load(totals + CHANNELS + channel, exists, 0) / count
        average = tl.load(totals + 2 * CHANNELS + channel, exists, 0) / count
    for tile in range(chunk * chunk_tiles, (chunk + 1) * chunk_tiles):
        at, valid, x, deviation = normalized_row(rows, shares, mean, variance, image, pixels, tile,
                                                 channel, exists, EPS, CHANNELS,
                                                 PIXELS)  # fmt: skip
        g = tl.load(grad + at, valid, 0).to(tl.float32)
        g = tl.where(x * weight + bias <= 0, 0, g)
        grad_scale += tl.where(valid, g * x, 0)
        grad_shift += g
        if grad_rows is not None:
            if mean is None:
                g *= weight
                own_average = tl.sum(g, 1, keep_dims=True) / CHANNELS
                own_along = tl.sum(g * x, 1, keep_dims=True) / CHANNELS
                g = (g - own_average - x * own_along) * deviation
            else:
                g = (g - average - x * along) * weight * deviation
            g = tl.where(valid, g, 0)
            grad_share += g
            tl.store(grad_rows + at, g.to(grad_rows.dtype.element_ty), valid)
    to = sums + tl.program_id(0).to(tl.int64) * 3 * CHANNELS + channel
    tl.store(to, tl.sum(grad_share, 0, keep_dims=True), exists)
    tl.store(to + CHANNELS, tl.sum(grad_scale, 0, keep_dims=True), exists)
    tl.store(to + 2 * CHANNELS, tl.sum(grad_shift, 0, keep_dims=True), exists)


@triton.jit(do_not_specialize=['images', 'chunks'])
def sum_kernel(
    by_image,  # [B, C], sums of the first kind over the chunks of an image
    totals,  # [3, C], sums of each kind over all chunks
    sums,  # [B, chunks, 3, C], of `norm_relu_backward_kernel`
    images, chunks,
    CHANNELS: tl.constexpr, BLOCK: tl.constexpr, ROWS: tl.constexpr,
):  # fmt: skip
    """A program owns some channels of one kind."""
    kind, block = tl.program_id(0) % 3, tl.program_id(0) // 3
    channel = (block * BLOCK + tl.arange(0, BLOCK))[None, :]
    exists = channel < CHANNELS
    total = tl.zeros([ROWS, BLOCK], tl.float32)
    for first in range(0, images, ROWS):
        image = (first + tl.arange(0, ROWS))[:, None]
        listed = (image < images) & exists
        of_image = tl.zeros([ROWS, BLOCK], tl.float32)
        for chunk in range(chunks):
            at = ((image.to(tl.int64) * chunks + chunk) * 3 + kind) * CHANNELS + channel
            of_image += tl.load(sums + at, listed, 0)
        tl.store(by_image + image.to(tl.int64) * CHANNELS + channel, of_image, listed & (kind == 0))
        total += of_image
    tl.store(totals + kind * CHANNELS + channel, tl.sum(total, 0, keep_dims=True), exists)


class NormRelu:
    """Launches of the norm of rows of one shape, forward and backward.

    Args:
        shape (tuple): Of the rows, (B, P, C).
        eps (float): Epsilon of the norm.
        batch_norm (bool): Whether the norm is a batch norm that trains, whose statistics depend on
            the rows.
    """

    def __init__(self, shape, eps: float, batch_norm: bool = False):
        batch, pixels, channels = shape
        block, rows = row_tile(channels)
        tile = min(rows, MOST_PIXELS)
        tiles = triton.cdiv(pixels, tile)
        chunks, chunk_tiles = split_evenly(tiles, triton.cdiv(BACKWARD_PROGRAMS, batch))
        values = dict(
            pixels=pixels, tiles=tiles, chunks=chunks, chunk_tiles=chunk_tiles,
            count=batch * pixels, EPS=eps, CHANNELS=channels, BLOCK=block, PIXELS=tile,
        )  # fmt: skip
        self.forward = Launch(norm_relu_kernel, batch * tiles, values)
        self.backward = Launch(norm_relu_backward_kernel, batch * chunks, values)
        self.total = Launch(norm_relu_backward_kernel, batch * chunks, values)
        self.batch_norm = batch_norm
        self.sums, self.by_image = (batch, chunks, 3, channels), (batch, channels)
        summing = dict(
            images=batch, chunks=chunks, CHANNELS=channels, BLOCK=SUMMED_CHANNELS, ROWS=SUMMED_ROWS
        )
        self.sum = Launch(sum_kernel, 3 * triton.cdiv(channels, SUMMED_CHANNELS), summing)

    def __call__(self, stream: int, rows: Tensor, shares: Tensor, norm: tuple) -> Tensor:
        """ReLU(norm(rows + shares)), (B, P, C) of the type of `rows`; sums in float32.

        Args:
            stream (int): Raw stream.
            rows (Tensor): Pixels of each image, (B, P, C) in memory.
            shares (Tensor): Vector of each image that is added to all of its rows, (B, C).
            norm (tuple): Scale, shift, mean and variance, each (C,); the last two are None for a
                layer norm.
        """
        out = torch.empty_like(rows)
        self.forward(stream, out, rows, shares, *norm)
        return out

    def gradients(
        self, stream: int, grad: Tensor, rows: Tensor, shares: Tensor, norm: tuple
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Gradients of rows; of shares, (B, C); and their sum and those of scale and shift, (3, C).

        All but the first are in float32.
        """
        sums = rows.new_empty(self.sums, dtype=torch.float32)
        of_norm = None
        if self.batch_norm:
            self.total(stream, None, sums, grad, rows, None, shares, *norm)
            of_norm = sums.sum((0, 1))
        grad_rows = torch.empty_like(rows)
        self.backward(stream, grad_rows, sums, grad, rows, of_norm, shares, *norm)
        by_image, totals = sums.new_empty(self.by_image), sums.new_empty(self.sums[2:])
        self.sum(stream, by_image, totals, sums)
        return grad_rows, by_image, totals


@lru_cache(maxsize=4096)
def _layer_norm_of(device, shape, eps: float, types) -> NormRelu:
    return NormRelu(shape, eps)


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
        run = _layer_norm_of(rows.device, rows.shape, eps, types_of(rows, shares, scale, shift))
        launch_on_device(run.forward, out, rows, shares, scale, shift, None, None)
    return out


def norm_relu_backward(
    grad: Tensor, rows: Tensor, shares: Tensor, scale: Tensor, shift: Tensor, eps: float
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Gradients of rows, shares, scale and shift; those of the last three are in float32."""
    rows, grad = aligned(rows), aligned(grad)
    if not rows.numel():
        batch, _, channels = rows.shape
        sums = scale.new_zeros(batch, 3, channels, dtype=torch.float32)
        return torch.empty_like(rows), sums[:, 0], *sums[:, 1:].sum(0).unbind()
    types = types_of(grad, rows, shares, scale, shift)
    run = _layer_norm_of(rows.device, rows.shape, eps, types)
    with on_device(rows.device):
        stream = current_stream(rows.device)
        norm = scale, shift, None, None
        grad_rows, grad_shares, totals = run.gradients(stream, grad, rows, shares, norm)
    return grad_rows, grad_shares, totals[1], totals[2]
