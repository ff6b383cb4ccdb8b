"""Contextual backbones, and a vanilla one that mmpretrain lacks."""

from mmctx import compat

compat.install_runtime()

from .contextual_convnext import ContextualConvNeXt  # noqa: E402
from .contextual_resnet import ContextualResNet  # noqa: E402
from .torchvision_regnet import TorchvisionRegNetY  # noqa: E402

__all__ = ['ContextualConvNeXt', 'ContextualResNet', 'TorchvisionRegNetY']
