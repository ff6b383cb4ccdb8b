"""Contextual ResNet with the stem for small images."""

from mmpretrain.models import ResNet_CIFAR
from torch import Tensor

from mmctx.registry import MODELS

from .contextual_resnet import ContextualResNet


@MODELS.register_module()
class ContextualResNet_CIFAR(ContextualResNet, ResNet_CIFAR):
    """`ContextualResNet` on mmpretrain's `ResNet_CIFAR`: a 3×3 stem of stride 1, no max pooling.

    Args:
        *args: Arguments of `ContextualResNet`.
        **kwargs: Arguments of `ContextualResNet`, and of mmpretrain's `ResNet_CIFAR` in the place
            of those of its `ResNet`.
    """

    stem_stride = 1

    def enter_stage(self, x: Tensor, stage: int) -> Tensor:
        """The stem before stage 1, nothing before the others."""
        return x if stage > 1 else self.relu(self.norm1(self.conv1(x)))
