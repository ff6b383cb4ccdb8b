"""What mmcv, mmdet, mmpretrain and mmaction2 use of NumPy that newer versions no longer have.

NumPy 2 refuses `np.uint8(-3)`, by which mmcv turns a hue backwards: half of all images fail in
`ColorJitter` with a hue, as in the recipes of self-supervised learning. Names such as `np.in1d`
are gone too.
"""

import functools
import sys
from types import ModuleType

import numpy as np

from .after_import import after_import

# What each module reads of NumPy that may be missing.
READERS = {
    'mmdet.evaluation.functional.ytviseval': ('float',),
    'mmpretrain.evaluation.metrics.retrieval': ('in1d',),
    'mmaction.datasets.transforms.pose_transforms': ('Inf',),
    'mmaction.evaluation.functional.accuracy': ('trapz',),
    'mmaction.evaluation.functional.ava_evaluation.metrics': ('NAN',),
    'mmaction.evaluation.metrics.multimodal_metric': ('in1d',),
    'mmaction.utils.misc': ('Inf',),
}
SUCCESSORS = {
    'float': float,
    'in1d': np.isin,
    'Inf': np.inf,
    'NAN': np.nan,
    'trapz': getattr(np, 'trapezoid', None),
}


def install():
    """Give these modules what they miss, and let mmcv turn a hue backwards. Idempotent."""
    for name, missing in READERS.items():
        if any(vars(np).get(attribute) is None for attribute in missing):
            after_import(name, _replace_numpy)
    if np.lib.NumpyVersion(np.__version__) >= '2.0.0b1':
        after_import('mmcv.image.photometric', _turn_backwards)


class _FormerNumpy(ModuleType):
    """NumPy with the names that it had before."""

    def __getattr__(self, name):
        return SUCCESSORS[name] if name in SUCCESSORS else getattr(np, name)


def _replace_numpy(module):
    module.np = _FormerNumpy('numpy')


class _Turn(float):
    """Share of a turn of the hue; its product is what NumPy 1 made of it as an unsigned byte."""

    def __mul__(self, levels):
        return int(float(self) * levels) % 256


def _turn_backwards(module):
    own = module.adjust_hue

    @functools.wraps(own)
    def adjust_hue(img, hue_factor, backend=None):
        return own(img, _Turn(hue_factor), backend)

    # The packages around it, which may be imported already, have the function under its name too.
    for name in ('mmcv', 'mmcv.image', 'mmcv.image.photometric'):
        if getattr(sys.modules.get(name), 'adjust_hue', None) is own:
            sys.modules[name].adjust_hue = adjust_hue
