"""Losses of contextual networks."""

from .stagewise_cross_entropy import StagewiseCrossEntropy

__all__ = ['StagewiseCrossEntropy']
