"""Layer-wise learning rates for classifiers and detectors alike."""

from functools import partial
from typing import Any

import torch.nn as nn
from mmpretrain.engine.optimizers import LearningRateDecayOptimWrapperConstructor

from mmctx.registry import OPTIM_WRAPPER_CONSTRUCTORS

WITHOUT_DECAY = {
    'contextualizing.embeddings': dict(decay_mult=0.0),
    'contextualizing.logit_scale': dict(decay_mult=0.0),
}


@OPTIM_WRAPPER_CONSTRUCTORS.register_module()
class LayerDecayOptimWrapperConstructor(LearningRateDecayOptimWrapperConstructor):
    """mmpretrain's layer-wise decay for any model whose `backbone` has `get_layer_depth`.

    mmpretrain's constructor needs that method on the model itself, where a detector lacks it. τ and
    the class embeddings have no weight decay, unless `custom_keys` say otherwise. The options are
    those of mmpretrain's constructor (`layer_decay_rate`, `flat_decay_mult`, `custom_keys`, …).
    """

    def __init__(self, optim_wrapper_cfg: dict, paramwise_cfg: dict | None = None):
        paramwise_cfg = dict(paramwise_cfg or {})
        paramwise_cfg['custom_keys'] = {**WITHOUT_DECAY, **paramwise_cfg.get('custom_keys', {})}
        super().__init__(optim_wrapper_cfg, paramwise_cfg)

    def add_params(
        self,
        params: list[dict],
        module: nn.Module,
        prefix: str = '',
        get_layer_depth=None,
        **kwargs,
    ) -> None:
        """Add a group for every trainable parameter of `module` to `params`, in place."""
        if get_layer_depth is None and not hasattr(module, 'get_layer_depth'):
            backbone: Any = module.backbone
            get_layer_depth = partial(backbone.get_layer_depth, prefix='backbone.')
        super().add_params(params, module, prefix, get_layer_depth, **kwargs)
