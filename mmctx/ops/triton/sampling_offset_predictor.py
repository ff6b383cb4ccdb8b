"""The sampling offset predictor with a LayerNorm as one autograd function.

Its five steps would take the host longer to record one by one than to run.
"""

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable


def predict(rows, prior, reduce_weight, reduce_bias, scale, shift, last_weight, last_bias, options):
    """Δp and mask, and what their gradients need: see `predict_sampling_offset`."""
    from .norm_relu import norm_relu_forward
    from .static_conv import static_conv_forward

    eps, geometry = options
    batch, height, width, channels = rows.shape
    weight, length = reduce_weight.flatten(1), prior.shape[1]
    # The prior is the same at every pixel, so its share of the 1×1 convolution is too.
    shares = torch.addmm(reduce_bias, prior, weight[:, :length].t())  # [B, C']
    of_rows = weight[:, length:].to(rows.dtype)  # [C', C]
    reduced = torch.mm(rows.view(-1, channels), of_rows.t()).view(batch, height * width, -1)
    hidden = norm_relu_forward(reduced, shares, scale, shift, eps)
    hidden = hidden.view(batch, height, width, -1)
    predicted = static_conv_forward(hidden, last_weight, last_bias, geometry)
    return predicted, (shares, of_rows, reduced, hidden)


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
        shares, of_rows, reduced, hidden = steps
        eps, geometry = ctx.options
        g_hidden, *g_last = static_conv_backward(grad, hidden, last_weight, True, geometry)
        g_reduced, g_shares, *g_norm = norm_relu_backward(
            g_hidden.flatten(1, 2), reduced, shares, scale, shift, eps
        )
        g_reduced = g_reduced.flatten(0, 1)  # [B·P, C']
        g_rows = g_prior = None
        if ctx.needs_input_grad[0]:
            g_rows = torch.mm(g_reduced, of_rows).view(rows.shape)
        length = prior.shape[1]
        if ctx.needs_input_grad[1]:
            of_prior = reduce_weight.flatten(1)[:, :length]
            g_prior = torch.mm(g_shares, of_prior.to(g_shares.dtype))
        by_prior = torch.mm(g_shares.t(), prior.to(g_shares.dtype))
        by_rows = torch.mm(g_reduced.t(), rows.flatten(0, 2))
        g_weight = torch.cat([by_prior, by_rows], 1).view(reduce_weight.shape)
        return g_rows, g_prior, g_weight, g_shares.sum(0), *g_norm, *g_last, None


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
        rows (Tensor): The map, (B, H, W, C), contiguous.
        prior (Tensor): (B, P), of the parameters' type.
        reduce_weight (Tensor): (C', P + C, 1, 1).
        reduce_bias, scale, shift (Tensor): (C',), the latter two of the norm.
        last_weight (Tensor): (N, C' or 1, kh, kw).
        last_bias (Tensor): (N,).
        eps (float): Of the norm.
        geometry (tuple): Stride, padding and dilation of the last layer.

    Returns:
        Tensor: (B, H_out, W_out, N), in float32.
    """
    arguments = (
        rows, prior, reduce_weight, reduce_bias, scale, shift, last_weight, last_bias,
        (eps, geometry),
    )  # fmt: skip
    if torch.is_grad_enabled():
        return SamplingOffsetPredictor.apply(*arguments)
    return predict(*arguments)[0]
