"""The sampling offset predictor with a LayerNorm as one autograd function.

Recording its five steps one by one would take the host longer than running them.
"""

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable


def predict(rows, prior, reduce_weight, reduce_bias, scale, shift, last_weight, last_bias, options):
    """Predict Δp and mask, and return what their gradients need: see `predict_sampling_offset`."""
    from .norm_relu import norm_relu_forward
    from .static_conv import static_conv_forward

    eps, geometry = options
    batch, height, width, channels = rows.shape
    weight, length = reduce_weight.flatten(1), prior.shape[1]
    # The prior is the same at every pixel, so its share of the 1×1 convolution is too.
    shares = torch.addmm(reduce_bias, prior, weight[:, :length].t())  # [B, C']
    rows_weight = weight[:, length:].to(rows.dtype)  # [C', C]
    reduced = torch.mm(rows.view(-1, channels), rows_weight.t()).view(batch, height * width, -1)
    hidden = norm_relu_forward(reduced, shares, scale, shift, eps)
    hidden = hidden.view(batch, height, width, -1)
    predicted = static_conv_forward(hidden, last_weight, last_bias, geometry)
    return predicted, (shares, rows_weight, reduced, hidden)


class SamplingOffsetPredictor(torch.autograd.Function):
    """`predict` with its gradients."""

    @staticmethod
    def forward(ctx, rows, prior, reduce_weight, reduce_bias, scale, shift, *last_and_options):
        *last, options = last_and_options
        predicted, steps = predict(
            rows, prior, reduce_weight, reduce_bias, scale, shift, *last, options
        )
        ctx.save_for_backward(rows, prior, reduce_weight, scale, shift, last[0], *steps)
        ctx.options = options
        return predicted

    @staticmethod
    @once_differentiable
    def backward(ctx, grad):
        from .norm_relu import norm_relu_backward
        from .static_conv import static_conv_backward

        rows, prior, reduce_weight, scale, shift, last_weight, *steps = ctx.saved_tensors
        shares, rows_weight, reduced, hidden = steps
        eps, geometry = ctx.options
        grad_hidden, *grad_last = static_conv_backward(grad, hidden, last_weight, True, geometry)
        grad_reduced, grad_shares, *grad_norm = norm_relu_backward(
            grad_hidden.flatten(1, 2), reduced, shares, scale, shift, eps
        )
        grad_reduced = grad_reduced.flatten(0, 1)  # [B·P, C']
        grad_rows = grad_prior = None
        if ctx.needs_input_grad[0]:
            grad_rows = torch.mm(grad_reduced, rows_weight).view(rows.shape)
        length = prior.shape[1]
        if ctx.needs_input_grad[1]:
            prior_weight = reduce_weight.flatten(1)[:, :length]
            grad_prior = torch.mm(grad_shares, prior_weight.to(grad_shares.dtype))
        grad_prior_weight = torch.mm(grad_shares.t(), prior.to(grad_shares.dtype))
        grad_rows_weight = torch.mm(grad_reduced.t(), rows.flatten(0, 2))
        grad_weight = torch.cat([grad_prior_weight, grad_rows_weight], 1).view(reduce_weight.shape)
        return grad_rows, grad_prior, grad_weight, grad_shares.sum(0), *grad_norm, *grad_last, None


def predict_sampling_offset(
    rows: Tensor,
    prior: Tensor,
    reduce_weight: Tensor,
    reduce_bias: Tensor,
    scale: Tensor,
    shift: Tensor,
    last_weight: Tensor,
    last_bias: Tensor,
    eps: float,
    geometry: tuple,
) -> Tensor:
    """1×1 convolution of a map and a prior, LayerNorm, ReLU, convolution; not for compilation.

    Args:
        rows (Tensor): Map, (B, H, W, C), contiguous.
        prior (Tensor): Prior of each image, (B, P), in the type of the parameters.
        reduce_weight (Tensor): Weight of the 1×1 convolution, (C', P + C, 1, 1).
        reduce_bias (Tensor): Bias of the 1×1 convolution, (C',).
        scale, shift (Tensor): Scale and shift of the norm, (C',).
        last_weight (Tensor): Weight of the last convolution, (N, C' or 1, kh, kw).
        last_bias (Tensor): Bias of the last convolution, (N,).
        eps (float): Epsilon of the norm.
        geometry (tuple): Stride, padding and dilation of the last convolution.

    Returns:
        Tensor: Δp, and mask logits if there are any, (B, H_out, W_out, N), in float32.
    """
    arguments = (
        rows, prior, reduce_weight, reduce_bias, scale, shift, last_weight, last_bias,
        (eps, geometry),
    )  # fmt: skip
    if torch.is_grad_enabled():
        return SamplingOffsetPredictor.apply(*arguments)
    return predict(*arguments)[0]
