"""Backbones of mmpretrain, and those of mmctx on top of them, in mmaction2's 2D recognizers.

Such backbones return a tuple of one map. mmaction2 takes the map out of it only where the config's
type begins with `mmpretrain.`; TSN, TRN and others otherwise fail on the tuple.
"""

import functools

from .after_import import after_import


def install():
    """Let 2D recognizers take the map of any backbone of mmpretrain's kind. Idempotent."""
    after_import('mmaction.models.recognizers.base', _take_single_maps)


def _take_single_maps(module):
    own = module.BaseRecognizer.__init__

    @functools.wraps(own)
    def build(self, *args, **kwargs):
        own(self, *args, **kwargs)
        if self.backbone_from == 'mmaction2' and _returns_one_map(self.backbone):
            self.backbone_from = 'mmpretrain'

    module.BaseRecognizer.__init__ = build


def _returns_one_map(backbone):
    from mmpretrain.models.backbones.base_backbone import BaseBackbone

    single = len(getattr(backbone, 'out_indices', None) or ()) == 1
    return single and isinstance(backbone, BaseBackbone)
