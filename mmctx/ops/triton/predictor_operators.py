"""The predictors' kernels for PyTorch: as autograd functions, and as operators for compilation.

Eager mode avoids `torch.library`, which takes the host several times as long as a launch.
"""

import torch
from torch import Tensor

from ..sampling import Pair, output_size
from .second_derivatives import once_differentiable


class _EagerStaticConv(torch.autograd.Function):
    """`static_conv_forward` with its gradients in eager mode."""

    @staticmethod
    def forward(ctx, rows, weight, bias, geometry):
        from .static_conv import static_conv_forward

        ctx.save_for_backward(rows, weight)
        ctx.has_bias, ctx.geometry = bias is not None, geometry
        return static_conv_forward(rows, weight, bias, geometry)

    @staticmethod
    @once_differentiable
    def backward(ctx, grad):
        from .static_conv import static_conv_backward

        rows, weight = ctx.saved_tensors
        grad_rows, grad_weight, grad_bias = static_conv_backward(grad, rows, weight, ctx.geometry)
        return grad_rows, grad_weight, grad_bias if ctx.has_bias else None, None


@torch.library.custom_op('mmctx::norm_relu', mutates_args=())
def norm_relu_operator(
    rows: Tensor, shares: Tensor, scale: Tensor, shift: Tensor, eps: float
) -> Tensor:
    """See `norm_relu.norm_relu_forward`."""
    from .norm_relu import norm_relu_forward

    return norm_relu_forward(rows, shares, scale, shift, eps)


@norm_relu_operator.register_fake
def _(rows, shares, scale, shift, eps):
    return torch.empty_like(rows)


@torch.library.custom_op('mmctx::norm_relu_backward', mutates_args=())
def norm_relu_backward_operator(
    grad: Tensor, rows: Tensor, shares: Tensor, scale: Tensor, shift: Tensor, eps: float
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """See `norm_relu.norm_relu_backward`."""
    from .norm_relu import norm_relu_backward

    grad_rows, grad_shares, *sums = norm_relu_backward(grad, rows, shares, scale, shift, eps)
    # Operators may not return views of one tensor.
    return grad_rows, grad_shares, *(gradient.clone() for gradient in sums)


@norm_relu_backward_operator.register_fake
def _(grad, rows, shares, scale, shift, eps):
    batch, _, channels = rows.shape
    sums = scale.new_empty(channels, dtype=torch.float32)
    return torch.empty_like(rows), sums.new_empty(batch, channels), sums, torch.empty_like(sums)


def _save_norm_relu(ctx, inputs, output):
    *tensors, ctx.eps = inputs
    ctx.save_for_backward(*tensors)


def _norm_relu_gradients(ctx, grad):
    rows, shares, scale, shift = ctx.saved_tensors
    grad_rows, grad_shares, *grad_norm = norm_relu_backward_operator(
        grad, rows, shares, scale, shift, ctx.eps
    )
    grad_norm = [gradient.to(scale.dtype) for gradient in grad_norm]
    return grad_rows, grad_shares.to(shares.dtype), *grad_norm, None


norm_relu_operator.register_autograd(_norm_relu_gradients, setup_context=_save_norm_relu)

_GEOMETRY = 'SymInt[2] stride, SymInt[2] padding, SymInt[2] dilation'


@torch.library.custom_op(
    'mmctx::static_conv2d',
    mutates_args=(),
    schema=f'(Tensor rows, Tensor weight, Tensor? bias, {_GEOMETRY}) -> Tensor',
)
def static_conv_operator(rows, weight, bias, *geometry):
    """See `static_conv.static_conv_forward`."""
    from .static_conv import static_conv_forward

    return static_conv_forward(rows, weight, bias, _pairs(geometry))


@static_conv_operator.register_fake
def _(rows, weight, bias, *geometry):
    size = output_size(rows.shape[1:3], weight.shape[2:], *geometry)
    return rows.new_empty(rows.shape[0], *size, weight.shape[0], dtype=torch.float32)


@torch.library.custom_op(
    'mmctx::static_conv2d_backward',
    mutates_args=(),
    schema=f'(Tensor grad, Tensor rows, Tensor weight, {_GEOMETRY}) -> (Tensor, Tensor, Tensor)',
)
def static_conv_backward_operator(grad, rows, weight, *geometry):
    """See `static_conv.static_conv_backward`; the gradients in the types of rows and weight."""
    from .static_conv import static_conv_backward

    grad_rows, grad_weight, grad_bias = static_conv_backward(grad, rows, weight, _pairs(geometry))
    # `.to` ignores its memory format for a tensor that has the type already.
    grad_weight = grad_weight.to(weight.dtype).contiguous()
    return grad_rows.contiguous(), grad_weight, grad_bias.to(weight.dtype, copy=True)


@static_conv_backward_operator.register_fake
def _(grad, rows, weight, *geometry):
    weight = weight.new_empty(weight.shape)
    return torch.empty_like(rows), weight, weight.new_empty(weight.shape[0])


def _save_static_conv(ctx, inputs, output):
    rows, weight, bias, *ctx.geometry = inputs
    ctx.save_for_backward(rows, weight)
    ctx.has_bias = bias is not None


def _static_conv_gradients(ctx, grad):
    gradients = static_conv_backward_operator(grad, *ctx.saved_tensors, *ctx.geometry)
    grad_rows, grad_weight, grad_bias = gradients
    return grad_rows, grad_weight, grad_bias if ctx.has_bias else None, None, None, None


static_conv_operator.register_autograd(_static_conv_gradients, setup_context=_save_static_conv)


def static_conv_triton(
    rows: Tensor, weight: Tensor, bias: Tensor | None, stride: Pair, padding: Pair, dilation: Pair
) -> Tensor:
    """See `mmctx.ops.predicting.conv2d_in_float32`."""
    if torch.compiler.is_compiling():
        return static_conv_operator(rows, weight, bias, stride, padding, dilation)
    if not torch.is_grad_enabled():
        from .static_conv import static_conv_forward

        return static_conv_forward(rows, weight, bias, (stride, padding, dilation))
    return _EagerStaticConv.apply(rows, weight, bias, (stride, padding, dilation))


def _pairs(geometry) -> tuple[Pair, Pair, Pair]:
    return tuple(tuple(pair) for pair in geometry)
