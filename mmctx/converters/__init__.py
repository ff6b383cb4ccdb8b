"""Checkpoints of other code bases, renamed for mmctx."""

from .released import convert_released_convnext

__all__ = ['convert_released_convnext']
