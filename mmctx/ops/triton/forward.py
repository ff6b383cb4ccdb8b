"""The forward pass on the device."""

from functools import lru_cache

import torch
import triton
from torch import Tensor

from .dense import columns_kernel
from .depthwise import depthwise_kernel
from .launching import Launch, current_stream
from .prepare import prepare_kernel
from .problem import Problem, channels_last
from .settings import KERNEL_CHANNELS, REMEMBERED, SAMPLE_PIXELS, Settings, Tile


class Preparation:
    """Launch of `prepare_kernel`: kernels channels last, [B or 1, K, C], and the samples.

    Args:
        problem (Problem): The convolution.
        samples (bool): Whether to make the table of samples as well.
        extra (int, optional): Columns of ones to put behind the matrix of a dense kernel. Defaults
            to None, no matrix.
    """

    def __init__(self, problem: Problem, samples: bool, extra: int | None = None):
        taps, pixels = problem.taps, problem.out_pixels
        images = 1 if problem.weight_delta is None else problem.batch
        self.kernels = (images, taps, problem.channels), problem.type
        # Strides of w that the kernel follows: those of rows and columns of a tap are one.
        out, channel, row, column = problem.weight[2]
        self.copies_weight = problem.depthwise or row != problem.weight[0][3] * column
        if self.copies_weight:
            out, channel, column = problem.weight[0][1] * taps, taps, 1
        self.matrix = None
        sample_programs = matrix_programs = 0
        blocks = triton.cdiv(problem.channels, KERNEL_CHANNELS)
        if extra is not None:
            self.matrix = problem.out_channels, taps * problem.channels + extra
            matrix_programs = problem.out_channels * (taps + 1) * blocks
        chunks = triton.cdiv(pixels, SAMPLE_PIXELS)
        tap_groups, group_taps = problem.split(taps, problem.batch * chunks)
        self.table = ()
        if samples:
            sample_programs = problem.batch * chunks * tap_groups
            table = problem.batch, taps, pixels
            self.table = (table, torch.int32), weight_table(problem, *table)
        values = dict(
            problem.values(),
            chunks=chunks,
            tap_groups=tap_groups,
            group_taps=group_taps,
            blocks=blocks,
            sample_programs=sample_programs,
            kernel_programs=images * blocks,
            extra=extra or 0,
            weight_out=out,
            weight_in=channel,
            weight_tap=column,
            PIXELS=SAMPLE_PIXELS,
            CHANNELS=KERNEL_CHANNELS,
        )
        programs = sample_programs + images * blocks + matrix_programs
        self.launch = Launch(prepare_kernel, programs, values)

    def __call__(self, stream: int, x, weight, offset, delta, mask) -> tuple[Tensor, ...]:
        """Kernels, and the matrix or index and weights of the samples where these are made."""
        (shape, dtype), device = self.kernels, x.device
        kernels = torch.empty(shape, dtype=dtype, device=device)
        delta = None if delta is None else delta.contiguous()
        if self.copies_weight:
            weight = weight.contiguous()
        if self.table:
            index, weights = (torch.empty(s, dtype=t, device=device) for s, t in self.table)
            self.launch(stream, index, weights, kernels, None, offset, mask, weight, delta)
            return kernels, index, weights
        matrix = None
        if self.matrix is not None:
            matrix = torch.empty(self.matrix, dtype=dtype, device=device)
        self.launch(stream, None, None, kernels, matrix, None, None, weight, delta)
        return kernels, matrix


def weight_table(problem: Problem, *shape: int) -> tuple[tuple[int, ...], torch.dtype]:
    """Shape and type of the weights of the four corners of samples, as the kernels pack them."""
    if problem.type.itemsize == 2:
        return shape, torch.int64
    return (4, *shape), problem.type


class DepthwiseForward:
    """A depthwise convolution of one problem."""

    def __init__(self, problem: Problem, tile: Tile):
        height, width = problem.out_size
        batch, channels, pixels = problem.batch, problem.channels, problem.out_pixels
        self.prepare = Preparation(problem, samples=True)
        self.shape = batch, channels, height, width
        self.strides = pixels * channels, 1, width * channels, channels
        blocks = triton.cdiv(channels, tile.channels)
        chunks, chunk_tiles = problem.split(triton.cdiv(pixels, tile.pixels), batch * blocks)
        values = dict(
            problem.values(),
            **problem.tiled(tile),
            blocks=blocks,
            chunks=chunks,
            chunk_tiles=chunk_tiles,
        )
        programs = batch * blocks * chunks
        self.launch = Launch(depthwise_kernel, programs, values, tile.warps, tile.registers)

    def __call__(self, x, weight, bias, offset, delta, mask) -> Tensor:
        """Output, (B, C, H_out, W_out), channels last in memory."""
        stream = current_stream(x.device)
        kernels, index, weights = self.prepare(stream, x, weight, offset, delta, mask)
        out = torch.empty_strided(self.shape, self.strides, dtype=x.dtype, device=x.device)
        self.launch(stream, out, x, kernels, index, weights, bias)
        return out


class DenseForward:
    """A dense convolution of one problem: columns of samples, then a matrix product."""

    def __init__(self, problem: Problem, tile: Tile):
        batch, pixels, taps = problem.batch, problem.out_pixels, problem.taps
        self.out_size = problem.out_size
        tiles = triton.cdiv(pixels, tile.pixels)
        tap_groups, group_taps = problem.split(taps, batch * tiles)
        # A column for each tap group's share of Δw, and rows that stay 16 bytes aligned.
        extra = 0 if problem.weight_delta is None else triton.cdiv(tap_groups, 8) * 8
        self.columns = (batch * pixels, taps * problem.channels + extra)
        self.prepare = None
        if problem.weight_delta is not None:
            self.prepare = Preparation(problem, samples=False, extra=extra)
        values = dict(
            problem.values(),
            **problem.tiled(tile),
            blocks=triton.cdiv(problem.channels, tile.channels),
            chunks=tiles,
            tap_groups=tap_groups,
            group_taps=group_taps,
            extra=extra,
        )
        programs = batch * tap_groups * tiles
        self.launch = Launch(columns_kernel, programs, values, tile.warps, tile.registers)

    def __call__(self, x, weight, bias, offset, delta, mask) -> Tensor:
        """Output, (B, C_out, H_out, W_out), channels last in memory."""
        stream = current_stream(x.device)
        if self.prepare is None:
            kernels, matrix = None, dense_matrix(weight, x.dtype)
        else:
            kernels, matrix = self.prepare(stream, x, weight, None, delta, None)
        columns = torch.empty(self.columns, dtype=x.dtype, device=x.device)
        self.launch(stream, columns, x, kernels, offset, mask)
        out = torch.mm(columns, matrix.t())  # [B·P, C_out]
        if bias is not None:
            out += bias
        return out.view(len(x), *self.out_size, -1).permute(0, 3, 1, 2)


def dense_matrix(weight: Tensor, dtype: torch.dtype) -> Tensor:
    """The static kernel as a matrix, [C_out, K·C_in]."""
    return weight.permute(0, 2, 3, 1).flatten(1).to(dtype)


@lru_cache(REMEMBERED)
def forward_of(problem: Problem, settings: Settings) -> DepthwiseForward | DenseForward:
    """What computes a problem; made once."""
    if problem.depthwise:
        return DepthwiseForward(
            problem, settings.tile('depthwise', problem.type.itemsize, problem.channels)
        )
    return DenseForward(problem, settings.tile('columns', problem.type.itemsize, problem.channels))


def forward(
    problem: Problem,
    settings: Settings,
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    offset: Tensor | None,
    weight_delta: Tensor | None,
    mask: Tensor | None,
) -> Tensor:
    """The contextual convolution, (B, C_out, H_out, W_out), channels last in memory."""
    if not (problem.batch and problem.channels):
        height, width = problem.out_size
        empty = x.new_empty(problem.batch, height, width, problem.out_channels)
        return empty.permute(0, 3, 1, 2)
    x = channels_last(x)
    return forward_of(problem, settings)(x, weight, bias, offset, weight_delta, mask)
