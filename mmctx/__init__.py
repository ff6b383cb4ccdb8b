"""Contextual Convolutional Networks (Liang et al., ICLR 2023) for OpenMMLab.

Importing this package registers its modules by name and mends known faults of the stack; it is
quick because torch, mmpretrain, mmdet and mmaction2 are only imported when something needs them.
"""

from importlib import import_module

from . import compat, registry
from .version import __version__

compat.install()

# Imported on first use, as they bring torch along.
_HOMES = {
    'ContextualConvNeXt': 'backbones',
    'ContextualResNet': 'backbones',
    'FeaturePyramid': 'feature_pyramid',
    'collect_stage_logits': 'contextualize',
    'contextualize': 'contextualize',
}
__all__ = ['__version__', 'registry', *_HOMES]


def __getattr__(name: str):
    if name not in _HOMES:
        raise AttributeError(f'module {__name__!r} has no attribute {name!r}')
    return getattr(import_module(f'mmctx.models.{_HOMES[name]}'), name)
