"""The contextual convolution as a function."""

from .contextual_conv import BACKENDS, contextual_conv2d

__all__ = ['BACKENDS', 'contextual_conv2d']
