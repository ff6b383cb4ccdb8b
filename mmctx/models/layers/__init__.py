"""Contextual convolutions, contextualizing layers, and how vanilla blocks take them."""

from .contextual_block import (
    ZeroPredictors,
    contextual_like,
    forward_contextual_block,
    make_contextual,
    with_zeroed_predictors,
)
from .contextual_conv import ContextualConv2d
from .contextualizing import Contextualizing, StageContext
from .map_norm import MapLayerNorm
from .merging import Merging
from .prior import using_prior

__all__ = [
    'ContextualConv2d',
    'Contextualizing',
    'MapLayerNorm',
    'Merging',
    'StageContext',
    'ZeroPredictors',
    'contextual_like',
    'forward_contextual_block',
    'make_contextual',
    'using_prior',
    'with_zeroed_predictors',
]
