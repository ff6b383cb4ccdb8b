"""Gradients of a step, ReLU(norm(linear layer)) of vectors.

The norm is a layer norm, or a batch norm with the statistics that it has. One kernel goes through
the norm row by row; the other makes the gradients of the linear layer and, as they add up the same
rows, those of the norm's parameters. Sizes: N vectors of length K, results of C channels.
"""

import triton
import triton.language as tl

from .launching import Launch
from .settings import row_tile

# Vectors that a program adds at a time, and the gradients of the weight that it owns: fewer columns
# where there would be few programs.
ROWS, CHANNELS, COLUMNS, FEW_COLUMNS, PROGRAMS = 32, 32, 64, 32, 264
# Parameters may be slices of a larger buffer, so their addresses may have any alignment.
VECTORS = ['bias', 'scale', 'shift', 'mean', 'variance']


@triton.jit
def row_gradients(x, g, scale, shift, mean, variance, channel, exists, channels,
                  EPS: tl.constexpr):  # fmt: skip
    """Gradients of rows x before norm and ReLU, and their parts in those of scale and shift."""
    if mean is not None:
        x -= tl.load(mean + channel, exists, 0).to(tl.float32)
        deviation = tl.rsqrt(tl.load(variance + channel, exists, 1).to(tl.float32) + EPS)
    else:
        x = tl.where(exists, x, 0)
        x = tl.where(exists, x - tl.sum(x, 1, keep_dims=True) / channels, 0)
        deviation = tl.rsqrt(tl.sum(x * x, 1, keep_dims=True) / channels + EPS)
    x *= deviation
    weight = tl.load(scale + channel, exists, 0).to(tl.float32)
    y = x * weight + tl.load(shift + channel, exists, 0).to(tl.float32)
    g = tl.where(y <= 0, 0, g)
    part, grad = g * x, g * weight
    if mean is None:
        along = tl.sum(grad * x, 1, keep_dims=True) / channels
        grad -= tl.sum(grad, 1, keep_dims=True) / channels + x * along
    return grad * deviation, part, g


@triton.jit(do_not_specialize=['count'], do_not_specialize_on_alignment=VECTORS)
def norm_backward_kernel(
    rows,  # [3, N, C] gradients before the norm, and each row's part of those of scale and shift
    grad,  # [N, C]
    vectors,  # [N, C]
    bias,  # [C], or None if the vectors have it
    scale, shift, mean, variance,  # [C]; mean and variance are None for a layer norm
    count, channels,
    EPS: tl.constexpr, BLOCK: tl.constexpr, ROWS: tl.constexpr,
):  # fmt: skip
    """A program owns some vectors."""
    channel = tl.arange(0, BLOCK)[None, :]
    exists = channel < channels
    row = (tl.program_id(0) * ROWS + tl.arange(0, ROWS))[:, None]
    at, valid = row.to(tl.int64) * channels + channel, (row < count) & exists
    x = tl.load(vectors + at, valid, 0).to(tl.float32)
    if bias is not None:
        x += tl.load(bias + channel, exists, 0).to(tl.float32)
    g = tl.load(grad + at, valid, 0).to(tl.float32)
    g, of_scale, of_shift = row_gradients(x, g, scale, shift, mean, variance, channel, exists,
                                          channels, EPS)  # fmt: skip
    step = count.to(tl.int64) * channels
    tl.store(rows + at, g, valid)
    tl.store(rows + step + at, of_scale, valid)
    tl.store(rows + 2 * step + at, of_shift, valid)


@triton.jit
def step_sums(sums, rows, channel, block, count, channels, SUMS: tl.constexpr, ROWS: tl.constexpr,
              BLOCK: tl.constexpr):  # fmt: skip
    """Store sums over the vectors of each kind of rows, by the first block alone."""
    if block == 0:
        for kind in range(SUMS):
            part = tl.zeros([ROWS, BLOCK], tl.float32)
            for start in range(0, count, ROWS):
                row = kind * count.to(tl.int64) + start + tl.arange(0, ROWS)
                valid = (start + tl.arange(0, ROWS) < count)[:, None]
                g_at = rows + row[:, None] * channels + channel[None, :]
                part += tl.load(g_at, valid & (channel < channels)[None, :], 0)
            tl.store(sums + kind * channels + channel, tl.sum(part, 0), channel < channels)


@triton.jit
def step_inputs(grad_inputs, rows, weight, added, tile, column, count, factor, distance,
                added_distance, channels, length, ROWS: tl.constexpr, BLOCK: tl.constexpr,
                COLUMNS: tl.constexpr):  # fmt: skip
    """Store some gradients of a tile of vectors, as `step_gradients_kernel` describes them."""
    row = tile * ROWS + tl.arange(0, ROWS)
    total = tl.zeros([ROWS, COLUMNS], tl.float32)
    for start in range(0, channels, BLOCK):
        channel = start + tl.arange(0, BLOCK)
        g_at = rows + row.to(tl.int64)[:, None] * channels + channel[None, :]
        g = tl.load(g_at, (row < count)[:, None] & (channel < channels)[None, :], 0)
        w_at = weight + channel[:, None] * distance + column
        w = tl.load(w_at, (channel < channels)[:, None] & (column < length), 0)
        total = tl.dot(g, w, total, input_precision='ieee')
    total *= factor
    row, exists = row.to(tl.int64)[:, None], (row < count)[:, None] & (column < length)
    if added is not None:
        total += tl.load(added + row * added_distance + column, exists, 0)
    to = grad_inputs + row * length + column
    tl.store(to, total.to(grad_inputs.dtype.element_ty), exists)


@triton.jit(do_not_specialize=['count', 'blocks', 'weight_programs', 'factor', 'added_distance'])
def step_gradients_kernel(
    grad_weight,  # [C, K], `distance` apart
    sums,  # [SUMS, C], of the rows, or None
    grad_inputs,  # [N, K], times `factor`, or None
    rows,  # [SUMS or 1, N, C], of which the first are the gradients of the linear layer's results
    inputs,  # [N, K]
    weight,  # [C, K], `distance` apart; None without `grad_inputs`
    added,  # [N, K], `added_distance` apart, what is added to `grad_inputs`, or None
    count, blocks, weight_programs, factor, distance, added_distance, channels, length,
    SUMS: tl.constexpr,
    ROWS: tl.constexpr, BLOCK: tl.constexpr, COLUMNS: tl.constexpr,
):  # fmt: skip
    """A program owns some gradients of the weight, or of the inputs.

    The first program of each row of tiles of the weight makes the sums of that row as well.
    """
    program = tl.program_id(0)
    # The numbers of programs of both kinds are multiples of the number of blocks.
    tile, block = program // blocks, program % blocks
    column = (block * COLUMNS + tl.arange(0, COLUMNS))[None, :]
    if program >= weight_programs:
        if grad_inputs is not None:
            tile -= weight_programs // blocks
            step_inputs(grad_inputs, rows, weight, added, tile, column, count, factor, distance,
                        added_distance, channels, length, ROWS, BLOCK, COLUMNS)  # fmt: skip
    else:
        channel = tile * BLOCK + tl.arange(0, BLOCK)
        total = tl.zeros([BLOCK, COLUMNS], tl.float32)
        for start in range(0, count, ROWS):
            row = start + tl.arange(0, ROWS)
            g_at = rows + row.to(tl.int64)[:, None] * channels + channel[None, :]
            g = tl.load(g_at, (row < count)[:, None] & (channel < channels)[None, :], 0)
            x_at = inputs + row.to(tl.int64)[:, None] * length + column
            x = tl.load(x_at, (row < count)[:, None] & (column < length), 0)
            total = tl.dot(tl.trans(g), x, total, input_precision='ieee')
        at = grad_weight + channel[:, None] * distance + column
        tl.store(at, total, (channel < channels)[:, None] & (column < length))
        if sums is not None:
            step_sums(sums, rows, channel, block, count, channels, SUMS, ROWS, BLOCK)


def norm_backward_launch(count: int, channels: int, eps: float) -> Launch:
    """Launch for N vectors of C channels, and the epsilon of the norm."""
    block, rows = row_tile(channels)
    values = dict(count=count, channels=channels, EPS=eps, BLOCK=block, ROWS=rows)
    return Launch(norm_backward_kernel, triton.cdiv(count, rows), values)


def step_gradients_launch(
    sums: int,
    count: int,
    channels: int,
    length: int,
    of_inputs: bool = True,
    factor: float = 1.0,
    distance: int | None = None,
    added_distance: int = 0,
) -> Launch:
    """Launch of `step_gradients_kernel`.

    Args:
        sums (int): Number of sums of rows; 0 for none.
        count, channels, length (int): N vectors of length K, and C channels.
        of_inputs (bool): Whether it makes the gradient of the inputs. Defaults to True.
        factor (float): What the gradient of the inputs is multiplied by. Defaults to 1.
        distance (int, optional): Distance of the rows of the weight in memory, and of those of its
            gradient. Defaults to None, K.
        added_distance (int): Distance of the rows of `added` in memory. Defaults to 0.
    """
    tiles, columns = triton.cdiv(channels, CHANNELS), COLUMNS
    if tiles * triton.cdiv(length, columns) < PROGRAMS:
        columns = FEW_COLUMNS
    blocks = triton.cdiv(length, columns)
    values = dict(
        count=count, blocks=blocks, weight_programs=tiles * blocks, factor=factor,
        distance=distance or length, added_distance=added_distance, SUMS=sums, channels=channels,
        length=length, ROWS=ROWS, BLOCK=CHANNELS, COLUMNS=columns,
    )  # fmt: skip
    programs = tiles * blocks
    if of_inputs:
        programs += triton.cdiv(count, ROWS) * blocks
    return Launch(step_gradients_kernel, programs, values)
