"""Contextual backbones, and a vanilla one that mmpretrain lacks."""

from mmctx import compat

compat.install_runtime()

from .contextual_convnext import ContextualConvNeXt  # noqa: E402
from .contextual_resnet import ContextualResNet  # noqa: E402
from .contextual_resnet_cifar import ContextualResNet_CIFAR  # noqa: E402
from .contextual_resnet_tsm import ContextualResNetTSM  # noqa: E402
from .torchvision_regnet import TorchvisionRegNetY  # noqa: E402

__all__ = [
    'ContextualConvNeXt',
    'ContextualResNet',
    'ContextualResNetTSM',
    'ContextualResNet_CIFAR',
    'TorchvisionRegNetY',
]
