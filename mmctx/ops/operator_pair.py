"""An operator and its backward pass, registered with PyTorch for whoever traces or compiles."""

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor

from .triton.operator import needs_operators


def operator_pair(name: str, forward: Callable, backward: Callable, fake: Callable) -> Callable:
    """Register a function of tensors and its backward pass as operators of `mmctx`.

    Args:
        name (str): Name of the operator; that of its backward pass ends in `_backward`.
        forward (Callable): Function of tensors, of which all but the first may be None and the
            second has no gradient, that returns one tensor. Annotated.
        backward (Callable): Function of the gradient of that tensor, the tensors, and a list that
            says which of them need a gradient. Returns a gradient for each tensor but the second,
            empty where it is not needed. Annotated.
        fake (Callable): Function of the tensors that returns an empty result.

    Returns:
        Callable: The function, with gradients. In eager mode it does without the operators, which
        take longer to call than a small map to compute.
    """
    operator = torch.library.custom_op(f'mmctx::{name}', forward, mutates_args=())
    backward_operator = torch.library.custom_op(
        f'mmctx::{name}_backward', backward, mutates_args=()
    )

    operator.register_fake(fake)

    @backward_operator.register_fake
    def _(grad, x, indices, *others):
        *tensors, needed = others
        return empty_gradients((x, *tensors), needed)

    def setup_context(ctx: Any, inputs: tuple, output: Tensor) -> None:
        ctx.save_for_backward(*inputs)

    def differentiate(ctx: Any, grad: Tensor) -> tuple:
        # Grad mode is on only if second derivatives are asked for, which the operator refuses.
        traced = torch.is_grad_enabled() or needs_operators(grad)
        run = backward_operator if traced else backward
        needs_x, _, *needs = ctx.needs_input_grad
        needed = [needs_x, *needs]
        found = run(grad.contiguous(), *ctx.saved_tensors, needed)
        grad_x, *grads = [g if wanted else None for g, wanted in zip(found, needed)]
        return grad_x, None, *grads

    def refuse(ctx: Any, *grads: Tensor) -> None:
        raise NotImplementedError(
            "back end 'tapwise' has no second derivatives: pass backend='reference'"
        )

    operator.register_autograd(differentiate, setup_context=setup_context)
    backward_operator.register_autograd(refuse)

    class Eager(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, *tensors: Tensor | None) -> Tensor:
            ctx.save_for_backward(*tensors)
            return forward(*tensors)

        backward = staticmethod(differentiate)

    def call(x: Tensor, *others: Tensor | None) -> Tensor:
        tensors = x, *others
        if needs_operators(x):
            return operator(*tensors)
        if torch.is_grad_enabled() and any(t is not None and t.requires_grad for t in tensors):
            return Eager.apply(*tensors)
        return forward(*tensors)

    return call


def empty_gradients(tensors: Iterable[Tensor | None], needed: Iterable[bool]) -> tuple[Tensor, ...]:
    """Uninitialised gradients of tensors, of no value where they are not needed."""
    tensors = tuple(tensors)
    first = tensors[0]
    return tuple(
        torch.empty_like(tensor) if wanted else first.new_empty(0)
        for tensor, wanted in zip(tensors, needed)
    )
