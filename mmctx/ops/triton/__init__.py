"""The contextual convolution in Triton kernels.

`operator` registers it and needs no Triton; what it launches is imported at the first call.
"""

from .operator import HAS_TRITON, contextual_conv2d_triton

__all__ = ['HAS_TRITON', 'contextual_conv2d_triton']
