"""Vectors scaled to one length, in one kernel each forward and backward."""

from functools import lru_cache

import torch
import triton
import triton.language as tl
from torch import Tensor

from .device_launch import aligned, launch_on_device
from .launching import Launch
from .second_derivatives import once_differentiable
from .settings import row_tile

OPTIONS = dict(do_not_specialize=['count'], do_not_specialize_on_alignment=['log_length'])


@triton.jit
def tile_rows(count, LENGTH: tl.constexpr, BLOCK: tl.constexpr, ROWS: tl.constexpr):
    """Rows of a program, indices of their values, and which of these exist."""
    row = (tl.program_id(0) * ROWS + tl.arange(0, ROWS))[:, None]
    d = tl.arange(0, BLOCK)[None, :]
    return row, row.to(tl.int64) * LENGTH + d, (row < count) & (d < LENGTH)


@triton.jit
def lengths(x):
    """Length of each row of x."""
    return tl.maximum(tl.sqrt(tl.sum(x * x, 1, keep_dims=True)), 1e-12)


@triton.jit(**OPTIONS)
def unit_kernel(
    out,  # [N, D]
    vectors,  # [N, D]
    log_length,  # one number, or None for length 1
    count,
    LENGTH: tl.constexpr, BLOCK: tl.constexpr, ROWS: tl.constexpr,
):  # fmt: skip
    """A program owns some vectors."""
    _, at, valid = tile_rows(count, LENGTH, BLOCK, ROWS)
    x = tl.load(vectors + at, valid, 0)
    y = x / lengths(x)
    if log_length is not None:
        y *= tl.exp(tl.load(log_length).to(tl.float32))
    tl.store(out + at, y, valid)


@triton.jit(**OPTIONS)
def unit_backward_kernel(
    grad_vectors,  # [N, D]
    grad_log_length,  # [N], each vector's part, or None
    grad,  # [N, D]
    vectors,  # [N, D]
    log_length,  # one number, or None for length 1
    count,
    LENGTH: tl.constexpr, BLOCK: tl.constexpr, ROWS: tl.constexpr,
):  # fmt: skip
    """A program owns some vectors."""
    row, at, valid = tile_rows(count, LENGTH, BLOCK, ROWS)
    x = tl.load(vectors + at, valid, 0)
    g = tl.load(grad + at, valid, 0)
    length = lengths(x)
    x /= length
    if log_length is not None:
        g *= tl.exp(tl.load(log_length).to(tl.float32))
    along = tl.sum(g * x, 1, keep_dims=True)
    tl.store(grad_vectors + at, (g - x * along) / length, valid)
    if grad_log_length is not None:
        tl.store(grad_log_length + row, along, row < count)


class UnitVectors(torch.autograd.Function):
    """Vectors of one length, with the gradients of both."""

    @staticmethod
    def forward(ctx, vectors, log_length):
        ctx.save_for_backward(vectors, log_length)
        return unit_vectors_forward(vectors, log_length)

    @staticmethod
    @once_differentiable
    def backward(ctx, grad):
        vectors, log_length = ctx.saved_tensors
        grad, vectors = aligned(grad), aligned(vectors)
        grad_vectors, parts = torch.empty_like(vectors), None
        if log_length is not None:
            parts = torch.empty(len(vectors), device=vectors.device)
        if vectors.numel():
            launch = _launch(unit_backward_kernel, *_kind(vectors, log_length))
            launch_on_device(launch, grad_vectors, parts, grad, vectors, log_length)
        if log_length is None:
            return grad_vectors, None
        return grad_vectors, parts.sum().to(log_length.dtype).view(log_length.shape)


def unit_vectors_forward(vectors: Tensor, log_length: Tensor | None) -> Tensor:
    """Vectors, (N, D) of float32, scaled to length 1 or to exp(`log_length`), one number."""
    vectors = aligned(vectors)
    out = torch.empty_like(vectors)
    if out.numel():
        launch = _launch(unit_kernel, *_kind(vectors, log_length))
        launch_on_device(launch, out, vectors, log_length)
    return out


def _kind(vectors: Tensor, log_length: Tensor | None) -> tuple:
    return vectors.device, vectors.shape, None if log_length is None else log_length.dtype


def unit_backward_launch(count: int, length: int) -> Launch:
    """Launch of the backward pass for N vectors of length D."""
    return _new_launch(unit_backward_kernel, count, length)


@lru_cache(maxsize=4096)
def _launch(kernel, device, shape, log_length_type) -> Launch:
    return _new_launch(kernel, *shape)


def _new_launch(kernel, count: int, length: int) -> Launch:
    block, rows = row_tile(length)
    values = dict(count=count, LENGTH=length, BLOCK=block, ROWS=rows)
    return Launch(kernel, triton.cdiv(count, rows), values)
