"""Gradients of a step, ReLU(norm(linear layer)) of vectors.

The norm is a layer norm, or a batch norm with the statistics that it has. One kernel goes through
the norm row by row; the other makes the gradients of the linear layer and, as they add up the same
rows, those of the norm's parameters. Sizes: N vectors of length K, results of C channels.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from .batch_norm import BatchNormVectors
from .device_launch import aligned
from .launching import Launch
from .settings import ENOUGH_PROGRAMS, PRECISE, row_tile

# Vectors that a program adds at a time, and the gradients of the weight that it owns: fewer columns
# where there would be few programs.
ROWS, CHANNELS, COLUMNS, FEW_COLUMNS = 32, 32, 64, 32
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
def load_block(matrix, row, column, rows, columns, distance):
    """Load some rows and columns of a matrix whose rows are `distance` apart; 0 beyond it."""
    at = matrix + row.to(tl.int64)[:, None] * distance + column[None, :]
    return tl.load(at, (row < rows)[:, None] & (column < columns)[None, :], 0)


@triton.jit
def step_sums(sums, rows, channel, block, count, channels, SUMS: tl.constexpr, ROWS: tl.constexpr,
              BLOCK: tl.constexpr):  # fmt: skip
    """Store sums over the vectors of each kind of rows, by the first block alone."""
    if block == 0:
        for kind in range(SUMS):
            part = tl.zeros([ROWS, BLOCK], tl.float32)
            for start in range(0, count, ROWS):
                row = start + tl.arange(0, ROWS)
                of_kind = rows + kind * count.to(tl.int64) * channels
                part += load_block(of_kind, row, channel, count, channels, channels)
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
        g = load_block(rows, row, channel, count, channels, channels)
        w = load_block(weight, channel, column, channels, length, distance)
        total = tl.dot(g, w, total, input_precision=PRECISE)
    total *= factor
    if added is not None:
        total += load_block(added, row, column, count, length, added_distance)
    to = grad_inputs + row.to(tl.int64)[:, None] * length + column[None, :]
    exists = (row < count)[:, None] & (column < length)[None, :]
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
    column = block * COLUMNS + tl.arange(0, COLUMNS)
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
            g = load_block(rows, row, channel, count, channels, channels)
            x = load_block(inputs, row, column, count, length, length)
            total = tl.dot(tl.trans(g), x, total, input_precision=PRECISE)
        at = grad_weight + channel[:, None] * distance + column[None, :]
        tl.store(at, total, (channel < channels)[:, None] & (column < length)[None, :])
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
    if tiles * triton.cdiv(length, columns) < ENOUGH_PROGRAMS:
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


class StepGradients:
    """Gradients of a step, ReLU(norm(linear layer)), of vectors of one shape.

    Args:
        batch_norm (BatchNormVectors, optional): The norm if it is a batch norm in training; None
            for a layer norm, or a batch norm with the statistics that it has.
        count, channels, length (int): N vectors of length K, and C channels.
        eps (float): Epsilon of the norm.
        factor (float): What the gradient of the inputs is multiplied by. Defaults to 1.
    """

    def __init__(
        self,
        batch_norm: BatchNormVectors | None,
        count: int,
        channels: int,
        length: int,
        eps: float,
        factor: float = 1.0,
    ):
        self.batch_norm, sums = batch_norm, 0
        if batch_norm is None:
            self.norm, sums = norm_backward_launch(count, channels, eps), 3
        self.linear = step_gradients_launch(sums, count, channels, length, factor=factor)

    def __call__(
        self, stream: int, grad: Tensor, grad_inputs: Tensor, vectors: Tensor, inputs: Tensor,
        weight: Tensor, bias: Tensor | None, norm: tuple, statistics: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:  # fmt: skip
        """Gradients of the weight, (C, K), and of bias, scale and shift, (3, C).

        Args:
            stream (int): Raw stream.
            grad (Tensor): Gradient of the results, (N, C).
            grad_inputs (Tensor): Gradient of the inputs, (N, K) in memory, which is written.
            vectors (Tensor): Results of the linear layer without the bias, (N, C).
            inputs (Tensor): Its inputs, (N, K).
            weight (Tensor): Its weight, (C, K).
            bias (Tensor, optional): Its bias, (C,); None if the vectors have it.
            norm (tuple): Scale, shift, mean and variance, each (C,); the last two are None but for
                a batch norm with the statistics that it has.
            statistics (Tensor, optional): Of a batch norm in training, (2, C). Defaults to None.
        """
        sums_of_rows = None
        if self.batch_norm is not None:
            rows, sums = self.batch_norm.gradients(stream, grad, vectors, statistics, *norm[:2])
        else:
            rows = vectors.new_empty(3, *vectors.shape)
            self.norm(stream, rows, grad, vectors, bias, *norm)
            sums = sums_of_rows = vectors.new_empty(3, vectors.shape[1])
        weight = aligned(weight)
        grad_weight = torch.empty_like(weight)
        self.linear(stream, grad_weight, sums_of_rows, grad_inputs, rows, inputs, weight, None)
        return grad_weight, sums
