"""Checkpoints of other code bases, renamed for mmctx."""

from .files import read_state, write_checkpoint
from .layout import backbone_config
from .released import convert_released
from .vanilla import convert_vanilla

__all__ = [
    'backbone_config',
    'convert_released',
    'convert_vanilla',
    'read_state',
    'write_checkpoint',
]
