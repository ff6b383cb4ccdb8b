"""Replacement of `mmcv._ext` for an mmcv without compiled ops (mmcv-lite).

NMS and RoIAlign run on torchvision's compiled kernels, on every device that these support. What
:mod:`mmctx.compat.mmcv_differentiable` has runs as functions of torchvision and PyTorch. All other
ops can be looked up, as mmcv does when it is imported, but raise an error when they are
called.
"""

from functools import cache
from importlib.metadata import PackageNotFoundError, version

import torch

from mmctx.compat.mmcv_differentiable import (  # noqa: F401
    deform_conv_backward_input,
    deform_conv_backward_parameters,
    deform_conv_forward,
    modulated_deform_conv_backward,
    modulated_deform_conv_forward,
    ms_deform_attn_backward,
    ms_deform_attn_forward,
    sigmoid_focal_loss_backward,
    sigmoid_focal_loss_forward,
)
from mmctx.errors import Unavailable, UserError

_REMEDY = (
    'to have it, build mmcv with its ops: `MMCV_WITH_OPS=1 pip install --no-build-isolation '
    "'mmcv>=2.0.1,<2.2.0'` (with setuptools<82, wheel and ninja installed)"
)


class MissingKernel(UserError, ImportError):
    """torchvision has no compiled kernels for this torch."""


@cache
def _kernel(name):
    try:
        import torchvision  # noqa: F401

        return getattr(torch.ops.torchvision, name)
    except (ImportError, RuntimeError, AttributeError) as error:
        try:
            found = f'torchvision {version("torchvision")}'
        except PackageNotFoundError:
            found = 'no torchvision'
        raise MissingKernel(
            f"mmcv.ops needs torchvision's compiled `{name}`, but {found} does not provide it with "
            f'torch {torch.__version__}: install the torchvision made for this torch'
        ) from error


def _compute_dtype(dtype):
    return dtype if dtype in (torch.float32, torch.float64) else torch.float32


def nms(boxes, scores, iou_threshold, offset):
    """Non-maximum suppression.

    Args:
        boxes (Tensor): Boxes (x1, y1, x2, y2) in pixels, of shape (N, 4).
        scores (Tensor): Scores, of shape (N,).
        iou_threshold (float): IoU with a better box above which a box is dropped.
        offset (int): 1 if the width of a box is x2 - x1 + 1, 0 if it is x2 - x1.

    Returns:
        Tensor: int64 indices of the boxes that are kept, by descending score, of shape (M,).
    """
    dtype = _compute_dtype(boxes.dtype)
    boxes = boxes.to(dtype)
    if offset:
        boxes = torch.cat((boxes[:, :2], boxes[:, 2:] + offset), dim=1)  # [N, 4]
    return _kernel('nms')(boxes, scores.to(dtype), iou_threshold)


def _check_average(pool_mode):
    if pool_mode != 1:
        raise Unavailable(f"roi_align with pool_mode='max' is not available; {_REMEDY}")


def roi_align_forward(
    input,
    rois,
    output,
    argmax_y,
    argmax_x,
    aligned_height,
    aligned_width,
    spatial_scale,
    sampling_ratio,
    pool_mode,
    aligned,
):
    """Average RoIAlign, written into `output`.

    Half precision is computed in float32.

    Args:
        input (Tensor): Features of shape (B, C, H, W).
        rois (Tensor): (batch index, x1, y1, x2, y2) in image pixels, of shape (N, 5).
        output (Tensor): Result, of shape (N, C, aligned_height, aligned_width).
        argmax_y (Tensor): Not used.
        argmax_x (Tensor): Not used.
        aligned_height (int): Height of the result.
        aligned_width (int): Width of the result.
        spatial_scale (float): Size of the features relative to the image.
        sampling_ratio (int): Samples per bin along each axis; 0 adapts it to the RoI's size.
        pool_mode (int): 1 for the average. 0, the maximum, is not available.
        aligned (bool): Whether pixel centres lie at half-integer coordinates.

    Raises:
        NotImplementedError: With `pool_mode` 0.
    """
    _check_average(pool_mode)
    dtype = _compute_dtype(input.dtype)
    output.copy_(
        _kernel('roi_align')(
            input.to(dtype),
            rois.to(dtype),
            spatial_scale,
            aligned_height,
            aligned_width,
            sampling_ratio,
            aligned,
        )
    )


def roi_align_backward(
    grad_output,
    rois,
    argmax_y,
    argmax_x,
    grad_input,
    aligned_height,
    aligned_width,
    spatial_scale,
    sampling_ratio,
    pool_mode,
    aligned,
):
    """Gradient of :func:`roi_align_forward`, written into `grad_input` of shape (B, C, H, W).

    On CUDA it uses atomic additions, and so raises an error with
    `torch.use_deterministic_algorithms(True)`.

    Raises:
        NotImplementedError: With `pool_mode` 0.
    """
    _check_average(pool_mode)
    dtype = _compute_dtype(grad_output.dtype)
    grad_input.copy_(
        _kernel('_roi_align_backward')(
            grad_output.to(dtype),
            rois.to(dtype),
            spatial_scale,
            aligned_height,
            aligned_width,
            *grad_input.shape,
            sampling_ratio,
            aligned,
        )
    )


def get_compiler_version():
    """Text for the compiler of mmcv's ops in mmcv's `collect_env`; there is no compiler."""
    return "n/a (mmcv without compiled ops, torchvision's are used)"


def get_compiling_cuda_version():
    """Text for the CUDA version of mmcv's ops in mmcv's `collect_env`; there is no such version."""
    return 'n/a'


def __getattr__(name):
    if name.startswith('_'):
        raise AttributeError(f'module {__name__!r} has no attribute {name!r}')

    def unavailable(*args, **kwargs):
        raise Unavailable(f'this mmcv has no compiled op `{name}`; {_REMEDY}')

    return unavailable
