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

    It has no parameters: the class embeddings and τ are shared by all stages, so the backbone
    holds them. Scores are the softmax over the classes that the last stage considers and 0 for all
    others.

    Args:
        loss (dict): Config of the loss. Defaults to `dict(type='mmctx.StagewiseCrossEntropy')`.
        **kwargs: Of mmpretrain's `ClsHead`; `cal_acc` is of the last stage.
    """

    def __init__(self, loss: dict | None = None, **kwargs):
        super().__init__(loss=loss or dict(type='mmctx.StagewiseCrossEntropy'), **kwargs)

    def loss(
        self, feats: tuple[Tensor, ...], data_samples: list[DataSample], **kwargs
    ) -> dict[str, Tensor]:
        """Weighted losses from logits (B, N₁) of each stage that classifies.

        Returns:
            dict[str, Tensor]: `loss_stage1` … `loss_stage4`, without the stages that do not
            classify; `accuracy_top-k` where `cal_acc`.
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
        """Scores of the last stage and, where the label is known, what each stage thinks of it.

        Args:
            feats (tuple[Tensor]): Logits (B, N₁) of each stage.
            data_samples (list[DataSample], optional): Samples to write to. Defaults to None.

        Returns:
            list[DataSample]: With `pred_score` and `pred_label`; a sample with a `gt_label` also
            gets `stage_ranks`, (stages,), how many classes a stage puts before or level with the
            true one, which is N₁ − 1 where that is no longer considered.
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
    """How many classes are before or level with the label: logits (B, N₁), (B, 1) -> (B, 1)."""
    # Counted so that a network whose logits are all equal, or NaN, is right about nothing.
    return (~(logits < logits.gather(1, labels))).sum(1, keepdim=True) - 1
