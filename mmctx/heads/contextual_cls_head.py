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
        """Weighted losses `loss_stage1` … `loss_stage4` from logits (B, N₁) of each stage."""
        if 'gt_score' in data_samples[0]:
            target = torch.stack([sample.gt_score for sample in data_samples])
        else:
            target = torch.cat([sample.gt_label for sample in data_samples])
        stages = self.loss_module(feats, target, **kwargs)
        losses = {f'loss_stage{i}': loss for i, loss in enumerate(stages, 1)}
        if self.cal_acc:
            accuracies = Accuracy.calculate(feats[-1], target, topk=self.topk)
            losses.update({f'accuracy_top-{k}': a for k, a in zip(self.topk, accuracies)})
        return losses
