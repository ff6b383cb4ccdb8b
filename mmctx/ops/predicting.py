"""Steps of the predictors, in Triton kernels on a GPU or in PyTorch."""

import os
from functools import lru_cache
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd import forward_ad
from torch.nn.modules.batchnorm import _BatchNorm

from mmctx.compat.exporting import is_exporting

from .contextual_conv import BACKEND_VARIABLE, ON_CUDA
from .sampling import Pair
from .triton.operator import check_device, needs_operators
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
    if torch.compiler.is_compiling():
        return False
    # Kernels drop the tangents of forward-mode derivatives.
    return forward_ad._current_level < 0 and runs_kernels(x)


def norm_relu(x: Tensor, shares: Tensor, scale: Tensor, shift: Tensor, eps: float) -> Tensor:
    """ReLU(LayerNorm(x + shares)) over channels, in one kernel forward and two backward.

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


def infers_in_kernels(x: Tensor, *norms: nn.Module) -> bool:
    """Whether steps run in the few kernels that serve inference alone.

    They do if they run in kernels, nothing will ask for gradients, and batch norms use the
    statistics that they have.

    Args:
        x (Tensor): The map, or vectors in its place.
        *norms (nn.Module): Norms of the steps.
    """
    if torch.is_grad_enabled() or not launches_kernels(x):
        return False
    for norm in norms:
        fixed = isinstance(norm, _BatchNorm) and not norm.training and norm.running_mean is not None
        if not fixed and not isinstance(norm, nn.LayerNorm):
            return False
    return True


def layer_in_kernels(layer: Any, x: Tensor, prior: Tensor) -> Tensor | None:
    """Run predictors and convolution as one step on a GPU.

    Args:
        layer (ContextualConv2d): The layer.
        x (Tensor): Map, (B, C, H, W), of the type that autocast gives it.
        prior (Tensor): Prior of each image, (B, N).

    Returns:
        Tensor | None: The output, (B, C_out, H_out, W_out), channels last in memory; None if
        kernels cannot compute it: where `launches_kernels` is false, or a norm is none that they
        know, such as one that synchronises processes, or gradients are asked for of parameters of
        half precision.

    Raises:
        ValueError: The shapes of map and kernel do not fit each other.
        NotImplementedError: Kernels are asked for without a GPU.
    """
    known = _known(layer, x, prior)
    return None if known is None else _kernels().contextual_layer(known, x, prior)


def offsets_in_kernels(
    layer: Any, x: Tensor, prior: Tensor
) -> tuple[Tensor | None, Tensor | None] | None:
    """Run the predictors alone, in inference; takes the arguments of `layer_in_kernels`.

    Returns:
        tuple | None: Δp, and mask logits if there are any, (B, N, H_out, W_out), in float32 and
        channels last in memory; Δw, (B, M), in the type of the parameters; each None without a
        predictor. None if gradients may be asked for or kernels cannot compute it.
    """
    known = None if torch.is_grad_enabled() else _known(layer, x, prior)
    if known is None:
        return None
    predicted, weight_offset = _kernels().predict_offsets(known, x, prior)
    return None if predicted is None else predicted.permute(0, 3, 1, 2), weight_offset


@lru_cache(1)
def _kernels():
    """The module that runs layers in kernels, imported at the first call."""
    from .triton import contextual_layer

    return contextual_layer


def _known(layer: Any, x: Tensor, prior: Tensor) -> Any:
    """The layer as its kernels take it; None if they cannot take the call."""
    if not launches_kernels(x) or not x.numel():
        return None
    device = x.device
    check_device(device)
    geometry = layer.stride, layer.padding, layer.dilation
    known = layer.memory.recall(layer, geometry, lambda: _kernels().KnownLayer.of(layer))
    # Kernels get addresses alone, so PyTorch's own operators are to refuse what is elsewhere.
    if known is None or known.device != device or prior.device != device:
        return None
    if torch.is_grad_enabled() and known.dtype != torch.float32:
        return None
    return None if known.lacks_statistics(x) else known
