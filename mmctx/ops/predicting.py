"""Steps of the sampling offset predictor on a map: in Triton kernels on a GPU, else in PyTorch."""

import os

import torch
import torch.nn.functional as F
from torch import Tensor

from .contextual_conv import BACKEND_VARIABLE, ON_CUDA
from .sampling import Pair
from .triton import sampling_offset_predictor
from .triton.predictor_operators import norm_relu_operator, static_conv_triton

KERNEL_TYPES = torch.float16, torch.bfloat16, torch.float32


def runs_kernels(x: Tensor) -> bool:
    """Whether x's predictors run in Triton kernels: where its contextual convolution does.

    Not where something looks at every operation: tracing, counting, or tensors without values.
    """
    backend = os.environ.get(BACKEND_VARIABLE)
    backend = backend or (ON_CUDA if x.device.type == 'cuda' else 'tapwise')
    if backend != 'triton' or x.dtype not in KERNEL_TYPES:
        return False
    if torch.compiler.is_compiling():
        return True
    return not (torch._C._len_torch_dispatch_stack() or torch.jit.is_tracing())


def norm_relu(x: Tensor, shares: Tensor, scale: Tensor, shift: Tensor, eps: float) -> Tensor:
    """ReLU(LayerNorm(x + shares)) over channels, in one kernel each forward and backward.

    Args:
        x (Tensor): (B, H, W, C).
        shares (Tensor): (B, C), added to all pixels of an image.
        scale, shift (Tensor): Of the norm, (C,).
        eps (float): Of the norm.

    Returns:
        Tensor: Of the shape of x; the norm is computed in float32 at least. From the kernels of
        the type of x, else of that of `scale`.
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
        x (Tensor): (B, C, H, W).
        weight, bias (Tensor): As of `nn.Conv2d`, dense or depthwise.
        stride, padding, dilation (tuple[int, int]): As of `nn.Conv2d`.
        groups (int): 1 or C.

    Returns:
        Tensor: (B, C_out, H_out, W_out); from the kernels channels last in memory.
    """
    if runs_kernels(x):
        rows = x.permute(0, 2, 3, 1).contiguous()
        out = static_conv_triton(rows, weight, bias, stride, padding, dilation)
        return out.permute(0, 3, 1, 2)
    dtype = torch.promote_types(weight.dtype, torch.float32)
    bias = None if bias is None else bias.to(dtype)
    return F.conv2d(x.to(dtype), weight.to(dtype), bias, stride, padding, dilation, groups)


def predict_sampling_offset(x: Tensor, *arguments) -> Tensor:
    """The sampling offset predictor with a LayerNorm, in one step.

    For maps of which `runs_kernels` is true, and not under a compiler.

    Args:
        x (Tensor): (B, C, H, W).
        *arguments: As of `sampling_offset_predictor.predict_sampling_offset`.

    Returns:
        Tensor: (B, N, H_out, W_out) in float32, channels last in memory.
    """
    rows = x.permute(0, 2, 3, 1).contiguous()
    return sampling_offset_predictor.predict_sampling_offset(rows, *arguments).permute(0, 3, 1, 2)
