"""Parameter groups for contextual networks."""

from .context_groups import ContextualOptimWrapperConstructor
from .layer_decay import LayerDecayOptimWrapperConstructor

__all__ = ['ContextualOptimWrapperConstructor', 'LayerDecayOptimWrapperConstructor']
