"""TSM's learning rates and weight decays for contextual networks."""

import torch.nn as nn

from mmctx.registry import OPTIM_WRAPPER_CONSTRUCTORS

from .context_groups import ContextualOptimWrapperConstructor
from .layer_decay import WITHOUT_DECAY

RULES = dict(bias_lr_mult=2.0, bias_decay_mult=0.0, norm_decay_mult=0.0)


@OPTIM_WRAPPER_CONSTRUCTORS.register_module()
class TSMOptimWrapperConstructor(ContextualOptimWrapperConstructor):
    """mmaction2's constructor of the same name, for every trainable parameter of any network.

    mmaction2's constructor handles only convolutions, linear layers and batch or group norm: it
    rejects other layers and drops parameters that no layer holds. This one applies the same
    factors on the base learning rate and weight decay:

    * weights: 1 and 1; biases: 2 and 0; weights and biases of any norm: 1 and 0;
    * with `fc_lr5`, the weight of the last linear layer (the classifier): 5 and 1, its bias: 10
      and 0;
    * τ and the class embeddings, which TSM does not have: 1 and 0.

    `paramwise_cfg` takes `fc_lr5` (bool, defaults to False), the factors of
    `ContextualOptimWrapperConstructor`, and mmengine's own options. If several `custom_keys` are
    part of a parameter's name, the longest one counts; the last two rules are such keys, too.
    """

    def __init__(self, optim_wrapper_cfg: dict, paramwise_cfg: dict | None = None):
        super().__init__(optim_wrapper_cfg, {'fc_lr5': False, **RULES, **(paramwise_cfg or {})})
        self.own_keys = self.paramwise_cfg.get('custom_keys', {})

    def add_params(self, params: list[dict], module: nn.Module, prefix: str = '', **kwargs) -> None:
        """Add the trainable parameters of `module` to `params`, in place."""
        if not prefix:
            keys = {**WITHOUT_DECAY, **self._last_layer(module), **self.own_keys}
            self.paramwise_cfg['custom_keys'] = keys
        super().add_params(params, module, prefix, **kwargs)

    def _last_layer(self, model: nn.Module) -> dict[str, dict]:
        """Factors of the model's last linear layer, by the names of its parameters."""
        linear = [name for name, layer in model.named_modules() if isinstance(layer, nn.Linear)]
        if not self.paramwise_cfg['fc_lr5'] or not linear:
            return {}
        return {
            f'{linear[-1]}.weight': dict(lr_mult=5.0),
            f'{linear[-1]}.bias': dict(lr_mult=10.0, decay_mult=0.0),
        }
