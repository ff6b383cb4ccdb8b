"""The contextual convolution as a function."""

from . import counting  # noqa: F401 - tells PyTorch's FLOPs counters
from .contextual_conv import BACKENDS, check_geometry, contextual_conv2d

__all__ = ['BACKENDS', 'check_geometry', 'contextual_conv2d']
