"""The backward pass on the device: nothing is computed for a gradient that nobody asked for."""

import torch
import triton
from torch import Tensor

from .forward import dense_matrix
from .input_gradient import gather_kernel, reach_kernel, scatter_kernel
from .launch import Problem
from .sampling_gradient import sampling_gradient_kernel
from .settings import Square, input_gradient_of, square_of, tile_of


def backward(problem: Problem, grad: Tensor, needed: dict[str, bool]) -> dict[str, Tensor]:
    """Gradients of the arguments that `needed` names, in compute or argument types.

    Args:
        problem (Problem): What forward computed.
        grad (Tensor): Gradient of the output, (B, C_out, H_out, W_out).
        needed (dict[str, bool]): For x, weight, bias, offset, weight_delta and mask.

    Returns:
        dict[str, Tensor]: Shaped as the arguments, for those needed.
    """
    rows = grad.permute(0, 2, 3, 1).contiguous().flatten(1, 2)  # [B, P, C_out]
    grads = {}
    if needed['bias']:
        grads['bias'] = rows.sum((0, 1), dtype=problem.compute_type)
    inputs = dict(grad=rows, grad_sum=None)
    if not problem.depthwise and any(needed[n] for n in needed if n != 'bias'):
        by_columns = rows.flatten(0, 1) @ dense_matrix(problem)  # [B·P, K·C_in]
        inputs = dict(grad=by_columns, grad_sum=rows.sum(-1, dtype=problem.compute_type))
    if any(needed[name] for name in ('weight', 'offset', 'weight_delta', 'mask')):
        grads.update(_by_sampling(problem, rows, inputs, needed))
    if needed['x']:
        deterministic = torch.are_deterministic_algorithms_enabled()
        method = input_gradient_of(problem.x.shape[2] * problem.x.shape[3], deterministic)
        grads['x'] = (_gather if method == 'gather' else _scatter)(problem, inputs)
    return grads


def _by_sampling(problem: Problem, rows: Tensor, inputs: dict, needed: dict[str, bool]):
    batch, pixels, _ = rows.shape
    channels, taps = problem.x.shape[1], problem.taps
    tile = tile_of('sampling_gradient', problem.x.itemsize)
    blocks = triton.cdiv(channels, tile.channels)
    chunks, chunk_tiles = problem.split(triton.cdiv(pixels, tile.pixels), batch * blocks)
    tap_groups, group_taps = problem.split(taps, batch * blocks * chunks)

    def empty(*shape):
        return rows.new_empty(shape, dtype=problem.compute_type)

    by_offset = empty(blocks, batch, 2 * taps, *problem.out_size) if needed['offset'] else None
    by_mask = empty(blocks, batch, taps, *problem.out_size) if needed['mask'] else None
    own = needed['weight_delta'] or (needed['weight'] and problem.depthwise)
    by_kernels = empty(chunks, batch, taps, channels) if own else None
    recompute = needed['weight'] and not problem.depthwise
    columns = rows.new_empty(batch, pixels, taps, channels) if recompute else None
    problem.launch(
        sampling_gradient_kernel,
        batch * blocks * chunks * tap_groups,
        tile,
        grad_offset=by_offset,
        grad_mask=by_mask,
        grad_kernels=by_kernels,
        columns=columns,
        blocks=blocks,
        chunks=chunks,
        chunk_tiles=chunk_tiles,
        tap_groups=tap_groups,
        group_taps=group_taps,
        **inputs,
    )
    grads = {}
    if needed['offset']:
        grads['offset'] = _sum_parts(by_offset)
    if needed['mask']:
        grads['mask'] = _sum_parts(by_mask)
    if needed['weight_delta']:
        by_delta = _sum_parts(by_kernels).transpose(1, 2)  # [B, C, K]
        grads['weight_delta'] = by_delta.contiguous().view(problem.weight_delta.shape)
    if needed['weight'] and problem.depthwise:
        grads['weight'] = by_kernels.sum((0, 1)).t().contiguous().view(problem.weight.shape)
    elif needed['weight']:
        by_matrix = rows.flatten(0, 1).t() @ columns.view(batch * pixels, -1)  # [C_out, K·C_in]
        by_matrix = by_matrix.unflatten(1, (*problem.weight.shape[2:], channels))
        grads['weight'] = by_matrix.permute(0, 3, 1, 2).contiguous()
    return grads


def _sum_parts(parts: Tensor) -> Tensor:
    return parts[0] if len(parts) == 1 else parts.sum(0)


def _scatter(problem: Problem, inputs: dict) -> Tensor:
    batch, channels, _, _ = problem.x.shape
    tile = tile_of('scatter', problem.x.itemsize)
    blocks = triton.cdiv(channels, tile.channels)
    tiles = triton.cdiv(problem.out_pixels, tile.pixels)
    by_x = torch.zeros_like(problem.x_rows, dtype=problem.compute_type)
    problem.launch(
        scatter_kernel,
        batch * blocks * tiles,
        tile,
        grad_x=by_x,
        blocks=blocks,
        chunks=tiles,
        **inputs,
    )
    return by_x.to(problem.x.dtype).permute(0, 3, 1, 2)


def _gather(problem: Problem, inputs: dict) -> Tensor:
    batch, channels, height, width = problem.x.shape
    square = square_of(channels, problem.x.itemsize)
    tiles_x, out_tiles_x = (triton.cdiv(n, square.side) for n in (width, problem.out_size[1]))
    tiles = tiles_x * triton.cdiv(height, square.side)
    out_tiles = out_tiles_x * triton.cdiv(problem.out_size[0], square.side)
    out_tile_sizes = dict(out_tiles=out_tiles, out_tiles_x=out_tiles_x)
    reach = problem.x.new_empty((batch, out_tiles, problem.taps + 1, 4), dtype=problem.compute_type)
    one_warp = Square(square.channels, square.side, warps=1)
    problem.launch(reach_kernel, batch * out_tiles, one_warp, reach=reach, **out_tile_sizes)
    by_x = torch.empty_like(problem.x_rows)
    blocks = triton.cdiv(channels, square.channels)
    problem.launch(
        gather_kernel,
        batch * tiles * blocks,
        square,
        grad_x=by_x,
        reach=reach,
        blocks=blocks,
        chunks=tiles,
        tiles_x=tiles_x,
        # Three products of 10-bit mantissas, which keep float32's accuracy; never one.
        PRECISION='tf32x3' if problem.x.dtype == torch.float32 else 'ieee',
        **out_tile_sizes,
        **inputs,
    )
    return by_x.permute(0, 3, 1, 2)
