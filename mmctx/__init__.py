"""Contextual Convolutional Networks (Liang et al., ICLR 2023) for OpenMMLab.

Importing this package registers its modules by name and mends known faults of the stack; it is
quick because torch, mmpretrain, mmdet and mmaction2 are only imported when something needs them.
"""

from . import compat, registry
from .version import __version__

compat.install()

__all__ = ['__version__', 'registry']
