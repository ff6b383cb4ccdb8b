"""Registration of the Triton back end with PyTorch, for autograd and compilation."""

import importlib.util
from collections.abc import Callable

import torch
from torch import Tensor

from ..sampling import Pair, output_size

HAS_TRITON = importlib.util.find_spec('triton') is not None
# Types of tensors with memory of their own; subclasses may be anything.
PLAIN = Tensor, torch.nn.Parameter
ARGUMENTS = ('x', 'weight', 'bias', 'sampling_offset', 'weight_offset', 'mask')
_SCHEMA = (
    'Tensor x, Tensor weight, Tensor? bias, Tensor? sampling_offset, Tensor? weight_offset, '
    'Tensor? mask, SymInt[2] stride, SymInt[2] padding, SymInt[2] dilation, bool mask_is_logits'
)


def check_device(device: torch.device) -> None:
    """Raise a NotImplementedError for tensors that the kernels cannot read."""
    if device.type == 'cuda':
        return
    import triton

    # Checked before the import of the kernels, which fixes how they run.
    if not triton.knobs.runtime.interpret:
        raise NotImplementedError(
            f"back end 'triton' needs tensors on a GPU, got {device.type}; TRITON_INTERPRET=1 "
            'makes it run on a CPU, slowly'
        )


def _kernels(device: torch.device):
    """The module that runs the kernels, imported at the first call."""
    check_device(device)
    from . import run

    return run


def _problem(x, *arguments):
    return _kernels(x.device).problem_of(x, *arguments)


def _backward(problem, grad, *tensors, needed, tables=None) -> list[Tensor]:
    """Gradients of the arguments marked in `needed`, in order; no others are computed."""
    wanted = [(n, t) for n, t, need in zip(ARGUMENTS, tensors, needed) if need]
    if not grad.numel():
        return [_empty_gradient(name, tensor).zero_() for name, tensor in wanted]
    grads = _kernels(grad.device).run_backward(
        problem, grad, *tensors, needed=tuple(needed), tables=tables
    )
    return [
        grads[n] if grads[n].dtype == tensor.dtype else grads[n].to(tensor.dtype)
        for n, tensor in wanted
    ]


@torch.library.custom_op(
    'mmctx::contextual_conv2d', mutates_args=(), schema=f'({_SCHEMA}) -> Tensor'
)
def contextual_conv2d_operator(*arguments):
    """The contextual convolution, channels last in memory; see `mmctx.ops.contextual_conv2d`."""
    problem = _problem(*arguments)
    return _kernels(problem.device).run_forward(problem, *arguments[:6])[0]


@contextual_conv2d_operator.register_fake
def _(
    x, weight, bias, sampling_offset, weight_offset, mask, stride, padding, dilation, mask_is_logits
):
    out_size = output_size(x.shape[2:], weight.shape[2:], stride, padding, dilation)
    return x.new_empty(x.shape[0], *out_size, weight.shape[0]).permute(0, 3, 1, 2)


@torch.library.custom_op(
    'mmctx::contextual_conv2d_backward',
    mutates_args=(),
    schema=f'(Tensor grad, {_SCHEMA}, bool[] needed) -> Tensor[]',
)
def contextual_conv2d_backward_operator(*arguments):
    """Gradients of the arguments marked in `needed`, the last argument."""
    grad, *arguments, needed = arguments
    grads = _backward(_problem(*arguments), grad, *arguments[:6], needed=needed)
    names = [name for name, need in zip(ARGUMENTS, needed) if need]
    return [g if name == 'x' else g.contiguous() for name, g in zip(names, grads)]


@contextual_conv2d_backward_operator.register_fake
def _(grad, *arguments_and_options):
    needed = arguments_and_options[-1]
    return [
        _empty_gradient(name, argument)
        for name, argument, need in zip(ARGUMENTS, arguments_and_options, needed)
        if need
    ]


def _empty_gradient(name: str, argument: Tensor) -> Tensor:
    """Empty gradient in the layout of backward: channels last for x, contiguous for the others."""
    if name == 'x':
        batch, channels, height, width = argument.shape
        return argument.new_empty(batch, height, width, channels).permute(0, 3, 1, 2)
    return torch.empty_like(argument, memory_format=torch.contiguous_format)


def _setup_context(ctx, inputs, output):
    ctx.save_for_backward(*inputs[:6])
    ctx.options = inputs[6:]


def _differentiate(ctx, grad):
    needed = list(ctx.needs_input_grad[:6])
    grads = iter(
        contextual_conv2d_backward_operator(grad, *ctx.saved_tensors, *ctx.options, needed)
    )
    return (*(next(grads) if need else None for need in needed), *[None] * len(ctx.options))


def refusal_of_second_derivatives(backend: str) -> Callable:
    """Backward pass of a back end's backward pass: an error that says which back end has one."""

    def refuse(*_):
        raise NotImplementedError(
            f"back end '{backend}' has no second derivatives: pass backend='reference'"
        )

    return refuse


_refuse_second_derivatives = refusal_of_second_derivatives('triton')
contextual_conv2d_operator.register_autograd(_differentiate, setup_context=_setup_context)
contextual_conv2d_backward_operator.register_autograd(_refuse_second_derivatives)


class _Backward(torch.autograd.Function):
    """The backward pass in eager mode, which refuses to be differentiated."""

    @staticmethod
    def forward(ctx, problem, needed, grad, *tensors_and_tables):
        """Gradients of the arguments marked in `needed`."""
        *tensors, kernels, matrix = tensors_and_tables
        tables = kernels, matrix
        return tuple(_backward(problem, grad, *tensors, needed=needed, tables=tables))

    backward = staticmethod(_refuse_second_derivatives)


class _Eager(torch.autograd.Function):
    """The operator in eager mode, without the host time that a registered operator takes."""

    @staticmethod
    def forward(ctx, problem, *tensors):
        """The contextual convolution of six tensors, some None."""
        out, tables = _kernels(problem.device).run_forward(problem, *tensors)
        ctx.save_for_backward(*tensors, *tables)
        ctx.problem = problem
        return out

    @staticmethod
    def backward(ctx, grad):
        """Gradients of the six tensors."""
        needed = ctx.needs_input_grad[1:]
        # Grad mode is on only if second derivatives are asked for.
        if torch.is_grad_enabled():
            grads = iter(_Backward.apply(ctx.problem, needed, grad, *ctx.saved_tensors))
        else:
            *tensors, kernels, matrix = ctx.saved_tensors
            tables = kernels, matrix
            grads = iter(_backward(ctx.problem, grad, *tensors, needed=needed, tables=tables))
        return (None, *[next(grads) if need else None for need in needed])


def needs_operators(x: Tensor) -> bool:
    """Whether something that sees PyTorch's operators only is at work: a compiler, tracer, counter.

    Triton kernels are called through a registered operator then, or replaced by PyTorch's own.
    """
    return (
        torch.compiler.is_compiling()
        or torch._C._len_torch_dispatch_stack() > 0
        or torch._C._get_tracing_state() is not None
        or torch._C._functorch.peek_interpreter_stack() is not None
        or type(x) not in PLAIN
    )


def contextual_conv2d_triton(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    sampling_offset: Tensor | None,
    weight_offset: Tensor | None,
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
    tensors = x, weight, bias, sampling_offset, weight_offset, mask
    options = stride, padding, dilation, mask_is_logits
    if needs_operators(x):
        return contextual_conv2d_operator(*tensors, *options)
    problem = _problem(*tensors, *options)
    if torch.is_grad_enabled() and any(t is not None and t.requires_grad for t in tensors):
        return _Eager.apply(problem, *tensors)
    return _kernels(problem.device).run_forward(problem, *tensors)[0]
