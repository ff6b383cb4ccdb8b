"""The forward pass on the device."""

import torch
import triton
from torch import Tensor

from .dense import columns_kernel
from .depthwise import depthwise_kernel
from .launch import Problem
from .settings import tile_of


def forward(problem: Problem, bias: Tensor | None) -> Tensor:
    """The contextual convolution, (B, C_out, H_out, W_out), channels last in memory."""
    out = problem.x.new_empty(len(problem.x), *problem.out_size, len(problem.weight))
    if out.numel():
        (_depthwise if problem.depthwise else _dense)(problem, bias, out.flatten(1, 2))
    return out.permute(0, 3, 1, 2)


def _depthwise(problem: Problem, bias: Tensor | None, out: Tensor) -> None:
    batch, pixels, channels = out.shape
    tile = tile_of('depthwise', problem.x.itemsize)
    blocks = triton.cdiv(channels, tile.channels)
    chunks, chunk_tiles = problem.split(triton.cdiv(pixels, tile.pixels), batch * blocks)
    problem.launch(
        depthwise_kernel,
        batch * blocks * chunks,
        tile,
        out=out,
        bias=bias,
        blocks=blocks,
        chunks=chunks,
        chunk_tiles=chunk_tiles,
    )


def _dense(problem: Problem, bias: Tensor | None, out: Tensor) -> None:
    batch, pixels, _ = out.shape
    channels, taps = problem.x.shape[1], problem.taps
    tile = tile_of('columns', problem.x.itemsize)
    tiles = triton.cdiv(pixels, tile.pixels)
    tap_groups, group_taps = problem.split(taps, batch * tiles)
    columns = problem.x.new_empty(batch, pixels, taps, channels)
    shared = None
    if problem.kernels is not None:
        shared = out.new_empty(tap_groups, batch, pixels, dtype=problem.compute_type)
    problem.launch(
        columns_kernel,
        batch * tap_groups * tiles,
        tile,
        columns=columns,
        shared=shared,
        delta=problem.kernels,
        blocks=triton.cdiv(channels, tile.channels),
        chunks=tiles,
        tap_groups=tap_groups,
        group_taps=group_taps,
    )
    static = dense_matrix(problem)
    torch.mm(columns.view(batch * pixels, -1), static.t(), out=out.view(batch * pixels, -1))
    if shared is not None:
        out += shared.sum(0)[..., None]
    if bias is not None:
        out += bias


def dense_matrix(problem: Problem) -> Tensor:
    """The static kernel as a matrix in x's type, [C_out, K·C_in]."""
    return problem.weight.permute(0, 2, 3, 1).flatten(1).to(problem.x.dtype)
