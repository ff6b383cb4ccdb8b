"""The loss over all stages, α(L₁ + L₂ + L₃) + L₄ (Sec. 3.1, Eqs. 1 and 2)."""

from collections.abc import Sequence

import torch
import torch.nn as nn
import torch.nn.functional as F
from mmengine.dist import all_reduce, get_world_size
from torch import Tensor

from mmctx.errors import UserError
from mmctx.models.layers.reporting import current_listener
from mmctx.ops.losses import stage_losses, takes_stage_losses
from mmctx.registry import MODELS


@MODELS.register_module()
class StagewiseCrossEntropy(nn.Module):
    """Cross entropy of each stage over the classes that it considers.

    A sample counts in a stage if the stage considers its main label. Its target is the label
    restricted to the considered classes and renormalised, then smoothed over them. The loss of a
    stage is the mean over the samples that count, or zero if none counts.

    Args:
        stage_weights (Sequence[float]): Weight of each stage's loss. Defaults to
            (0.15, 0.15, 0.15, 1.0), the paper's α three times and 1.
        label_smoothing (float): Share of the target that is spread evenly over the considered
            classes, from 0 to 1. Defaults to 0.
    """

    def __init__(
        self,
        stage_weights: Sequence[float] = (0.15, 0.15, 0.15, 1.0),
        label_smoothing: float = 0.0,
    ):
        super().__init__()
        if not 0 <= label_smoothing <= 1:
            raise UserError(f'label_smoothing should be from 0 to 1, got {label_smoothing}')
        self.stage_weights = tuple(stage_weights)
        self.label_smoothing = label_smoothing

    def forward(self, stage_logits: Sequence[Tensor], target: Tensor) -> list[Tensor]:
        """Weighted loss of each stage; their sum is the loss of the network (Eq. 1).

        Args:
            stage_logits (Sequence[Tensor]): Logits of each stage, (B, N₁), −inf for the classes
                that it does not consider.
            target (Tensor): Labels (B,), int64, or scores of all classes (B, N₁), as Mixup and
                CutMix make them.

        Returns:
            list[Tensor]: A scalar for each stage.

        Raises:
            UserError: The number of stages is not the number of weights, or the target is neither
                labels nor scores.
        """
        if len(stage_logits) != len(self.stage_weights):
            raise UserError(
                f'{len(stage_logits)} stages for {len(self.stage_weights)} stage_weights'
            )
        listener = current_listener()
        if listener is not None:
            listener(self, target)
        shape, labelled = stage_logits[0].shape, target.ndim == 1
        if target.shape != (shape[:1] if labelled else shape):
            raise UserError(
                f'target should be of shape {tuple(shape)} or {tuple(shape[:1])}, '
                f'got {tuple(target.shape)}'
            )
        own = type(self)._sample_losses is StagewiseCrossEntropy._sample_losses
        if own and takes_stage_losses(stage_logits, target):
            return stage_losses(
                stage_logits,
                target,
                self.stage_weights,
                self.label_smoothing,
                get_world_size(),
                all_reduce,
            )
        if labelled:
            target = F.one_hot(target.long(), shape[1])
        # All stages at once: on a GPU, small steps take the host longer than the GPU.
        logits = torch.stack(list(stage_logits))  # [S, B, N₁]
        # A NaN counts as considered, so that the loss shows it.
        considered = logits != -torch.inf
        label = target.argmax(1, keepdim=True).expand(len(logits), -1, -1)
        counts = considered.gather(2, label).squeeze(2)  # [S, B]
        numbers = counts.sum(1, dtype=logits.dtype)
        all_reduce(numbers)
        # Of a process on average, as DDP averages gradients.
        numbers = numbers.clamp(min=1) / get_world_size()
        losses = (self._sample_losses(logits, considered, target) * counts).sum(1) / numbers
        return [weight * loss for weight, loss in zip(self.stage_weights, losses)]

    def _sample_losses(self, logits: Tensor, considered: Tensor, target: Tensor) -> Tensor:
        """Cross entropy L_i of each sample in each stage (Eq. 2), (S, B)."""
        restricted = target.to(logits.dtype) * considered
        tiny = torch.finfo(logits.dtype).tiny
        restricted = restricted / restricted.sum(2, keepdim=True).clamp(min=tiny)
        if self.label_smoothing:
            uniform = considered / considered.sum(2, keepdim=True)
            restricted = torch.lerp(restricted, uniform.to(logits.dtype), self.label_smoothing)
        log_probs = F.log_softmax(logits, dim=2).masked_fill(~considered, 0)
        return -(restricted * log_probs).sum(2)
