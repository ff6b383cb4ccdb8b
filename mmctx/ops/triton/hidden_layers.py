"""The hidden layers of both predictors of a contextual convolution.

One kernel makes the hidden map of the predictor of Δp, the other the hidden vectors of the
predictor of Δw. Sizes: B images of P pixels and C channels, priors of length N, H hidden channels.

Step by step they are a dozen kernels, most of which take the host longer to launch than the GPU to
run. A batch norm that trains needs its statistics first, so it follows in kernels of its own.
"""

from typing import NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor

from .device_launch import aligned
from .fixed_norm import normalized
from .launching import Launch
from .layer_problem import NormKind
from .settings import STAGES, precision

# Bytes of a map, and values of vectors, that a program loads at a time, as many as its registers
# hold: a single image gives too few programs to hide how long each load takes.
ROW_BYTES, VECTOR_VALUES, PRIOR_VALUES = 32768, 8192, 4096
# Least and largest number of channels that it multiplies at a time, and number of tiles of sums.
INNER, MOST_INNER, TILES = 32, 256, 16
# Pixels of a program, and the number of programs that is enough for a large GPU: each reads the
# whole weight, so many small ones would read more of the weight than of the map.
PIXELS, PROGRAMS = 128, 128
# Values of the hidden map that the registers of eight warps hold.
MOST_VALUES = 16384
# Hidden channels, padded, up to which four warps hold a tile of half precision; and up to which
# shared memory holds the weights of several steps.
FEW, PIPELINED = 32, 128
# Numbers of a tap that a program lays out at a time.
TAP_VALUES = 1024
# Least number of hidden features of a program, and the number of programs that is enough for them.
FEATURES, VECTOR_PROGRAMS = 16, 512
# Parameters may be slices of a larger buffer, so their addresses may have any alignment. A weight
# of such an address is copied: read 4 bytes at a time, it takes most of a kernel's time.
VECTORS = ['bias', 'scale', 'shift', 'mean', 'variance', 'prior']


@triton.jit
def store_tap(taps, turned, last_weight, tap, weight_output, weight_input, weight_row,
              weight_column, INPUTS: tl.constexpr, OUTPUTS: tl.constexpr,
              KERNEL_WIDTH: tl.constexpr, VALUES: tl.constexpr):  # fmt: skip
    """Store a tap of a convolution as [inputs, outputs], and turned if `turned` is not None."""
    last_weight += tap // KERNEL_WIDTH * weight_row + tap % KERNEL_WIDTH * weight_column
    for start in range(0, INPUTS * OUTPUTS, VALUES):
        at = start + tl.arange(0, VALUES)
        exists = at < INPUTS * OUTPUTS
        given, output = at // OUTPUTS, at % OUTPUTS
        value = tl.load(last_weight + output * weight_output + given * weight_input, exists, 0)
        to = tap * INPUTS * OUTPUTS + at
        tl.store(taps + to, value.to(taps.dtype.element_ty), exists)
        if turned is not None:
            to = (tap * OUTPUTS + output) * INPUTS + given
            tl.store(turned + to, value.to(turned.dtype.element_ty), exists)


@triton.jit
def prior_share(prior, bias, weight, image, PRIOR: tl.constexpr, CHANNELS: tl.constexpr,
                HIDDEN: tl.constexpr, INNER: tl.constexpr, BLOCK: tl.constexpr):  # fmt: skip
    """The prior's part of a layer's output, with the bias, [BLOCK] in float32."""
    row = tl.arange(0, BLOCK)
    exists = row < HIDDEN
    total = tl.zeros([BLOCK, INNER], tl.float32)
    # Unrolled, so that loads of several steps are under way at once.
    for start in tl.range(0, PRIOR, INNER, loop_unroll_factor=4):
        inner = start + tl.arange(0, INNER)[None, :]
        x = tl.load(prior + image * PRIOR + inner, inner < PRIOR, 0).to(tl.float32)
        weight_at = weight + row[:, None] * (PRIOR + CHANNELS) + inner
        w = tl.load(weight_at, exists[:, None] & (inner < PRIOR), 0).to(tl.float32)
        total += w * x
    return tl.sum(total, 1) + tl.load(bias + row, exists, 0).to(tl.float32)


@triton.jit(
    do_not_specialize=[
        'pixels', 'tiles', 'row_programs', 'weight_output', 'weight_input', 'weight_row',
        'weight_column',
    ],
    do_not_specialize_on_alignment=[*VECTORS, 'last_weight'],
)  # fmt: skip
def hidden_rows_kernel(
    hidden,  # [B, P, H], or None if a norm follows
    reduced,  # [B, P, H], without the shares and the norm, or None
    shares,  # [B, H], of the prior, with the bias, or None
    parts,  # [B, tiles, 2, H], mean and squared deviations in a tile without the norm, or None
    sums,  # [B, tiles, C], of the rows of a tile, in float32, or None
    taps,  # [K, inputs, outputs], the weight of the last layer
    turned,  # [K, outputs, inputs], or None
    rows,  # [B, P, C]
    prior,  # [B, N]
    weight,  # [H, N + C]
    bias,  # [H]
    last_weight,  # [outputs, inputs, kh, kw] of any strides
    scale, shift, mean, variance,  # [H]; mean and variance are None for a layer norm
    pixels, tiles, row_programs, weight_output, weight_input, weight_row, weight_column,
    EPS: tl.constexpr, PRIOR: tl.constexpr, CHANNELS: tl.constexpr, HIDDEN: tl.constexpr,
    INPUTS: tl.constexpr, OUTPUTS: tl.constexpr, KERNEL_WIDTH: tl.constexpr,
    PRECISION: tl.constexpr, PIXELS: tl.constexpr, INNER: tl.constexpr, PRIOR_INNER: tl.constexpr,
    STAGES: tl.constexpr, BLOCK: tl.constexpr, VALUES: tl.constexpr,
):  # fmt: skip
    """A program owns a tile of an image's pixels, or a tap of the last layer."""
    program = tl.program_id(0)
    if program >= row_programs:
        store_tap(taps, turned, last_weight, program - row_programs, weight_output, weight_input,
                  weight_row, weight_column, INPUTS, OUTPUTS, KERNEL_WIDTH, VALUES)  # fmt: skip
    else:
        image, tile = (program // tiles).to(tl.int64), program % tiles
        # The prior is the same at every pixel, so its share of the 1×1 convolution is too.
        share = prior_share(prior, bias, weight, image, PRIOR, CHANNELS, HIDDEN, PRIOR_INNER, BLOCK)
        channel = tl.arange(0, BLOCK)[None, :]
        exists = channel < HIDDEN
        if shares is not None:
            first = (channel < HIDDEN) & (tile == 0)
            tl.store(shares + image * HIDDEN + channel, share[None, :], first)
        pixel = (tile * PIXELS + tl.arange(0, PIXELS))[:, None]
        valid = pixel < pixels
        row_at = rows + (image * pixels + pixel) * CHANNELS
        weight_at = weight + tl.arange(0, BLOCK)[:, None] * (PRIOR + CHANNELS) + PRIOR
        own = tl.arange(0, BLOCK)[:, None] < HIDDEN
        total = tl.zeros([PIXELS, BLOCK], tl.float32)
        for start in tl.range(0, CHANNELS, INNER, num_stages=STAGES):
            inner = start + tl.arange(0, INNER)
            x = tl.load(row_at + inner[None, :], valid & (inner < CHANNELS)[None, :], 0)
            # Neighbouring threads read neighbouring numbers, so the weight is turned afterwards.
            w = tl.load(weight_at + inner[None, :], own & (inner < CHANNELS)[None, :], 0)
            total = tl.dot(x, tl.trans(w.to(x.dtype)), total, input_precision=PRECISION)
            if sums is not None:
                sums_at = sums + (image * tiles + tile) * CHANNELS + inner
                tl.store(sums_at, tl.sum(x.to(tl.float32), 0), inner < CHANNELS)
        at = (image * pixels + pixel) * HIDDEN + channel
        if reduced is not None:
            tl.store(reduced + at, total.to(reduced.dtype.element_ty), valid & exists)
        total += share[None, :]
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


@triton.jit(do_not_specialize=['pixels', 'tiles', 'blocks'], do_not_specialize_on_alignment=VECTORS)
def hidden_vectors_kernel(
    hidden,  # [B, H], or None if a norm follows
    vectors,  # [B, H], without the bias and the norm, or None
    inputs,  # [B, N + C], prior and pooled map, or None
    prior,  # [B, N]
    sums,  # [B, tiles, C], whose sum over tiles and mean over pixels is the pooled map
    weight,  # [H, N + C]
    bias,  # [H]
    scale, shift, mean, variance,  # [H]; mean and variance are None for a layer norm
    pixels, tiles, blocks,
    EPS: tl.constexpr, PRIOR: tl.constexpr, CHANNELS: tl.constexpr, HIDDEN: tl.constexpr,
    INNER: tl.constexpr, TILES: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """A program owns an image, or a block of its hidden features if they are normed one by one."""
    image, block = (tl.program_id(0) // blocks).to(tl.int64), tl.program_id(0) % blocks
    row = block * BLOCK + tl.arange(0, BLOCK)
    exists = row < HIDDEN
    weight_at = weight + (row * (PRIOR + CHANNELS))[:, None]
    inputs_at = image * (PRIOR + CHANNELS)
    total = tl.zeros([BLOCK, INNER], tl.float32)
    for start in range(0, PRIOR, INNER):
        inner = start + tl.arange(0, INNER)[None, :]
        x = tl.load(prior + image * PRIOR + inner, inner < PRIOR, 0).to(tl.float32)
        if inputs is not None:
            tl.store(inputs + inputs_at + inner, x, (inner < PRIOR) & (block == 0))
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
            to = inputs + inputs_at + PRIOR + inner
            tl.store(to, pooled, (inner < CHANNELS) & (block == 0))
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


class Rows(NamedTuple):
    """What `HiddenRows` computes; None for what it was not asked for.

    Attributes:
        hidden (Tensor): Hidden map, (B, height, width, H).
        reduced (Tensor): The map's part before the norm, without that of the prior.
        shares (Tensor): The prior's part, with the bias, (B, H).
        parts (Tensor): Of the statistics of a batch norm in training, (B, tiles, 2, H).
        sums (Tensor): Of the map over tiles of pixels, (B, tiles, C).
        taps (Tensor): Weight of the last layer, (K, inputs, outputs).
        turned (Tensor): The same, (K, outputs, inputs).
    """

    hidden: Tensor | None
    reduced: Tensor | None
    shares: Tensor | None
    parts: Tensor | None
    sums: Tensor | None
    taps: Tensor
    turned: Tensor | None


class RowsTile(NamedTuple):
    """What a program of `hidden_rows_kernel` works on at once.

    Attributes:
        pixels (int): Number of pixels.
        inner (int): Number of channels that are multiplied at a time.
        warps (int): Number of warps.
        stages (int): Number of steps over channels whose loads are under way at once.
    """

    pixels: int
    inner: int
    warps: int
    stages: int = 1


def rows_tile(batch: int, pixels: int, channels: int, block: int, itemsize: int) -> RowsTile:
    """Tile for maps of one size, and bytes of a number, and a padded number of hidden channels."""
    tile = min(PIXELS, max(triton.next_power_of_2(pixels), 16))
    while tile > 16 and batch * triton.cdiv(pixels, tile) < PROGRAMS:
        tile //= 2
    tile = min(tile, max(MOST_VALUES // block, 16))
    warps = 4 if block <= FEW and itemsize == 2 else 8
    if itemsize == 2 and block <= PIPELINED and tile > 16:
        return RowsTile(tile, INNER, warps, STAGES)
    inner = _loaded(channels, ROW_BYTES // itemsize // max(tile + block, 64))
    return RowsTile(tile, inner, warps)


class HiddenRows:
    """Launch of `hidden_rows_kernel` for maps of one shape.

    Args:
        shape (tuple): Of the map, (B, height, width, C).
        dtype (torch.dtype): Type of the map.
        prior_length (int): Length N of the prior.
        hidden (int): Number H of hidden channels.
        last_shape, last_strides (tuple): Of the last layer's weight, (outputs, inputs, kh, kw).
        taps_type (torch.dtype): Type in which it is laid out.
        eps (float): Epsilon of the norm.
        tf32 (bool): Whether products of float32 use TF32.
        keeps (bool): Whether there will be a backward pass, for which it writes more.
        pools (bool): Whether it sums the map.
    """

    def __init__(
        self, shape, dtype: torch.dtype, prior_length: int, hidden: int, last_shape, last_strides,
        taps_type: torch.dtype, eps: float, tf32: bool, keeps: bool, pools: bool,
    ):  # fmt: skip
        self.keeps, self.pools = keeps, pools
        batch, height, width, channels = shape
        outputs, inputs, kernel_height, kernel_width = last_shape
        block = max(triton.next_power_of_2(hidden), 16)
        tile = rows_tile(batch, height * width, channels, block, dtype.itemsize)
        self.tile, self.tiles = tile.pixels, triton.cdiv(height * width, tile.pixels)
        self.hidden, self.shares = (batch, height, width, hidden), (batch, hidden)
        self.parts = batch, self.tiles, 2, hidden
        self.sums = batch, self.tiles, channels
        taps = kernel_height * kernel_width
        self.taps, self.turned = (taps, inputs, outputs), (taps, outputs, inputs)
        self.taps_type = taps_type
        programs = batch * self.tiles
        strides = ('weight_output', 'weight_input', 'weight_row', 'weight_column')
        values = dict(
            zip(strides, last_strides), pixels=height * width, tiles=self.tiles,
            row_programs=programs, EPS=eps, PRIOR=prior_length, CHANNELS=channels, HIDDEN=hidden,
            INPUTS=inputs, OUTPUTS=outputs, KERNEL_WIDTH=kernel_width,
            PRECISION=precision(tf32), PIXELS=tile.pixels, INNER=tile.inner, STAGES=tile.stages,
            PRIOR_INNER=_loaded(prior_length, PRIOR_VALUES // block), BLOCK=block,
            VALUES=TAP_VALUES,
        )  # fmt: skip
        self.launch = Launch(hidden_rows_kernel, programs + taps, values, tile.warps)

    def __call__(
        self,
        stream: int,
        rows: Tensor,
        prior: Tensor,
        weight: Tensor,
        bias: Tensor,
        last_weight: Tensor,
        norm: tuple | None,
    ) -> Rows:
        """Run the first layer of the predictor, and lay out the weight of the last.

        Args:
            stream (int): Raw stream.
            rows (Tensor): Map, (B, height, width, C) in memory.
            prior (Tensor): Prior of each image, (B, N).
            weight (Tensor): Weight of the 1×1 convolution, (H, N + C) in memory.
            bias (Tensor): Bias of it, (H,).
            last_weight (Tensor): Weight of the last layer.
            norm (tuple, optional): Scale, shift, mean and variance; None for the parts of the
                statistics of a batch norm that trains, instead of a hidden map.
        """
        hidden = reduced = shares = parts = sums = turned = None
        if norm is None:
            parts = rows.new_empty(self.parts, dtype=torch.float32)
        else:
            hidden = rows.new_empty(self.hidden)
        if self.keeps or norm is None:
            reduced = rows.new_empty(self.hidden)
            shares = rows.new_empty(self.shares, dtype=torch.float32)
        if self.keeps and self.taps[1] > 1:
            turned = rows.new_empty(self.turned, dtype=self.taps_type)
        if self.pools:
            sums = rows.new_empty(self.sums, dtype=torch.float32)
        taps = rows.new_empty(self.taps, dtype=self.taps_type)
        found = Rows(hidden, reduced, shares, parts, sums, taps, turned)
        norm = _NO_NORM if norm is None else norm
        self.launch(stream, *found, rows, prior, aligned(weight), bias, last_weight, *norm)
        return found


class HiddenVectors:
    """Launch of `hidden_vectors_kernel` for sums of one shape.

    Args:
        sums (tuple): Shape of the sums, (B, tiles, C).
        pixels (int): Number of pixels of the map.
        prior_length (int): Length N of the prior.
        hidden (int): Number H of hidden features.
        kind (NormKind): Kind of the norm.
        keeps (bool): Whether there will be a backward pass, for which it writes more.
    """

    def __init__(
        self, sums, pixels: int, prior_length: int, hidden: int, kind: NormKind, keeps: bool
    ):
        self.keeps = keeps or kind.name == 'batch'
        batch, tiles, channels = sums
        self.hidden = batch, hidden
        self.inputs = batch, prior_length + channels
        block = triton.next_power_of_2(hidden)
        # Of batch norms each feature is normed by itself.
        while (
            kind.name != 'layer' and block > FEATURES and batch * hidden < VECTOR_PROGRAMS * block
        ):
            block //= 2
        blocks = triton.cdiv(hidden, block)
        inner = _loaded(max(prior_length, channels), VECTOR_VALUES // block)
        values = dict(
            pixels=pixels, tiles=tiles, blocks=blocks, EPS=kind.eps, PRIOR=prior_length,
            CHANNELS=channels, HIDDEN=hidden, INNER=inner, TILES=TILES, BLOCK=block,
        )  # fmt: skip
        self.launch = Launch(hidden_vectors_kernel, batch * blocks, values, warps=8)

    def __call__(
        self,
        stream: int,
        prior: Tensor,
        sums: Tensor,
        weight: Tensor,
        bias: Tensor,
        norm: tuple | None,
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
        """
        hidden = vectors = inputs = None
        if norm is None:
            norm = _NO_NORM
        else:
            hidden = sums.new_empty(self.hidden)
        if self.keeps:
            vectors = sums.new_empty(self.hidden)
            inputs = sums.new_empty(self.inputs)
        self.launch(stream, hidden, vectors, inputs, prior, sums, aligned(weight), bias, *norm)
        return hidden, vectors, inputs


_NO_NORM = (None,) * 4


def _loaded(count: int, most: int) -> int:
    """Number of channels that are loaded at a time, a power of two, at most about `most`."""
    inner = INNER
    while inner < min(count, MOST_INNER) and 2 * inner <= most:
        inner *= 2
    return inner
