"""Steps of contextualizing, and of vectors in general, in Triton kernels on a GPU or in PyTorch."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .predicting import launches_kernels

# What one program can rank.
MOST_CLASSES = 8192


def infer_vector_step(x: Tensor, weight: Tensor, bias: Tensor, norm: nn.Module) -> Tensor:
    """ReLU(norm(linear layer)) of vectors, where `infers_in_kernels` is true.

    Args:
        x (Tensor): Vectors, (N, C_in), in the type of the parameters.
        weight (Tensor): Weight of the layer, (C_out, C_in).
        bias (Tensor): Bias of the layer, (C_out,).
        norm (nn.Module): Norm of C_out channels.

    Returns:
        Tensor: Results, (N, C_out).
    """
    from .triton.fixed_norm import Norm, norm_relu_vectors

    return norm_relu_vectors(F.linear(x, weight), bias, Norm.of(norm))


def unit_vectors(x: Tensor, log_length: Tensor | None = None) -> Tensor:
    """Vectors, (N, D), scaled to length 1, as `F.normalize`, or to a length that is learned.

    Args:
        x (Tensor): Vectors, of float32 at least.
        log_length (Tensor, optional): Logarithm of their length, one number. Defaults to None.

    Returns:
        Tensor: Vectors of that length; zeros for zeros.
    """
    if x.dtype == torch.float32 and launches_kernels(x):
        from .triton.unit_vectors import UnitVectors, unit_vectors_forward

        if torch.is_grad_enabled():
            return UnitVectors.apply(x, log_length)
        return unit_vectors_forward(x, log_length)
    unit = x / torch.linalg.vector_norm(x, dim=1, keepdim=True).clamp_min(1e-12)
    return unit if log_length is None else unit * log_length.exp()


def trains_batch_norm_in_kernels(x: Tensor, norm: nn.Module) -> bool:
    """Whether `batch_norm_step` can run a norm in training.

    Args:
        x (Tensor): Vectors, (N, C_in).
        norm (nn.Module): The norm behind a linear layer.
    """
    if not norm.training or not launches_kernels(x):
        return False
    from .triton.batch_norm import takes_batch_norm

    return takes_batch_norm(norm)


def train_batch_norm_step(x: Tensor, weight: Tensor, bias: Tensor, norm: Any) -> Tensor:
    """ReLU(batch norm(linear layer)) of vectors, where `trains_batch_norm_in_kernels` is true.

    Args:
        x (Tensor): Vectors, (N, C_in), N at least 2, in the type of the parameters.
        weight (Tensor): Weight of the layer, (C_out, C_in).
        bias (Tensor): Bias of the layer, (C_out,).
        norm (nn.BatchNorm1d): Norm of C_out channels, whose running statistics are updated.

    Returns:
        Tensor: Results, (N, C_out).
    """
    from .triton.batch_norm import BatchNormStep

    return BatchNormStep.apply(x, weight, bias, norm.weight, norm.bias, norm)


def choose_kept_classes(logits: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """Kept classes of a stage in training, for maps for which `launches_kernels` is true.

    Args:
        logits (Tensor): Of all classes, (B, N), in float32, −inf for those that may not be kept.
        count (int): Number of classes to keep.

    Returns:
        tuple[Tensor, Tensor]: See `keeping.choose_classes`.
    """
    from .triton.keeping import choose_classes

    return choose_classes(logits, count)


def infer_kept_classes(
    images: Tensor, classes: Tensor, before: Tensor | None, count: int | None
) -> tuple[Tensor, Tensor | None, Tensor | None]:
    """Logits and kept classes of a stage, where `infers_in_kernels` is true.

    Args:
        images (Tensor): Image embeddings of any length, (B, d), in float32.
        classes (Tensor): Class directions, (N, d), in float32.
        before (Tensor, optional): Whether a class may be kept, (B, N), bool; None for all.
        count (int, optional): Number of classes to keep; None if the stage is the last.

    Returns:
        tuple: See `keeping.keep_classes`.
    """
    from .triton.keeping import keep_classes

    return keep_classes(images @ classes.t(), images, before, count)
