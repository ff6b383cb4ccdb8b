"""Mean of a map over its pixels, as cheap backwards as forwards."""

from typing import Any

import torch
from torch import Tensor

from .triton.operator import needs_operators


class _Pooled(torch.autograd.Function):
    """The mean, whose gradient stays one number for all pixels.

    PyTorch's own writes it out as a map of the type of the sums, and casts that.
    """

    generate_vmap_rule = True

    @staticmethod
    def forward(x: Tensor, dtype: torch.dtype) -> Tensor:
        return x.mean((2, 3), dtype=dtype)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple, output: Tensor) -> None:
        x, ctx.of = inputs
        ctx.shape, ctx.dtype = x.shape, x.dtype

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        grad = (grads[0] / (ctx.shape[2] * ctx.shape[3])).to(ctx.dtype)
        return grad[:, :, None, None].expand(ctx.shape), None

    @staticmethod
    def jvp(ctx: Any, *tangents: Any) -> Tensor:
        return tangents[0].mean((2, 3), dtype=ctx.of)


def pooled(x: Tensor, dtype: torch.dtype) -> Tensor:
    """Mean over pixels, (B, C), summed in and of type `dtype`, of a map (B, C, H, W)."""
    if torch.is_grad_enabled() and x.requires_grad and not needs_operators(x):
        return _Pooled.apply(x, dtype)
    return x.mean((2, 3), dtype=dtype)
