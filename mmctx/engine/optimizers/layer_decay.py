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
    """mmpretrain's layer-wise decay for any model whose `backbone` knows its layers' depth.

    mmpretrain's asks the whole model, which a detector cannot answer. The weights of τ and of the
    class embeddings do not decay, unless `custom_keys` say otherwise. Options are those of
    mmpretrain's (`layer_decay_rate`, `flat_decay_mult`, `custom_keys`, …).
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
