"""The loss over all stages, α(L₁ + L₂ + L₃) + L₄ (Sec. 3.3)."""

from collections.abc import Sequence

import torch
import torch.nn as nn
import torch.nn.functional as F
from torch import Tensor

from mmctx.registry import MODELS


@MODELS.register_module()
class StagewiseCrossEntropy(nn.Module):
    """Cross entropy of each stage over the classes that it considers.

    A sample counts in a stage where its main label is considered. Its target is the label confined
    to the considered classes and renormalised, then smoothed over them. A stage's loss is the mean
    over the samples that count, zero where there are none.

    Args:
        stage_weights (Sequence[float]): Weight of each stage's loss. Defaults to the paper's
            (0.15, 0.15, 0.15, 1.0).
        label_smoothing (float): Share of the target spread over the considered classes, from 0 to
            1. Defaults to 0.
    """

    def __init__(
        self,
        stage_weights: Sequence[float] = (0.15, 0.15, 0.15, 1.0),
        label_smoothing: float = 0.0,
    ):
        super().__init__()
        if not 0 <= label_smoothing <= 1:
            raise ValueError(f'label_smoothing should be from 0 to 1, got {label_smoothing}')
        self.stage_weights = tuple(stage_weights)
        self.label_smoothing = label_smoothing

    def forward(self, stage_logits: Sequence[Tensor], target: Tensor) -> list[Tensor]:
        """Weighted loss of each stage.

        Args:
            stage_logits (Sequence[Tensor]): (B, N₁) each, −inf for classes not considered.
            target (Tensor): Labels (B,), int64, or scores of all classes (B, N₁), as Mixup and
                CutMix make them.

        Returns:
            list[Tensor]: A scalar for each stage.

        Raises:
            ValueError: The number of stages is not the number of weights, or the target is neither
            labels nor scores.
        """
        if len(stage_logits) != len(self.stage_weights):
            raise ValueError(
                f'{len(stage_logits)} stages for {len(self.stage_weights)} stage_weights'
            )
        if target.ndim == 1:
            target = F.one_hot(target.long(), stage_logits[0].shape[1])
        if target.shape != stage_logits[0].shape:
            raise ValueError(
                f'target should be of shape {tuple(stage_logits[0].shape)} or '
                f'{tuple(stage_logits[0].shape[:1])}, got {tuple(target.shape)}'
            )
        return [w * self._stage(s, target) for w, s in zip(self.stage_weights, stage_logits)]

    def _stage(self, logits: Tensor, target: Tensor) -> Tensor:
        considered = logits > -torch.inf  # [B, N₁]
        counts = considered.gather(1, target.argmax(1, keepdim=True)).squeeze(1)
        restricted = target.to(logits.dtype) * considered
        tiny = torch.finfo(logits.dtype).tiny
        restricted = restricted / restricted.sum(1, keepdim=True).clamp(min=tiny)
        if self.label_smoothing:
            uniform = considered / considered.sum(1, keepdim=True)
            restricted = torch.lerp(restricted, uniform.to(logits.dtype), self.label_smoothing)
        log_probs = F.log_softmax(logits, dim=1).masked_fill(~considered, 0)
        losses = -(restricted * log_probs).sum(1)
        return (losses * counts).sum() / counts.sum().clamp(min=1)
