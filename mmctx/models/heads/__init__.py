"""Heads for contextual backbones."""

from .contextual_cls_head import ContextualClsHead

__all__ = ['ContextualClsHead']
