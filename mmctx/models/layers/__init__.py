"""Contextualizing layers, contextual convolutions and what joins them to vanilla blocks."""

from .contextual_block import (
    ZeroPredictors,
    forward_contextual_block,
    make_contextual,
    with_zeroed_predictors,
)
from .contextual_conv import ContextualConv2d
from .contextualizing import Contextualizing, StageContext
from .prior import under_prior

__all__ = [
    'ContextualConv2d',
    'Contextualizing',
    'StageContext',
    'ZeroPredictors',
    'forward_contextual_block',
    'make_contextual',
    'under_prior',
    'with_zeroed_predictors',
]
