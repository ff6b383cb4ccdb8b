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
from .settings import KERNEL_CHANNELS, REMEMBERED, SAMPLE_PIXELS, Settings, Tile


class Preparation:
    """Launch of `prepare_kernel`: kernels channels last, [B or 1, K, C], and the samples.

    Args:
        problem (Problem): Shapes, types and options of the convolution.
        samples (bool): Whether to make the table of samples as well.
    """

    def __init__(self, problem: Problem, samples: bool):
        taps, pixels = problem.taps, problem.out_pixels
        images = 1 if problem.weight_offset is None else problem.batch
        self.kernels = (images, taps, problem.channels), problem.type
        self.static = problem.depthwise
        sample_programs = 0
        blocks = triton.cdiv(problem.channels, KERNEL_CHANNELS)
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
            PIXELS=SAMPLE_PIXELS,
            CHANNELS=KERNEL_CHANNELS,
        )
        self.launch = Launch(prepare_kernel, sample_programs + images * blocks, values)

    def __call__(
        self, stream: int, x, weight, sampling_offset, weight_offset, mask
    ) -> tuple[Tensor, ...]:
        """Make the kernels, and index and weights of the samples if they are asked for."""
        (shape, dtype), device = self.kernels, x.device
        kernels = torch.empty(shape, dtype=dtype, device=device)
        weight = weight.contiguous() if self.static else None
        weight_offset = None if weight_offset is None else weight_offset.contiguous()
        if not self.table:
            self.launch(stream, None, None, kernels, None, None, weight, weight_offset)
            return (kernels,)
        index, weights = (torch.empty(s, dtype=t, device=device) for s, t in self.table)
        self.launch(stream, index, weights, kernels, sampling_offset, mask, weight, weight_offset)
        return kernels, index, weights


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
        self.columns = (batch * pixels, taps * problem.channels)
        self.prepare = None
        if problem.weight_offset is not None:
            self.prepare = Preparation(problem, samples=False)
        self.tap_groups, group_taps = problem.split(taps, batch * triton.cdiv(pixels, tile.pixels))
        self.shared = (self.tap_groups, batch * pixels), problem.compute_type
        tiles = triton.cdiv(pixels, tile.pixels)
        values = dict(
            problem.values(),
            **problem.tiled(tile),
            blocks=triton.cdiv(problem.channels, tile.channels),
            chunks=tiles,
            tap_groups=self.tap_groups,
            group_taps=group_taps,
        )
        programs = batch * self.tap_groups * tiles
        self.launch = Launch(columns_kernel, programs, values, tile.warps, tile.registers)

    def __call__(self, x, weight, bias, sampling_offset, weight_offset, mask) -> Tensor:
        """Output, (B, C_out, H_out, W_out), channels last in memory."""
        stream = current_stream(x.device)
        kernels = shared = None
        if self.prepare is not None:
            (kernels,) = self.prepare(stream, x, weight, None, weight_offset, None)
            shape, dtype = self.shared
            shared = torch.empty(shape, dtype=dtype, device=x.device)
        columns = torch.empty(self.columns, dtype=x.dtype, device=x.device)
        self.launch(stream, columns, shared, x, kernels, sampling_offset, mask)
        out = torch.mm(columns, dense_matrix(weight, x.dtype).t())  # [B·P, C_out]
        if shared is not None:
            out += (shared[0] if self.tap_groups == 1 else shared.sum(0))[:, None]
        if bias is not None:
            out += bias
        return out.view(len(x), *self.out_size, -1).permute(0, 3, 1, 2)


def dense_matrix(weight: Tensor, dtype: torch.dtype) -> Tensor:
    """The static kernel as a matrix, [C_out, K·C_in]."""
    return weight.permute(0, 2, 3, 1).flatten(1).to(dtype)


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
