"""Parameter groups for contextual networks."""

from .context_groups import ContextualOptimWrapperConstructor
from .layer_decay import LayerDecayOptimWrapperConstructor
from .tsm_groups import TSMOptimWrapperConstructor

__all__ = [
    'ContextualOptimWrapperConstructor',
    'LayerDecayOptimWrapperConstructor',
    'TSMOptimWrapperConstructor',
]
