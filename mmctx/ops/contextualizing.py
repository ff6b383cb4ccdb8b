"""Steps of contextualizing, and of vectors in general, in Triton kernels on a GPU or in PyTorch."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .predicting import infers_in_kernels, launches_kernels

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
    """Whether `train_batch_norm_step` can run a norm in training.

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


class ClassVectors(NamedTuple):
    """What the stages of a network need of the classes alone, whatever the images.

    Attributes:
        directions (Tensor): Class embeddings of the learned length, (N, d), in float32 at least.
        hidden (Sequence[Tensor], optional): For each merging layer ReLU(norm(linear layer)) of the
            class embeddings, (N, H), in float32; None where the stages do not run in kernels.
    """

    directions: Tensor
    hidden: Sequence[Tensor] | None


def make_class_vectors(
    embeddings: Tensor, log_length: Tensor, steps: Sequence[nn.Sequential], normalize: bool
) -> ClassVectors | None:
    """Class vectors by one kernel, where `launches_kernels` is true of embeddings.

    Args:
        embeddings (Tensor): Class embeddings, (N, d).
        log_length (Tensor): Logarithm of the length of the directions, one number.
        steps (Sequence[nn.Sequential]): Linear layer, LayerNorm and ReLU of each merging layer.
        normalize (bool): Whether merging layers see embeddings scaled to length √d.

    Returns:
        ClassVectors | None: The vectors; None if they are not what the kernel is made for.
    """
    from .triton.class_vectors import (
        MOST_LENGTH,
        MOST_MERGINGS,
        ClassStep,
        ClassVectorsOf,
        class_vectors_forward,
    )

    if not 1 <= len(steps) <= MOST_MERGINGS or len(embeddings) > MOST_CLASSES:
        return None
    found, kinds = [], set()
    for fc, norm, _ in steps:
        found.append(ClassStep(fc.weight, fc.bias, norm.weight, norm.bias))
        kinds.add((fc.weight.shape, fc.weight.dtype, norm.eps))
    (hidden, length), dtype, eps = kinds.pop()
    if kinds or max(hidden, length) > MOST_LENGTH:
        return None
    if not torch.is_grad_enabled():
        directions, vectors, *_ = class_vectors_forward(
            embeddings, log_length, found, eps, normalize
        )
        return ClassVectors(directions, vectors)
    if normalize or {embeddings.dtype, log_length.dtype, dtype} != {torch.float32}:
        return None
    parameters = [tensor for step in found for tensor in step]
    directions, *vectors = ClassVectorsOf.apply(embeddings, log_length, eps, *parameters)
    return ClassVectors(directions, vectors)


def runs_stage_in_kernels(x: Tensor, classifying: nn.Sequential) -> bool:
    """Whether `run_stage` can run a stage, given class vectors with hidden ones.

    Args:
        x (Tensor): Features, (B, C, H, W).
        classifying (nn.Sequential): Linear layer, norm, ReLU and linear layer.
    """
    fc, norm, *_ = classifying
    if not torch.is_grad_enabled():
        return infers_in_kernels(x, norm)
    if not launches_kernels(x) or fc.weight.dtype != torch.float32:
        return False
    if fc.weight.device != x.device:
        return False
    if isinstance(norm, nn.LayerNorm):
        return len(x) > 0
    from .triton.batch_norm import takes_batch_norm

    if takes_batch_norm(norm):
        return len(x) > 1
    return not norm.training and norm.running_mean is not None and norm.affine and len(x) > 0


def run_stage(
    x: Tensor,
    directions: Tensor,
    hidden: Tensor | None,
    before: Tensor | None,
    keep: int | None,
    classifying: nn.Sequential,
    joint: nn.Sequential | None,
) -> tuple[Tensor, Tensor | None, Tensor | None]:
    """What a stage concludes, where `runs_stage_in_kernels` is true.

    Args:
        x (Tensor): Features, (B, C, H, W).
        directions (Tensor): Class directions, (N, d), in float32.
        hidden (Tensor, optional): Hidden vectors of the merging layer, (N, H), in float32; None if
            the stage is the last.
        before (Tensor, optional): Whether a class may be kept, (B, N), bool; None for all.
        keep (int, optional): Number of classes to keep; None if the stage is the last.
        classifying (nn.Sequential): Linear layer, norm, ReLU and linear layer.
        joint (nn.Sequential, optional): Linear layer, LayerNorm and ReLU that make the prior; None
            if the stage is the last.

    Returns:
        tuple: Logits, (B, N), in float32; whether a class is kept, (B, N); prior, (B, P). The last
        two are None in the last stage.
    """
    from .triton import stage

    return stage.run_stage(x, directions, hidden, before, keep, classifying, joint)
