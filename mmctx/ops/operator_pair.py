"""An operator and its backward pass, registered with PyTorch for whoever traces or compiles."""

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor

from .triton.operator import needs_operators, refusal_of_second_derivatives


def operator_pair(
    name: str, arguments: str, forward: Callable, backward: Callable, fake: Callable
) -> Callable:
    """Register a function of tensors and its backward pass as operators of `mmctx`.

    Args:
        name (str): Name of the operator; that of its backward pass ends in `_backward`.
        arguments (str): Its arguments as a schema of PyTorch, which unlike annotations each version
            reads alike. All are tensors; the second has no gradient.
        forward (Callable): Function of the arguments that returns one tensor.
        backward (Callable): Function of the gradient of that tensor, the arguments, and a list that
            says which of them, but for the second, need a gradient. Returns what `empty_gradients`
            makes of these, filled in.
        fake (Callable): Function of the arguments that returns an empty result.

    Returns:
        Callable: The function, with gradients. In eager mode it does without the operators, which
        take longer to call than a small map to compute.
    """
    operator = torch.library.custom_op(
        f'mmctx::{name}', forward, mutates_args=(), schema=f'({arguments}) -> Tensor'
    )
    gradients = ', '.join(['Tensor'] * arguments.count(','))
    backward_operator = torch.library.custom_op(
        f'mmctx::{name}_backward',
        backward,
        mutates_args=(),
        schema=f'(Tensor grad, {arguments}, bool[] needed) -> ({gradients})',
    )
    operator.register_fake(fake)

    @backward_operator.register_fake
    def _(grad, x, indices, *others):
        *tensors, needed = others
        return empty_gradients((x, *tensors), needed)

    def save(ctx: Any, inputs: tuple, output: Tensor) -> None:
        ctx.save_for_backward(*inputs)

    def differentiate(ctx: Any, grad: Tensor) -> tuple:
        # Grad mode is on only if second derivatives are asked for, which the operator refuses.
        by_operator = torch.is_grad_enabled() or _needs_operators(grad)
        needs_x, _, *needs = ctx.needs_input_grad
        needed = [needs_x, *needs]
        run_backward = backward_operator if by_operator else backward
        computed = run_backward(grad.contiguous(), *ctx.saved_tensors, needed)
        grad_x, *grads = [g if wanted else None for g, wanted in zip(computed, needed)]
        return grad_x, None, *grads

    operator.register_autograd(differentiate, setup_context=save)
    backward_operator.register_autograd(refusal_of_second_derivatives('tapwise'))

    class Eager(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, *tensors: Tensor | None) -> Tensor:
            save(ctx, tensors, None)
            # `data` is no view, which could not be changed in place later.
            return forward(*tensors).data

        backward = staticmethod(differentiate)

    def call(x: Tensor, *others: Tensor | None) -> Tensor:
        tensors = x, *others
        if _needs_operators(x):
            return operator(*tensors)
        if torch.is_grad_enabled() and any(t is not None and t.requires_grad for t in tensors):
            return Eager.apply(*tensors)
        return forward(*tensors)

    return call


def _needs_operators(tensor: Tensor) -> bool:
    return (
        needs_operators(tensor)
        or tensor.is_meta
        # As of `torch.autograd.grad(is_grads_batched=True)`
        or torch._C._functorch.is_legacy_batchedtensor(tensor)
    )


def empty_gradients(tensors: Iterable[Tensor | None], needed: Iterable[bool]) -> tuple[Tensor, ...]:
    """Empty gradients of tensors, each in its tensor's layout, or without values if not needed."""
    tensors = tuple(tensors)
    first = tensors[0]
    return tuple(
        torch.empty_like(tensor) if wanted else first.new_empty(0)
        for tensor, wanted in zip(tensors, needed)
    )
