"""The hidden layers of both predictors of a contextual convolution.

One kernel makes the hidden map of the predictor of Δp, the other the hidden vectors of the
predictor of Δw. Sizes: B images of P pixels and C channels, priors of length N, H hidden channels.

Step by step they are a dozen kernels, most of which take the host longer to launch than the GPU to
run. A batch norm that trains needs its statistics first, so it follows in kernels of its own.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from .fixed_norm import normalized
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
    hidden,  # [B, P, H], or None if a norm follows
    reduced,  # [B, P, H], without the shares and the norm, or None
    parts,  # [B, tiles, 2, H], mean and squared deviations in a tile without the norm, or None
    sums,  # [B, tiles, C], of the rows of a tile, in float32, or None
    rows,  # [B, P, C]
    weight,  # [H, N + C]
    shares,  # [B, H], of the prior, with the bias
    scale, shift, mean, variance,  # [H]; mean and variance are None for a layer norm
    pixels, tiles,
    EPS: tl.constexpr, PRIOR: tl.constexpr, CHANNELS: tl.constexpr, HIDDEN: tl.constexpr,
    PRECISION: tl.constexpr, PIXELS: tl.constexpr, INNER: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """A program owns a tile of an image's pixels."""
    image, tile = (tl.program_id(0) // tiles).to(tl.int64), tl.program_id(0) % tiles
    channel = tl.arange(0, BLOCK)[None, :]
    exists = channel < HIDDEN
    pixel = (tile * PIXELS + tl.arange(0, PIXELS))[:, None]
    valid = pixel < pixels
    row_at = rows + (image * pixels + pixel) * CHANNELS
    weight_at = weight + tl.arange(0, BLOCK)[:, None] * (PRIOR + CHANNELS) + PRIOR
    own = tl.arange(0, BLOCK)[:, None] < HIDDEN
    total = tl.zeros([PIXELS, BLOCK], tl.float32)
    for start in range(0, CHANNELS, INNER):
        inner = start + tl.arange(0, INNER)
        x = tl.load(row_at + inner[None, :], valid & (inner < CHANNELS)[None, :], 0)
        # Neighbouring threads read neighbouring numbers, so the weight is turned afterwards.
        w = tl.load(weight_at + inner[None, :], own & (inner < CHANNELS)[None, :], 0).to(x.dtype)
        total = tl.dot(x, tl.trans(w), total, input_precision=PRECISION)
        if sums is not None:
            sums_at = sums + (image * tiles + tile) * CHANNELS + inner
            tl.store(sums_at, tl.sum(x.to(tl.float32), 0), inner < CHANNELS)
    at = (image * pixels + pixel) * HIDDEN + channel
    if reduced is not None:
        tl.store(reduced + at, total.to(reduced.dtype.element_ty), valid & exists)
    total += tl.load(shares + image * HIDDEN + channel, exists, 0).to(tl.float32)
    if parts is not None:
        count = tl.minimum(pixels - tile * PIXELS, PIXELS)
        average = tl.sum(tl.where(valid, total, 0), 0, keep_dims=True) / count
        distance = tl.where(valid, total - average, 0)
        part = parts + (image * tiles + tile) * 2 * HIDDEN + channel
        tl.store(part, average, exists)
        tl.store(part + HIDDEN, tl.sum(distance * distance, 0, keep_dims=True), exists)
    if hidden is not None:
        y = normalized(total, scale, shift, mean, variance, channel, exists, EPS, HIDDEN)
        tl.store(hidden + at, y.to(hidden.dtype.element_ty), valid & exists)


@triton.jit(do_not_specialize=['pixels', 'tiles'], do_not_specialize_on_alignment=VECTORS)
def hidden_vectors_kernel(
    hidden,  # [B, H], or None if a norm follows
    vectors,  # [B, H], without the bias and the norm, or None
    inputs,  # [B, N + C], prior and pooled map, or None
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
    inputs_at = image * (PRIOR + CHANNELS)
    total = tl.zeros([BLOCK, INNER], tl.float32)
    for start in range(0, PRIOR, INNER):
        inner = start + tl.arange(0, INNER)[None, :]
        x = tl.load(prior + image * PRIOR + inner, inner < PRIOR, 0).to(tl.float32)
        if inputs is not None:
            tl.store(inputs + inputs_at + inner, x, inner < PRIOR)
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
        if inputs is not None:
            tl.store(inputs + inputs_at + PRIOR + inner, pooled, inner < CHANNELS)
        w = tl.load(weight_at + PRIOR + inner, exists[:, None] & (inner < CHANNELS), 0)
        total += w.to(tl.float32) * pooled
    vector = tl.sum(total, 1)
    to = image * HIDDEN + row
    if vectors is not None:
        tl.store(vectors + to, vector, exists)
    if hidden is not None:
        vector += tl.load(bias + row, exists, 0).to(tl.float32)
        y = normalized(vector[None, :], scale, shift, mean, variance, row[None, :],
                       exists[None, :], EPS, HIDDEN)  # fmt: skip
        tl.store(hidden + to[None, :], y, exists[None, :])


class HiddenRows:
    """Launch of `hidden_rows_kernel` for maps of one shape.

    Args:
        shape (tuple): Of the map, (B, height, width, C).
        prior_length (int): Length N of the prior.
        hidden (int): Number H of hidden channels.
        eps (float): Epsilon of the norm.
        tf32 (bool): Whether products of float32 use TF32.
    """

    def __init__(self, shape, prior_length: int, hidden: int, eps: float, tf32: bool):
        batch, height, width, channels = shape
        block = max(triton.next_power_of_2(hidden), 16)
        tile = PIXELS_OF_FEW if block <= FEW else PIXELS
        while tile > 16 and batch * triton.cdiv(height * width, tile) < PROGRAMS:
            tile //= 2
        self.tile, self.tiles = tile, triton.cdiv(height * width, tile)
        self.hidden = batch, height, width, hidden
        self.parts = batch, self.tiles, 2, hidden
        self.sums = batch, self.tiles, channels
        values = dict(
            pixels=height * width, tiles=self.tiles, EPS=eps, PRIOR=prior_length,
            CHANNELS=channels, HIDDEN=hidden, PRECISION='tf32' if tf32 else 'ieee', PIXELS=tile,
            INNER=INNER, BLOCK=block,
        )  # fmt: skip
        self.launch = Launch(hidden_rows_kernel, batch * self.tiles, values)

    def __call__(
        self,
        stream: int,
        rows: Tensor,
        weight: Tensor,
        shares: Tensor,
        norm: tuple | None,
        keeps: bool,
        pools: bool,
    ) -> tuple[Tensor | None, Tensor | None, Tensor | None, Tensor | None]:
        """Hidden map, the same before shares and norm, parts of statistics, and sums.

        Args:
            stream (int): Raw stream.
            rows (Tensor): Map, (B, height, width, C) in memory.
            weight (Tensor): Weight of the 1×1 convolution, (H, N + C) in memory.
            shares (Tensor): The prior's part of its output, with the bias, (B, H).
            norm (tuple, optional): Scale, shift, mean and variance; None for the parts of the
                statistics of a batch norm that trains, instead of a hidden map.
            keeps (bool): Whether to return the map before shares and norm.
            pools (bool): Whether to return sums.
        """
        device, dtype = rows.device, rows.dtype
        hidden = reduced = parts = sums = None
        if norm is None:
            norm = _NO_NORM
            parts = torch.empty(self.parts, dtype=torch.float32, device=device)
        else:
            hidden = torch.empty(self.hidden, dtype=dtype, device=device)
        if keeps:
            reduced = torch.empty(self.hidden, dtype=dtype, device=device)
        if pools:
            sums = torch.empty(self.sums, dtype=torch.float32, device=device)
        self.launch(stream, hidden, reduced, parts, sums, rows, weight, shares, *norm)
        return hidden, reduced, parts, sums


class HiddenVectors:
    """Launch of `hidden_vectors_kernel` for sums of one shape.

    Args:
        sums (tuple): Shape of the sums, (B, tiles, C).
        pixels (int): Number of pixels of the map.
        prior_length (int): Length N of the prior.
        hidden (int): Number H of hidden features.
        eps (float): Epsilon of the norm.
    """

    def __init__(self, sums, pixels: int, prior_length: int, hidden: int, eps: float):
        batch, tiles, channels = sums
        self.hidden = batch, hidden
        self.inputs = batch, prior_length + channels
        values = dict(
            pixels=pixels, tiles=tiles, EPS=eps, PRIOR=prior_length, CHANNELS=channels,
            HIDDEN=hidden, INNER=INNER, TILES=TILES, BLOCK=triton.next_power_of_2(hidden),
        )  # fmt: skip
        self.launch = Launch(hidden_vectors_kernel, batch, values, warps=8)

    def __call__(
        self,
        stream: int,
        prior: Tensor,
        sums: Tensor,
        weight: Tensor,
        bias: Tensor,
        norm: tuple | None,
        keeps: bool,
    ) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
        """Hidden vectors, the same before bias and norm, and their inputs, all in float32.

        Args:
            stream (int): Raw stream.
            prior (Tensor): Prior of each image, (B, N).
            sums (Tensor): Sums of a map, (B, tiles, C).
            weight (Tensor): Weight of the layer, (H, N + C).
            bias (Tensor): Bias of the layer, (H,).
            norm (tuple, optional): Scale, shift, mean and variance; None for a norm that follows,
                instead of hidden vectors.
            keeps (bool): Whether to return vectors before bias and norm, and inputs.
        """
        options = dict(dtype=torch.float32, device=sums.device)
        hidden = vectors = inputs = None
        if norm is None:
            norm = _NO_NORM
        else:
            hidden = torch.empty(self.hidden, **options)
        if keeps:
            vectors = torch.empty(self.hidden, **options)
            inputs = torch.empty(self.inputs, **options)
        self.launch(stream, hidden, vectors, inputs, prior, sums, weight, bias, *norm)
        return hidden, vectors, inputs


_NO_NORM = (None,) * 4
