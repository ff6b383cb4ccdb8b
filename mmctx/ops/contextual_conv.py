"""The contextual convolution as users call it: checks the arguments and chooses a back end."""

import os
from collections.abc import Callable, Sequence
from functools import lru_cache

import torch
from torch import Tensor
from torch.autograd import forward_ad

from mmctx.compat.exporting import is_exporting
from mmctx.errors import UserError

from .exporting import contextual_conv2d_in_standard_operators
from .reference import contextual_conv2d_reference
from .sampling import Pair
from .shapes import check_shapes
from .tapwise import contextual_conv2d_tapwise
from .triton import HAS_TRITON, contextual_conv2d_triton

BACKENDS: dict[str, Callable[..., Tensor]] = {
    'reference': contextual_conv2d_reference,
    'tapwise': contextual_conv2d_tapwise,
    'triton': contextual_conv2d_triton,
}
BACKEND_VARIABLE = 'MMCTX_BACKEND'
ON_CUDA = 'triton' if HAS_TRITON else 'tapwise'


# Layers repeat their shapes.
_check_shapes_once = lru_cache(4096)(check_shapes)


def contextual_conv2d(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    *,
    sampling_offset: Tensor | None = None,
    weight_offset: Tensor | None = None,
    mask: Tensor | None = None,
    mask_logits: Tensor | None = None,
    stride: int | tuple[int, int] = 1,
    padding: int | tuple[int, int] = 0,
    dilation: int | tuple[int, int] = 1,
    backend: str | None = None,
) -> Tensor:
    """Convolve with sampling positions of each pixel and a kernel of each image.

    y(p) = Σ_k m(k) · (w(k) + Δw(k)) · x(p + g(k) + Δp(k)), Eq. 4 of "Contextual Convolutional
    Networks", with DCNv2's modulation m where a mask is given. Samples are bilinear and zero
    outside the image. The convolution is depthwise if each output channel of the weight has one
    input channel (C_out = C_in, second axis 1), otherwise dense.

    Args:
        x (Tensor): Images, (B, C_in, H, W).
        weight (Tensor): Static kernel w: (C, 1, kh, kw) depthwise, (C_out, C_in, kh, kw) dense.
        bias (Tensor, optional): Bias, (C_out,). Defaults to None.
        sampling_offset (Tensor, optional): Δp in pixels of x, (B, 2·kh·kw, H_out, W_out),
            interleaved (Δy, Δx) for the taps in row-major order, as in torchvision. Defaults to
            None, zero.
        weight_offset (Tensor, optional): Δw: (B, C, 1, kh, kw) depthwise; (B, 1, C_in, kh, kw)
            dense, shared by all output channels. Defaults to None, zero.
        mask (Tensor, optional): Modulation m, (B, kh·kw, H_out, W_out). Defaults to None, one.
        mask_logits (Tensor, optional): Modulation m before the sigmoid, instead of `mask`; the
            Triton kernels compute the sigmoid themselves. Defaults to None.
        stride (int | tuple[int, int]): Stride in pixels. Defaults to 1.
        padding (int | tuple[int, int]): Padding by zeros, in pixels. Defaults to 0.
        dilation (int | tuple[int, int]): Distance between taps, in pixels. Defaults to 1.
        backend (str, optional): `reference`, `tapwise` or `triton`. Defaults to None: what the
            environment variable MMCTX_BACKEND names, else `triton` on a GPU where it is installed,
            else `tapwise`. While a network is exported (`torch.export`, ONNX), None stands for
            standard operators of PyTorch.

    Returns:
        Tensor: Result, (B, C_out, H_out, W_out), in x's type; autocast casts x as it does for
        `F.conv2d`. Positions, Δw and sums are always computed in float32 at least.

    Under `torch.use_deterministic_algorithms(True)` gradients are the same in every run.
    sampling_offset and mask may be slices of one tensor, in any memory format; neither is copied on
    a GPU.

    Raises:
        ValueError: x holds integers, a shape does not fit the others, the kernel does not fit the
            padded image, or mask and mask_logits are both given.
        UserError: Stride, padding or dilation is out of range, or there is no back end of that
            name.
        NotImplementedError: `triton` is chosen without a GPU or without the package, or a back end
            other than `reference` is asked for forward-mode or second derivatives, or for those of
            `torch.func`.
    """
    stride, padding, dilation = check_geometry(stride, padding, dilation)
    if mask is not None and mask_logits is not None:
        raise ValueError('give mask or mask_logits, not both')
    if not x.is_floating_point():
        raise ValueError(f'x should be of a floating-point type, got {x.dtype}')
    if backend is None and is_exporting():
        mask = mask if mask_logits is None else mask_logits.sigmoid()
        return contextual_conv2d_in_standard_operators(
            x, weight, bias, sampling_offset, weight_offset, mask, stride, padding, dilation
        )
    either = mask if mask_logits is None else mask_logits
    shapes = [
        None if t is None else t.shape for t in (bias, sampling_offset, weight_offset, either)
    ]
    # A compiler does not trace caches, and symbolic sizes have no hash.
    symbolic = torch.compiler.is_compiling() or not all(type(n) is int for n in x.shape)
    check = check_shapes if symbolic else _check_shapes_once
    check(x.shape, weight.shape, *shapes, stride, padding, dilation)
    name = backend or os.environ.get(BACKEND_VARIABLE)
    name = name or (ON_CUDA if x.device.type == 'cuda' else 'tapwise')
    if name not in BACKENDS:
        raise UserError(f'no back end {name!r} (`backend` or {BACKEND_VARIABLE}): {list(BACKENDS)}')
    if name != 'reference':
        _refuse_transforms(name, x, weight, bias, sampling_offset, weight_offset, either)
    options = {}
    if mask_logits is not None and name == 'triton':
        mask, options = mask_logits, dict(mask_is_logits=True)
    elif mask_logits is not None:
        mask = mask_logits.sigmoid()
    geometry = stride, padding, dilation
    device = x.device.type
    if device == 'meta' or not torch.is_autocast_enabled(device):
        return BACKENDS[name](
            x, weight, bias, sampling_offset, weight_offset, mask, *geometry, **options
        )
    if x.dtype != torch.float64:
        x = x.to(torch.get_autocast_dtype(device))
    if name == 'triton':
        # Its kernels call nothing that autocast changes.
        return BACKENDS[name](
            x, weight, bias, sampling_offset, weight_offset, mask, *geometry, **options
        )
    # Back ends choose their types themselves; positions in particular must stay in float32.
    with torch.autocast(device, enabled=False):
        return BACKENDS[name](
            x, weight, bias, sampling_offset, weight_offset, mask, *geometry, **options
        )


def check_geometry(
    stride: int | Sequence[int], padding: int | Sequence[int], dilation: int | Sequence[int]
) -> tuple[Pair, Pair, Pair]:
    """Each as a pair, (vertical, horizontal), in pixels.

    Raises:
        UserError: One of them is no whole number, or no pair of them, or is too small.
    """
    return _pair('stride', stride, 1), _pair('padding', padding, 0), _pair('dilation', dilation, 1)


def _pair(name: str, value: int | Sequence[int], least: int) -> Pair:
    if type(value) is int and value >= least:
        return value, value
    pair = tuple(value) if isinstance(value, (tuple, list)) else (value, value)
    if len(pair) != 2 or not all(isinstance(n, (int, torch.SymInt)) for n in pair):
        raise UserError(f'{name} should be a whole number of pixels or two, got {value!r}')
    if min(pair) < least:
        raise UserError(f'{name} should be at least {least}, got {value!r}')
    return pair


def _refuse_transforms(backend: str, *inputs: Tensor | None):
    if torch.compiler.is_compiling():
        return
    # An operator of torch.library drops tangents silently. There are none outside of forward mode.
    if forward_ad._current_level >= 0 and any(
        t is not None and forward_ad.unpack_dual(t).tangent is not None for t in inputs
    ):
        raise NotImplementedError(
            f"back end '{backend}' has no forward-mode derivatives: pass backend='reference'"
        )
    if torch._C._functorch.peek_interpreter_stack() is not None and any(map(_is_tracked, inputs)):
        raise NotImplementedError(
            f"back end '{backend}' has no derivatives by torch.func: pass backend='reference'"
        )


def _is_tracked(tensor: Tensor | None) -> bool:
    """Whether `torch.func.grad` or one of its kin differentiates by a tensor."""
    functorch = torch._C._functorch
    while tensor is not None and functorch.is_functorch_wrapped_tensor(tensor):
        if functorch.is_gradtrackingtensor(tensor):
            return True
        tensor = functorch.get_unwrapped(tensor)
    return False
