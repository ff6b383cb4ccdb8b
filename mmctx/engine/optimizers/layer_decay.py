"""Layer-wise learning rates for classifiers and detectors alike."""

from collections.abc import Callable
from typing import Any

import torch.nn as nn
from mmpretrain.engine.optimizers import LearningRateDecayOptimWrapperConstructor

from mmctx.errors import UserError
from mmctx.registry import OPTIM_WRAPPER_CONSTRUCTORS

WITHOUT_DECAY = {
    'contextualizing.embeddings': dict(decay_mult=0.0),
    'contextualizing.logit_scale': dict(decay_mult=0.0),
}
WITHOUT_LAYERS = (
    "set optim_wrapper.constructor='mmctx.ContextualOptimWrapperConstructor', which takes any model"
)


@OPTIM_WRAPPER_CONSTRUCTORS.register_module()
class LayerDecayOptimWrapperConstructor(LearningRateDecayOptimWrapperConstructor):
    """mmpretrain's layer-wise decay for any model with a backbone that has `get_layer_depth`.

    mmpretrain's constructor needs that method on the model itself, where a detector lacks it. The
    backbone may be that of a student, as in `SoftTeacher`, if the teacher does not learn. τ and
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
        """Add a group for every trainable parameter of `module` to `params`, in place.

        Raises:
            UserError: The model has no backbone that learns and knows the depth of its layers, or
                it has several.
        """
        if get_layer_depth is None and not hasattr(module, 'get_layer_depth'):
            get_layer_depth = depth_in_backbone(module)
        super().add_params(params, module, prefix, get_layer_depth, **kwargs)


def depth_in_backbone(model: nn.Module) -> Callable[[str], tuple[int, int]]:
    """Function that gives the depth of a parameter of a model by its name, and the largest one."""
    found: dict[str, Any] = {
        name: module
        for name, module in model.named_modules()
        if name.rpartition('.')[2] == 'backbone'
        and hasattr(module, 'get_layer_depth')
        and any(parameter.requires_grad for parameter in module.parameters())
    }
    if len(found) != 1:
        names = ', '.join(found) or 'none'
        raise UserError(
            'layer-wise learning rates need one backbone that learns and has get_layer_depth, and '
            f'{type(model).__name__} has {names}: {WITHOUT_LAYERS}'
        )
    ((name, backbone),) = found.items()
    owner = name.removesuffix('backbone')

    def depth_of(parameter: str) -> tuple[int, int]:
        # mmpretrain's ResNet knows no other prefix.
        return backbone.get_layer_depth(parameter.removeprefix(owner), prefix='backbone.')

    try:
        depth_of(f'{name}.')
    except NotImplementedError as error:
        raise UserError(
            f'mmpretrain has no layer-wise learning rates for a {type(backbone).__name__} of this '
            f'depth: {WITHOUT_LAYERS}'
        ) from error
    return depth_of
