"""The contextual convolution and its predictors in Triton kernels.

`operator` registers them and works without Triton; the kernels are imported at the first call.
"""

import importlib
import pkgutil

from .operator import HAS_TRITON, contextual_conv2d_triton

__all__ = ['HAS_TRITON', 'contextual_conv2d_triton', 'import_kernels']


def import_kernels() -> None:
    """Import all modules with kernels now, for code that replaces how kernels are made or run."""
    for module in pkgutil.iter_modules(__path__, f'{__name__}.'):
        importlib.import_module(module.name)
