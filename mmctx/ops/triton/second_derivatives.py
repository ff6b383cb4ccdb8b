"""Refusal of second derivatives, which no kernel computes.

PyTorch's own `once_differentiable` takes gradients of constant cotangents, as those of a loss are,
for constants, so that a gradient penalty would be wrong without a word.
"""

from collections.abc import Callable
from functools import wraps

import torch
from torch import Tensor


class _Refused(torch.autograd.Function):
    """Gradients as they are, which depend on tensors in a way that cannot be differentiated."""

    @staticmethod
    def forward(ctx, count, *gradients_and_tensors):
        return gradients_and_tensors[:count]

    @staticmethod
    def backward(ctx, *_):
        raise NotImplementedError(
            'Triton kernels have no second derivatives: set the environment variable '
            'MMCTX_BACKEND=reference'
        )


def once_differentiable(backward: Callable) -> Callable:
    """Decorator of an autograd function's `backward`: differentiating its result is an error."""

    @wraps(backward)
    def refusing(ctx, *grads):
        # Grad mode is on only if second derivatives may be asked for.
        if not torch.is_grad_enabled():
            return backward(ctx, *grads)
        with torch.no_grad():
            found = backward(ctx, *grads)
        found = list(found) if isinstance(found, tuple) else [found]
        there = [i for i, gradient in enumerate(found) if gradient is not None]
        of = [t for t in (*grads, *ctx.saved_tensors) if isinstance(t, Tensor)]
        refused = _Refused.apply(len(there), *[found[i] for i in there], *of)
        for i, gradient in zip(there, refused, strict=True):
            found[i] = gradient
        return tuple(found)

    return refusing
