"""Weights of other code bases, whose names and shapes mmctx takes."""

from .backbone_config import backbone_config
from .files import read_state, write_checkpoint
from .released import convert_released
from .vanilla import convert_vanilla

__all__ = [
    'backbone_config',
    'convert_released',
    'convert_vanilla',
    'read_state',
    'write_checkpoint',
]
