"""Classification head of a contextual backbone."""

import torch
from mmpretrain.evaluation import Accuracy
from mmpretrain.models.heads import ClsHead
from mmpretrain.structures import DataSample
from torch import Tensor

from mmctx.registry import MODELS


@MODELS.register_module()
class ContextualClsHead(ClsHead):
    """Loss and predictions from the four stages' logits of a backbone with `out_type='logits'`.

    It has no parameters: all stages share the class embeddings and τ, so the backbone holds them.
    Scores are the softmax over the classes that the last stage considers, and 0 for all others.

    Args:
        loss (dict, optional): Config of the loss. Defaults to None, which stands for
            `dict(type='mmctx.StagewiseCrossEntropy')`.
        **kwargs: Arguments of mmpretrain's `ClsHead`; `cal_acc` logs the accuracy of the last
            stage.
    """

    def __init__(self, loss: dict | None = None, **kwargs):
        super().__init__(loss=loss or dict(type='mmctx.StagewiseCrossEntropy'), **kwargs)

    def loss(
        self, feats: tuple[Tensor, ...], data_samples: list[DataSample], **kwargs
    ) -> dict[str, Tensor]:
        """Weighted losses of the stages.

        Args:
            feats (tuple[Tensor, ...]): Logits of each stage that classifies, (B, N₁).
            data_samples (list[DataSample]): Samples with a `gt_label`, or a `gt_score` as Mixup
                and CutMix make it.
            **kwargs: Arguments of the loss.

        Returns:
            dict[str, Tensor]: `loss_stage1` … `loss_stage4`, without the stages that do not
            classify; with `cal_acc` also `accuracy_top-k`.
        """
        if 'gt_score' in data_samples[0]:
            target = torch.stack([sample.gt_score for sample in data_samples])
        else:
            target = torch.cat([sample.gt_label for sample in data_samples])
        stages = self.loss_module(feats, target, **kwargs)
        losses = {f'loss_stage{i}': loss for i, loss in enumerate(stages, 5 - len(stages))}
        if self.cal_acc:
            accuracies = Accuracy.calculate(feats[-1], target, topk=self.topk)
            losses.update({f'accuracy_top-{k}': a for k, a in zip(self.topk, accuracies)})
        return losses

    def predict(
        self,
        feats: tuple[Tensor, ...],
        data_samples: list[DataSample | None] | None = None,
    ) -> list[DataSample]:
        """Scores of the last stage and, if the label is known, its rank in each stage.

        Args:
            feats (tuple[Tensor, ...]): Logits of each stage that classifies, (B, N₁).
            data_samples (list[DataSample], optional): Samples to write the predictions to. Defaults
                to None, new ones.

        Returns:
            list[DataSample]: Samples with `pred_score` and `pred_label`. A sample with a `gt_label`
            also has `stage_ranks`, (stages,): how many other classes score as high as the true one
            or higher in each stage. That is N₁ − 1 if the true one is no longer considered.
        """
        samples = super().predict(feats, data_samples)
        known = [i for i, sample in enumerate(samples) if len(sample.get('gt_label', ())) == 1]
        if known:
            labels = torch.stack([samples[i].gt_label for i in known])  # [B, 1]
            ranks = torch.cat([_ranks(stage[known], labels) for stage in feats], dim=1)
            for i, rank in zip(known, ranks):
                samples[i].stage_ranks = rank
        return samples


def _ranks(logits: Tensor, labels: Tensor) -> Tensor:
    """How many other classes score at least as high: logits (B, N₁), labels (B, 1) -> (B, 1)."""
    # A network whose logits are all equal, or NaN, must be right about nothing.
    return (~(logits < logits.gather(1, labels))).sum(1, keepdim=True) - 1
