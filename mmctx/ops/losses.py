"""Cross entropies of all stages at once, in Triton kernels on a GPU."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from .contextualizing import MOST_CLASSES
from .predicting import launches_kernels


def takes_stage_losses(stage_logits: Sequence[Tensor], target: Tensor) -> bool:
    """Whether `stage_losses` can compute the losses of some logits.

    Args:
        stage_logits (Sequence[Tensor]): Logits of each stage, (B, N).
        target (Tensor): Labels, (B,), or scores, (B, N).
    """
    first = stage_logits[0]
    if not launches_kernels(first) or not first.numel() or first.shape[1] > MOST_CLASSES:
        return False
    if target.device != first.device or target.requires_grad:
        return False
    from .triton.stage_losses import MOST_STAGES

    alike = all(x.dtype == torch.float32 and x.shape == first.shape for x in stage_logits)
    return alike and len(stage_logits) <= MOST_STAGES


def stage_losses(
    stage_logits: Sequence[Tensor],
    target: Tensor,
    weights: Sequence[float],
    smoothing: float,
    processes: int,
    all_reduce: Callable[[Tensor], object],
) -> list[Tensor]:
    """Weighted mean loss of each stage, where `takes_stage_losses` is true.

    Args:
        stage_logits (Sequence[Tensor]): Logits of each stage, (B, N), −∞ for the classes that it
            does not consider.
        target (Tensor): Labels, (B,), or scores of all classes, (B, N).
        weights (Sequence[float]): Weight of each stage's loss.
        smoothing (float): Share of the target that is spread evenly over the considered classes.
        processes (int): Number of processes that train together.
        all_reduce (Callable): Adds a tensor up over all processes in place.

    Returns:
        list[Tensor]: A scalar for each stage, NaN if a label is not the number of a class.
    """
    from .triton import stage_losses as kernels

    return kernels.stage_losses(stage_logits, target, weights, smoothing, processes, all_reduce)
