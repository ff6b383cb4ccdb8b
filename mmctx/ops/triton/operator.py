"""Registration of the Triton back end with PyTorch: autograd and compilation."""

import importlib.util

import torch
from torch import Tensor

from ..sampling import Pair, output_size

HAS_TRITON = importlib.util.find_spec('triton') is not None
ARGUMENTS = ('x', 'weight', 'bias', 'offset', 'weight_delta', 'mask')
_SCHEMA = (
    'Tensor x, Tensor weight, Tensor? bias, Tensor? offset, Tensor? weight_delta, Tensor? mask, '
    'SymInt[2] stride, SymInt[2] padding, SymInt[2] dilation, bool mask_is_logits'
)


def _problem(x, weight, offset, weight_delta, mask, *geometry):
    import triton

    # Before the kernels are imported, as how they run is settled then.
    if x.device.type != 'cuda' and not triton.knobs.runtime.interpret:
        raise NotImplementedError(
            f"back end 'triton' needs tensors on a GPU, got {x.device.type}; TRITON_INTERPRET=1 "
            'makes it run on a CPU, slowly'
        )
    from .launch import Problem

    return Problem(x, weight, offset, weight_delta, mask, *geometry)


@torch.library.custom_op(
    'mmctx::contextual_conv2d', mutates_args=(), schema=f'({_SCHEMA}) -> Tensor'
)
def contextual_conv2d_operator(x, weight, bias, offset, weight_delta, mask, *geometry):
    """The contextual convolution, channels last in memory; see `mmctx.ops.contextual_conv2d`."""
    problem = _problem(x, weight, offset, weight_delta, mask, *geometry)
    from .forward import forward

    return forward(problem, bias)


@contextual_conv2d_operator.register_fake
def _(x, weight, bias, offset, weight_delta, mask, stride, padding, dilation, mask_is_logits):
    out_size = output_size(x.shape[2:], weight.shape[2:], stride, padding, dilation)
    return x.new_empty(x.shape[0], *out_size, weight.shape[0]).permute(0, 3, 1, 2)


@torch.library.custom_op(
    'mmctx::contextual_conv2d_backward',
    mutates_args=(),
    schema=f'(Tensor grad, {_SCHEMA}, bool[] needed) -> Tensor[]',
)
def contextual_conv2d_backward_operator(
    grad, x, weight, bias, offset, weight_delta, mask, *geometry_and_needed
):
    """Gradients of the arguments that `needed` marks, in their order; no others are computed."""
    *geometry, needed = geometry_and_needed
    arguments = dict(zip(ARGUMENTS, (x, weight, bias, offset, weight_delta, mask)))
    wanted = [name for name, need in zip(ARGUMENTS, needed) if need]
    if not grad.numel():
        return [_empty_gradient(name, arguments[name]).zero_() for name in wanted]
    problem = _problem(x, weight, offset, weight_delta, mask, *geometry)
    from .backward import backward

    grads = backward(problem, grad, dict(zip(ARGUMENTS, needed)))
    return [grads[name].to(arguments[name].dtype) for name in wanted]


@contextual_conv2d_backward_operator.register_fake
def _(grad, *arguments_and_options):
    needed = arguments_and_options[-1]
    return [
        _empty_gradient(name, argument)
        for name, argument, need in zip(ARGUMENTS, arguments_and_options, needed)
        if need
    ]


def _empty_gradient(name: str, argument: Tensor) -> Tensor:
    """As backward lays it out: x's channels last, the others row by row."""
    if name == 'x':
        batch, channels, height, width = argument.shape
        return argument.new_empty(batch, height, width, channels).permute(0, 3, 1, 2)
    return torch.empty_like(argument, memory_format=torch.contiguous_format)


def _setup_context(ctx, inputs, output):
    ctx.save_for_backward(*inputs[:6])
    ctx.options = inputs[6:]


def _backward(ctx, grad):
    needed = list(ctx.needs_input_grad[:6])
    grads = iter(
        contextual_conv2d_backward_operator(grad, *ctx.saved_tensors, *ctx.options, needed)
    )
    return (*(next(grads) if need else None for need in needed), *[None] * len(ctx.options))


def _refuse_second_derivatives(ctx, grads):
    raise NotImplementedError(
        "back end 'triton' has no second derivatives: pass backend='reference'"
    )


contextual_conv2d_operator.register_autograd(_backward, setup_context=_setup_context)
contextual_conv2d_backward_operator.register_autograd(_refuse_second_derivatives)


def contextual_conv2d_triton(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    offset: Tensor | None,
    weight_delta: Tensor | None,
    mask: Tensor | None,
    stride: Pair,
    padding: Pair,
    dilation: Pair,
    mask_is_logits: bool = False,
) -> Tensor:
    """See `mmctx.ops.contextual_conv2d`, which checks the arguments.

    Raises:
        NotImplementedError: There is no Triton or no GPU, or second derivatives are asked for.
    """
    if not HAS_TRITON:
        raise NotImplementedError("back end 'triton' needs the package triton: pip install triton")
    return contextual_conv2d_operator(
        x, weight, bias, offset, weight_delta, mask, stride, padding, dilation, mask_is_logits
    )
