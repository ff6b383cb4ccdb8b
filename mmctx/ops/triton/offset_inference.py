"""The hidden layers of both predictors of a contextual convolution, for inference alone.

`mmctx.ops.predicting.infer_offsets` calls the two kernels: one makes the hidden map of the
predictor of Δp, the other the hidden vectors of the predictor of Δw. Sizes: B images of P pixels
and C channels, priors of length N, H hidden channels.

Step by step they are a dozen kernels, most of which take the host longer to launch than the GPU to
run. In training the steps in between are needed, and batch norms take their statistics first.
"""

from functools import lru_cache

import torch
import triton
import triton.language as tl
from torch import Tensor

from .device_launch import aligned, launch_on_device
from .fixed_norm import Norm, normalized
from .launching import Launch

# Channels that a program multiplies at a time, and tiles of sums that one adds at a time.
INNER, TILES = 64, 16
# Pixels of a program, of many hidden channels and of few ones: the fastest on an H200. They are
# fewer where there would not be a few programs for each multiprocessor of a large GPU.
PIXELS, PIXELS_OF_FEW, FEW, PROGRAMS = 64, 128, 32, 264
# Parameters may be slices of a larger buffer, so their addresses may have any alignment.
VECTORS = ['shares', 'weight', 'bias', 'scale', 'shift', 'mean', 'variance', 'prior']


@triton.jit(do_not_specialize=['pixels', 'tiles'], do_not_specialize_on_alignment=VECTORS)
def hidden_rows_kernel(
    hidden,  # [B, P, H]
    sums,  # [B, tiles, C], of the rows of a tile, in float32
    rows,  # [B, P, C]
    weight,  # [H, N + C] from its column of the first channel of the rows on
    shares,  # [B, H]
    scale, shift, mean, variance,  # [H]; mean and variance are None for a layer norm
    pixels, tiles,
    EPS: tl.constexpr, CHANNELS: tl.constexpr, HIDDEN: tl.constexpr, LENGTH: tl.constexpr,
    PRECISION: tl.constexpr, PIXELS: tl.constexpr, INNER: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """A program owns a tile of an image's pixels."""
    image, tile = (tl.program_id(0) // tiles).to(tl.int64), tl.program_id(0) % tiles
    channel = tl.arange(0, BLOCK)[None, :]
    exists = channel < HIDDEN
    pixel = (tile * PIXELS + tl.arange(0, PIXELS))[:, None]
    valid = pixel < pixels
    row_at = rows + (image * pixels + pixel) * CHANNELS
    weight_at = weight + tl.arange(0, BLOCK)[:, None] * LENGTH
    own = tl.arange(0, BLOCK)[:, None] < HIDDEN
    total = tl.zeros([PIXELS, BLOCK], tl.float32)
    for start in range(0, CHANNELS, INNER):
        inner = start + tl.arange(0, INNER)
        x = tl.load(row_at + inner[None, :], valid & (inner < CHANNELS)[None, :], 0)
        # Neighbouring threads read neighbouring numbers, so the weight is turned afterwards.
        w = tl.load(weight_at + inner[None, :], own & (inner < CHANNELS)[None, :], 0).to(x.dtype)
        total = tl.dot(x, tl.trans(w), total, input_precision=PRECISION)
        sums_at = sums + (image * tiles + tile) * CHANNELS + inner
        tl.store(sums_at, tl.sum(x.to(tl.float32), 0), inner < CHANNELS)
    total += tl.load(shares + image * HIDDEN + channel, exists, 0).to(tl.float32)
    y = normalized(total, scale, shift, mean, variance, channel, exists, EPS, HIDDEN)
    at = hidden + (image * pixels + pixel) * HIDDEN + channel
    tl.store(at, y.to(hidden.dtype.element_ty), valid & exists)


@triton.jit(do_not_specialize=['pixels', 'tiles'], do_not_specialize_on_alignment=VECTORS)
def hidden_vectors_kernel(
    hidden,  # [B, H]
    prior,  # [B, N]
    sums,  # [B, tiles, C], whose sum over tiles and mean over pixels is the pooled map
    weight,  # [H, N + C]
    bias,  # [H]
    scale, shift, mean, variance,  # [H]; mean and variance are None for a layer norm
    pixels, tiles,
    EPS: tl.constexpr, PRIOR: tl.constexpr, CHANNELS: tl.constexpr, HIDDEN: tl.constexpr,
    INNER: tl.constexpr, TILES: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """A program owns an image."""
    image = tl.program_id(0).to(tl.int64)
    row = tl.arange(0, BLOCK)
    exists = row < HIDDEN
    weight_at = weight + (row * (PRIOR + CHANNELS))[:, None]
    total = tl.zeros([BLOCK, INNER], tl.float32)
    for start in range(0, PRIOR, INNER):
        inner = start + tl.arange(0, INNER)[None, :]
        x = tl.load(prior + image * PRIOR + inner, inner < PRIOR, 0).to(tl.float32)
        w = tl.load(weight_at + inner, exists[:, None] & (inner < PRIOR), 0).to(tl.float32)
        total += w * x
    part = tl.arange(0, TILES)[:, None]
    for start in range(0, CHANNELS, INNER):
        inner = start + tl.arange(0, INNER)[None, :]
        x = tl.zeros([TILES, INNER], tl.float32)
        for tile in range(0, tiles, TILES):
            sums_at = sums + (image * tiles + tile + part) * CHANNELS + inner
            x += tl.load(sums_at, (tile + part < tiles) & (inner < CHANNELS), 0)
        pooled = tl.sum(x, 0, keep_dims=True) / pixels
        w = tl.load(weight_at + PRIOR + inner, exists[:, None] & (inner < CHANNELS), 0)
        total += w.to(tl.float32) * pooled
    vector = tl.sum(total, 1) + tl.load(bias + row, exists, 0).to(tl.float32)
    y = normalized(vector[None, :], scale, shift, mean, variance, row[None, :], exists[None, :],
                   EPS, HIDDEN)  # fmt: skip
    tl.store(hidden + image * HIDDEN + row[None, :], y, exists[None, :])


def hidden_rows(
    rows: Tensor, prior: Tensor, weight: Tensor, bias: Tensor, norm: Norm
) -> tuple[Tensor, Tensor]:
    """ReLU(norm(1×1 convolution of a map with the prior at every pixel)), and sums of the map.

    Args:
        rows (Tensor): Map, (B, height, width, C), in float16, bfloat16 or float32.
        prior (Tensor): Prior of each image, (B, N), in the type of the parameters.
        weight (Tensor): Weight of the convolution, (H, N + C, 1, 1).
        bias (Tensor): Bias of the convolution, (H,).
        norm (Norm): Norm of H channels.

    Returns:
        tuple[Tensor, Tensor]: The map, (B, height, width, H), of the type of `rows`, and sums over
        the pixels of each tile, (B, tiles, C), in float32.
    """
    rows = aligned(rows)
    batch, height, width, channels = rows.shape
    weight, length = weight.flatten(1), prior.shape[1]
    shares = torch.addmm(bias, prior, weight[:, :length].t())
    tiles, launch = _rows_launch(
        rows.device, rows.shape, weight.shape, norm.kind,
        rows.dtype == torch.float32 and torch.backends.cudnn.allow_tf32,
        (rows.dtype, weight.dtype),
    )  # fmt: skip
    hidden = rows.new_empty(batch, height, width, len(weight))
    sums = torch.empty(batch, tiles, channels, dtype=torch.float32, device=rows.device)
    if rows.numel():
        launch_on_device(launch, hidden, sums, rows, weight[:, length:], shares, *norm[:4])
    return hidden, sums


def hidden_vectors(
    prior: Tensor, sums: Tensor, pixels: int, weight: Tensor, bias: Tensor, norm: Norm
) -> Tensor:
    """ReLU(norm(linear layer of the prior and the pooled map)), in float32.

    Args:
        prior (Tensor): Prior of each image, (B, N).
        sums (Tensor): Sums of a map, (B, tiles, C), as `hidden_rows` returns them.
        pixels (int): Number of pixels of the map.
        weight (Tensor): Weight of the layer, (H, N + C).
        bias (Tensor): Bias of the layer, (H,).
        norm (Norm): Norm of H channels.

    Returns:
        Tensor: Vector of each image, (B, H), in float32.
    """
    launch = _vectors_launch(
        sums.device, prior.shape, sums.shape, len(weight), pixels, norm.kind,
        (prior.dtype, weight.dtype),
    )  # fmt: skip
    hidden = torch.empty(len(prior), len(weight), dtype=torch.float32, device=sums.device)
    if hidden.numel():
        launch_on_device(launch, hidden, aligned(prior), sums, weight.contiguous(), bias, *norm[:4])
    return hidden


@lru_cache(maxsize=4096)
def _rows_launch(device, shape, weight_shape, norm_kind, tf32, types) -> tuple[int, Launch]:
    """Number of tiles of an image, and the launch."""
    batch, height, width, channels = shape
    hidden, length = weight_shape
    block = max(triton.next_power_of_2(hidden), 16)
    tile = PIXELS_OF_FEW if block <= FEW else PIXELS
    while tile > 16 and batch * triton.cdiv(height * width, tile) < PROGRAMS:
        tile //= 2
    tiles = triton.cdiv(height * width, tile)
    values = dict(
        pixels=height * width, tiles=tiles, EPS=norm_kind[0], CHANNELS=channels, HIDDEN=hidden,
        LENGTH=length, PRECISION='tf32' if tf32 else 'ieee', PIXELS=tile, INNER=INNER, BLOCK=block,
    )  # fmt: skip
    return tiles, Launch(hidden_rows_kernel, batch * tiles, values)


@lru_cache(maxsize=4096)
def _vectors_launch(device, prior_shape, sums_shape, hidden, pixels, norm_kind, types) -> Launch:
    batch, prior = prior_shape
    _, tiles, channels = sums_shape
    values = dict(
        pixels=pixels, tiles=tiles, EPS=norm_kind[0], PRIOR=prior, CHANNELS=channels, HIDDEN=hidden,
        INNER=INNER, TILES=TILES, BLOCK=triton.next_power_of_2(hidden),
    )  # fmt: skip
    return Launch(hidden_vectors_kernel, batch, values, warps=8)
