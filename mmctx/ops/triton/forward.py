"""The forward pass in Triton kernels."""

from dataclasses import replace
from functools import lru_cache

import torch
import triton
from torch import Tensor

from .dense import columns_kernel
from .depthwise import depthwise_kernel
from .launching import Launch, current_stream
from .prepare import prepare_kernel
from .problem import Problem, channels_last
from .products import multiply
from .settings import (
    ENOUGH_PROGRAMS,
    KERNEL_CHANNELS,
    MATRIX_VALUES,
    ONES,
    REMEMBERED,
    SAMPLE_PIXELS,
    Settings,
    Tile,
)

# With too few programs a large GPU waits for loads. Each program then takes fewer pixels, and its
# loop is unrolled, so that the corners of several taps can be loaded before the first is blended.
FEW_PIXELS, UNROLLED_TAPS = 16, 4
# Kernels and matrix of `prepare_kernel`, as far as a convolution has them.
Tables = tuple[Tensor | None, Tensor | None]


class Preparation:
    """Launch of `prepare_kernel`, which lays out what the other kernels read.

    Args:
        problem (Problem): Shapes, types and options of the convolution.
        samples (bool): Whether to make the table of samples as well.
    """

    def __init__(self, problem: Problem, samples: bool):
        batch, channels, taps = problem.batch, problem.channels, problem.taps
        pixels = problem.out_pixels
        blocks = triton.cdiv(channels, KERNEL_CHANNELS)
        chunks = triton.cdiv(pixels, SAMPLE_PIXELS)
        tap_groups, group_taps = problem.split(taps, batch * chunks)
        self.depthwise = problem.depthwise
        # Shape and type of each table.
        index = weights = kernels = matrix = None
        sample_programs = kernel_programs = matrix_programs = 0
        if samples:
            sample_programs = batch * chunks * tap_groups
            count, spare = batch * taps * pixels, pixels + SAMPLE_PIXELS
            index, weights = (count + spare, torch.int32), weight_table(problem, count, spare)
        if problem.depthwise or problem.weight_offset:
            images = 1 if problem.weight_offset is None else batch
            kernel_programs = images * blocks
            kernels = (images, taps, channels), problem.type
        if not problem.depthwise:
            matrix_programs = problem.out_channels
            matrix = (problem.out_channels, taps * channels + problem.ones), problem.type
        self.tables = index, weights, kernels, matrix
        values = dict(
            problem.values(),
            chunks=chunks,
            tap_groups=tap_groups,
            group_taps=group_taps,
            blocks=blocks,
            sample_programs=sample_programs,
            kernel_programs=kernel_programs,
            PIXELS=SAMPLE_PIXELS,
            KERNEL_CHANNELS=KERNEL_CHANNELS,
            BLOCK=MATRIX_VALUES,
        )
        programs = sample_programs + kernel_programs + matrix_programs
        self.launch = Launch(prepare_kernel, programs, values)

    def __call__(
        self, stream: int, x, weight, sampling_offset, weight_offset, mask
    ) -> list[Tensor | None]:
        """Index and weights of the samples, the kernels, and the matrix of a dense convolution."""
        tables = [
            None if table is None else x.new_empty(table[0], dtype=table[1])
            for table in self.tables
        ]
        static, dense = (weight.contiguous(), None) if self.depthwise else (None, weight)
        weight_offset = None if weight_offset is None else weight_offset.contiguous()
        self.launch(stream, *tables, sampling_offset, mask, static, weight_offset, dense)
        return tables


def weight_table(problem: Problem, count: int, spare: int = 0) -> tuple[int, torch.dtype]:
    """Length and type of a table of corner weights, as the kernels pack them, with spare places."""
    if problem.type.itemsize == 2:
        return count + spare, torch.int64
    return 4 * count + spare, problem.type


class DepthwiseForward:
    """A depthwise convolution of one problem."""

    def __init__(self, problem: Problem, tile: Tile):
        height, width = problem.out_size
        batch, channels, pixels = problem.batch, problem.channels, problem.out_pixels
        self.prepare = Preparation(problem, samples=True)
        self.shape = batch, channels, height, width
        self.strides = pixels * channels, 1, width * channels, channels
        blocks, unroll = triton.cdiv(channels, tile.channels), 1
        if batch * blocks * triton.cdiv(pixels, tile.pixels) < ENOUGH_PROGRAMS:
            tile = replace(tile, pixels=min(tile.pixels, FEW_PIXELS), registers=None)
            unroll = UNROLLED_TAPS
        chunks, chunk_tiles = problem.split(triton.cdiv(pixels, tile.pixels), batch * blocks)
        values = dict(
            problem.values(),
            **problem.tiled(tile),
            blocks=blocks,
            chunks=chunks,
            chunk_tiles=chunk_tiles,
            UNROLL=unroll,
        )
        programs = batch * blocks * chunks
        self.launch = Launch(depthwise_kernel, programs, values, tile.warps, tile.registers)

    def __call__(
        self, stream: int, x, weight, bias, sampling_offset, weight_offset, mask
    ) -> tuple[Tensor, Tables]:
        """Output, (B, C, H_out, W_out), channels last in memory, and what backward reads."""
        index, weights, kernels, _ = self.prepare(
            stream, x, weight, sampling_offset, weight_offset, mask
        )
        out = torch.empty_strided(self.shape, self.strides, dtype=x.dtype, device=x.device)
        self.launch(stream, out, x, kernels, index, weights, bias)
        return out, (kernels, None)


class DenseForward:
    """A dense convolution of one problem: columns of samples, then a matrix product."""

    def __init__(self, problem: Problem, tile: Tile):
        batch, pixels, taps = problem.batch, problem.out_pixels, problem.taps
        self.out_size = problem.out_size
        self.columns = batch * pixels, taps * problem.channels + problem.ones
        self.prepare = Preparation(problem, samples=True)
        tiles = triton.cdiv(pixels, tile.pixels)
        tap_groups, group_taps = problem.split(taps, batch * tiles, most=ONES // 2)
        values = dict(
            problem.values(),
            **problem.tiled(tile),
            BLOCKS=triton.cdiv(problem.channels, tile.channels),
            chunks=tiles,
            tap_groups=tap_groups,
            group_taps=group_taps,
        )
        programs = batch * tap_groups * tiles
        self.launch = Launch(columns_kernel, programs, values, tile.warps, tile.registers)

    def __call__(
        self, stream: int, x, weight, bias, sampling_offset, weight_offset, mask
    ) -> tuple[Tensor, Tables]:
        """Output, (B, C_out, H_out, W_out), channels last in memory, and what backward reads."""
        index, weights, kernels, matrix = self.prepare(
            stream, x, weight, sampling_offset, weight_offset, mask
        )
        columns = x.new_empty(self.columns)
        self.launch(stream, columns, x, kernels, index, weights)
        out = multiply(columns, matrix.t())  # [B·P, C_out]
        if bias is not None:
            out += bias
        out = out.view(len(x), *self.out_size, -1).permute(0, 3, 1, 2)
        return out, (kernels, matrix)


@lru_cache(REMEMBERED)
def forward_of(problem: Problem, settings: Settings) -> DepthwiseForward | DenseForward:
    """Forward pass of a problem; made once and cached."""
    if problem.depthwise:
        return DepthwiseForward(problem, settings.tile('depthwise', problem.type, problem.channels))
    return DenseForward(problem, settings.tile('columns', problem.type, problem.channels))


def forward(
    problem: Problem,
    settings: Settings,
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    sampling_offset: Tensor | None,
    weight_offset: Tensor | None,
    mask: Tensor | None,
) -> tuple[Tensor, Tables]:
    """The contextual convolution, (B, C_out, H_out, W_out), channels last in memory; and tables."""
    if not (problem.batch and problem.channels):
        height, width = problem.out_size
        empty = x.new_empty(problem.batch, height, width, problem.out_channels)
        return empty.permute(0, 3, 1, 2), (None, None)
    x = channels_last(x)
    run = forward_of(problem, settings)
    return run(current_stream(x.device), x, weight, bias, sampling_offset, weight_offset, mask)
