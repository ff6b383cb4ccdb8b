"""Steps of the predictors, in Triton kernels on a GPU or in PyTorch."""

import os
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from mmctx.compat.exporting import is_exporting

from .contextual_conv import BACKEND_VARIABLE, ON_CUDA
from .sampling import Pair
from .triton import sampling_offset_predictor
from .triton.operator import needs_operators
from .triton.predictor_operators import norm_relu_operator, static_conv_triton

KERNEL_TYPES = torch.float16, torch.bfloat16, torch.float32


def runs_kernels(x: Tensor) -> bool:
    """Whether the predictors of a map run in Triton kernels.

    They do if its contextual convolution does, but not while something other than a compiler needs
    to see every operation, such as an exporter, a tracer or a FLOPs counter.

    Args:
        x (Tensor): The map.
    """
    backend = os.environ.get(BACKEND_VARIABLE)
    backend = backend or (ON_CUDA if x.device.type == 'cuda' else 'tapwise')
    if backend != 'triton' or x.dtype not in KERNEL_TYPES:
        return False
    if torch.compiler.is_compiling():
        return not is_exporting()
    return not needs_operators(x)


def launches_kernels(x: Tensor) -> bool:
    """Whether steps on a map run in Triton kernels that no compiler has to know as operators.

    Args:
        x (Tensor): The map, or vectors in its place.
    """
    return not torch.compiler.is_compiling() and runs_kernels(x)


def norm_relu(x: Tensor, shares: Tensor, scale: Tensor, shift: Tensor, eps: float) -> Tensor:
    """ReLU(LayerNorm(x + shares)) over channels, in one kernel each forward and backward.

    Args:
        x (Tensor): Map, (B, H, W, C).
        shares (Tensor): Vector of each image that is added to all of its pixels, (B, C).
        scale, shift (Tensor): Scale and shift of the norm, (C,).
        eps (float): Epsilon of the norm.

    Returns:
        Tensor: Map of the shape of x, computed in float32 at least. Its type is that of x if
        kernels compute it, otherwise that of `scale`.
    """
    if runs_kernels(x):
        return norm_relu_operator(x.flatten(1, 2), shares, scale, shift, eps).view(x.shape)
    x = x + shares[:, None, None].to(x.dtype)
    return F.layer_norm(x.to(scale.dtype), scale.shape, scale, shift, eps).relu_()


def conv2d_in_float32(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    stride: Pair,
    padding: Pair,
    dilation: Pair,
    groups: int,
) -> Tensor:
    """Convolution of a map that may be of half precision, with sums and result in float32 at least.

    Args:
        x (Tensor): Map, (B, C, H, W).
        weight (Tensor): Kernel, (C_out, C, kh, kw) dense or (C, 1, kh, kw) depthwise.
        bias (Tensor, optional): Bias, (C_out,).
        stride, padding, dilation (tuple[int, int]): Same as in `nn.Conv2d`.
        groups (int): 1 for a dense convolution, C for a depthwise one.

    Returns:
        Tensor: Result, (B, C_out, H_out, W_out), channels last in memory if kernels compute it.
    """
    if runs_kernels(x):
        rows = x.permute(0, 2, 3, 1).contiguous()
        out = static_conv_triton(rows, weight, bias, stride, padding, dilation)
        return out.permute(0, 3, 1, 2)
    dtype = torch.promote_types(weight.dtype, torch.float32)
    bias = None if bias is None else bias.to(dtype)
    return F.conv2d(x.to(dtype), weight.to(dtype), bias, stride, padding, dilation, groups)


def predict_sampling_offset(x: Tensor, *arguments) -> Tensor:
    """Run a sampling offset predictor with a LayerNorm in one step.

    For maps for which `launches_kernels` is true.

    Args:
        x (Tensor): Map, (B, C, H, W).
        *arguments: Same as in `sampling_offset_predictor.predict_sampling_offset`, without the map.

    Returns:
        Tensor: Result, (B, N, H_out, W_out), in float32, channels last in memory.
    """
    rows = x.permute(0, 2, 3, 1).contiguous()
    return sampling_offset_predictor.predict_sampling_offset(rows, *arguments).permute(0, 3, 1, 2)


def infers_in_kernels(x: Tensor, *norms: nn.Module) -> bool:
    """Whether both predictors run in the few kernels that serve inference alone.

    They do if they run in kernels, nothing will ask for gradients, and batch norms use the
    statistics that they have.

    Args:
        x (Tensor): The map.
        *norms (nn.Module): Norms of the predictors.
    """
    if torch.is_grad_enabled() or not launches_kernels(x):
        return False
    for norm in norms:
        fixed = isinstance(norm, _BatchNorm) and not norm.training and norm.running_mean is not None
        if not fixed and not isinstance(norm, nn.LayerNorm):
            return False
    return True


def infer_offsets(
    x: Tensor,
    prior: Tensor,
    sampling: Any,
    weight: Any,
    geometry: tuple[Pair, Pair, Pair],
) -> tuple[Tensor, Tensor]:
    """Run both predictors, for maps and norms for which `infers_in_kernels` is true.

    Args:
        x (Tensor): Map, (B, C, H, W).
        prior (Tensor): Prior of each image, (B, P), in the type of the parameters.
        sampling (nn.Sequential): 1×1 convolution, norm, ReLU and last convolution.
        weight (nn.Sequential): Linear layer, norm, ReLU and last linear layer.
        geometry (tuple): Stride, padding and dilation of the last convolution.

    Returns:
        tuple[Tensor, Tensor]: Δp, and mask logits if there are any, (B, N, H_out, W_out), in
        float32 and channels last in memory; Δw, (B, M), in the type of the parameters.
    """
    from .triton.fixed_norm import Norm
    from .triton.offset_inference import hidden_rows, hidden_vectors
    from .triton.static_conv import static_conv_forward

    reduce, norm, _, last = sampling
    rows = x.permute(0, 2, 3, 1)
    hidden, sums = hidden_rows(rows, prior, reduce.weight, reduce.bias, Norm.of(norm))
    predicted = static_conv_forward(hidden, last.weight, last.bias, geometry).permute(0, 3, 1, 2)
    first, norm, _, last = weight
    pixels = rows.shape[1] * rows.shape[2]
    vectors = hidden_vectors(prior, sums, pixels, first.weight, first.bias, Norm.of(norm))
    return predicted, F.linear(vectors.to(last.weight.dtype), last.weight, last.bias)
