"""Modules that are missing from a dependency's wheel, provided only if Python finds no real one.

* `mmcv._ext`: mmcv's compiled ops. mmcv-lite has none, and mmdet cannot be imported without them.
* `mmaction.models.localizers.drn`: a folder missing from mmaction2's wheel, imported by
  `mmaction.models`.
"""

import sys
from importlib.machinery import ModuleSpec
from importlib.util import spec_from_file_location
from pathlib import Path

_FILES = {
    'mmcv._ext': 'mmcv_ops.py',
    'mmaction.models.localizers.drn.drn': 'mmaction_drn.py',
}
_EMPTY_PACKAGES = {'mmaction.models.localizers.drn'}


class FallbackFinder:
    """Meta-path finder for the missing modules; last in `sys.meta_path`, so a real one wins."""

    @classmethod
    def find_spec(cls, fullname, path=None, target=None):
        """Describe a missing module; None for every module without a stand-in in mmctx."""
        if fullname in _EMPTY_PACKAGES:
            return ModuleSpec(fullname, loader=None, is_package=True)
        if fullname in _FILES:
            return spec_from_file_location(fullname, Path(__file__).with_name(_FILES[fullname]))
        return None


def install():
    """Append the finder to `sys.meta_path`, once."""
    if FallbackFinder not in sys.meta_path:
        sys.meta_path.append(FallbackFinder)
