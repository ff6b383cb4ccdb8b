"""The forward pass in Triton kernels."""

from functools import lru_cache

import torch
import triton
from torch import Tensor

from .dense import columns_kernel
from .depthwise import depthwise_kernel
from .launching import Launch, current_stream
from .prepare import prepare_kernel
from .problem import Problem, channels_last
from .settings import (
    KERNEL_CHANNELS,
    MATRIX_VALUES,
    ONES,
    REMEMBERED,
    SAMPLE_PIXELS,
    Settings,
    Tile,
)


class Preparation:
    """Launch of `prepare_kernel`: kernels channels last, [B or 1, K, C], and what goes with them.

    That is the matrix of a dense convolution, or the samples of a depthwise one.

    Args:
        problem (Problem): Shapes, types and options of the convolution.
        samples (bool): Whether to make the table of samples as well.
    """

    def __init__(self, problem: Problem, samples: bool):
        taps, pixels = problem.taps, problem.out_pixels
        images = 1 if problem.weight_offset is None else problem.batch
        self.kernels = (images, taps, problem.channels), problem.type
        self.depthwise = problem.depthwise
        index = weights = matrix = None
        sample_programs = matrix_programs = 0
        blocks = triton.cdiv(problem.channels, KERNEL_CHANNELS)
        chunks = triton.cdiv(pixels, SAMPLE_PIXELS)
        tap_groups, group_taps = problem.split(taps, problem.batch * chunks)
        if samples:
            sample_programs = problem.batch * chunks * tap_groups
            table = problem.batch, taps, pixels
            index, weights = (table, torch.int32), weight_table(problem, *table)
        if not problem.depthwise:
            matrix_programs = problem.out_channels
            matrix = (matrix_programs, taps * problem.channels + problem.ones), problem.type
        self.tables = index, weights, matrix
        values = dict(
            problem.values(),
            chunks=chunks,
            tap_groups=tap_groups,
            group_taps=group_taps,
            blocks=blocks,
            sample_programs=sample_programs,
            kernel_programs=images * blocks,
            PIXELS=SAMPLE_PIXELS,
            CHANNELS=KERNEL_CHANNELS,
            BLOCK=MATRIX_VALUES,
        )
        programs = sample_programs + images * blocks + matrix_programs
        self.launch = Launch(prepare_kernel, programs, values)

    def __call__(
        self, stream: int, x, weight, sampling_offset, weight_offset, mask
    ) -> tuple[Tensor, ...]:
        """Make the kernels, and either the matrix or index and weights of the samples, if any."""
        (shape, dtype), device = self.kernels, x.device
        kernels = torch.empty(shape, dtype=dtype, device=device)
        index, weights, matrix = tables = [
            None if table is None else torch.empty(table[0], dtype=table[1], device=device)
            for table in self.tables
        ]
        static, dense = (weight.contiguous(), None) if self.depthwise else (None, weight)
        weight_offset = None if weight_offset is None else weight_offset.contiguous()
        self.launch(
            stream, index, weights, kernels, matrix, sampling_offset, mask, static, weight_offset,
            dense,
        )  # fmt: skip
        return kernels, *[table for table in tables if table is not None]


def weight_table(problem: Problem, *shape: int) -> tuple[tuple[int, ...], torch.dtype]:
    """Shape and type of the table of corner weights, as the kernels pack them."""
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

    def __call__(self, x, weight, bias, sampling_offset, weight_offset, mask) -> Tensor:
        """Output, (B, C, H_out, W_out), channels last in memory."""
        stream = current_stream(x.device)
        kernels, index, weights = self.prepare(
            stream, x, weight, sampling_offset, weight_offset, mask
        )
        out = torch.empty_strided(self.shape, self.strides, dtype=x.dtype, device=x.device)
        self.launch(stream, out, x, kernels, index, weights, bias)
        return out


class DenseForward:
    """A dense convolution of one problem: columns of samples, then a matrix product."""

    def __init__(self, problem: Problem, tile: Tile):
        batch, pixels, taps = problem.batch, problem.out_pixels, problem.taps
        self.out_size = problem.out_size
        self.columns = batch * pixels, taps * problem.channels + problem.ones
        self.prepare = None
        if problem.weight_offset is not None:
            self.prepare = Preparation(problem, samples=False)
        tiles = triton.cdiv(pixels, tile.pixels)
        tap_groups, group_taps = problem.split(taps, batch * tiles, most=ONES // 2)
        values = dict(
            problem.values(),
            **problem.tiled(tile),
            blocks=triton.cdiv(problem.channels, tile.channels),
            chunks=tiles,
            tap_groups=tap_groups,
            group_taps=group_taps,
        )
        programs = batch * tap_groups * tiles
        self.launch = Launch(columns_kernel, programs, values, tile.warps, tile.registers)

    def __call__(self, x, weight, bias, sampling_offset, weight_offset, mask) -> Tensor:
        """Output, (B, C_out, H_out, W_out), channels last in memory."""
        stream = current_stream(x.device)
        kernels, matrix = dense_tables(self.prepare, stream, x, weight, weight_offset)
        columns = torch.empty(self.columns, dtype=x.dtype, device=x.device)
        self.launch(stream, columns, x, kernels, sampling_offset, mask)
        out = torch.mm(columns, matrix.t())  # [B·P, C_out]
        if bias is not None:
            out += bias
        return out.view(len(x), *self.out_size, -1).permute(0, 3, 1, 2)


def dense_tables(
    prepare: Preparation | None,
    stream: int,
    x: Tensor,
    weight: Tensor,
    weight_offset: Tensor | None,
) -> tuple[Tensor | None, Tensor]:
    """Δw channels last, [B, K, C_in], if there is any, and w as a matrix.

    The matrix is [C_out, K·C_in], with `Problem.ones` more columns.
    """
    if prepare is None:
        return None, weight.permute(0, 2, 3, 1).flatten(1).to(x.dtype)
    kernels, matrix = prepare(stream, x, weight, None, weight_offset, None)
    return kernels, matrix


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
) -> Tensor:
    """The contextual convolution, (B, C_out, H_out, W_out), channels last in memory."""
    if not (problem.batch and problem.channels):
        height, width = problem.out_size
        empty = x.new_empty(problem.batch, height, width, problem.out_channels)
        return empty.permute(0, 3, 1, 2)
    x = channels_last(x)
    return forward_of(problem, settings)(x, weight, bias, sampling_offset, weight_offset, mask)
