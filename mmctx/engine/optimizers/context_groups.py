"""Parameter groups that tell a network's contextual parameters from its vanilla ones."""

from typing import Any

import torch.nn as nn
from mmengine.optim import DefaultOptimWrapperConstructor

from mmctx.errors import UserError
from mmctx.registry import OPTIM_WRAPPER_CONSTRUCTORS

# Kinds of parameters by parts of their names; what has none of these is vanilla.
KINDS = {
    'predictor': ('sampling_offset_predictor.', 'weight_offset_predictor.', 'prior_weight'),
    'classifying': ('contextualizing.', 'first_merging.'),
}


def kind_of(name: str) -> str:
    """Kind of a parameter: `predictor`, `classifying` or `vanilla`.

    Args:
        name (str): Its name in the model.

    Returns:
        str: `predictor` for what makes Δp and Δw, and the weights of a prior that is an input (row
        a2 of Table 4); `classifying` for class embeddings, τ, classifying and merging layers;
        `vanilla` for all that a network without context has too.
    """
    kinds = (kind for kind, parts in KINDS.items() if any(part in name for part in parts))
    return next(kinds, 'vanilla')


@OPTIM_WRAPPER_CONSTRUCTORS.register_module()
class ContextualOptimWrapperConstructor(DefaultOptimWrapperConstructor):
    """mmengine's default constructor with factors for each kind of parameter (`kind_of`).

    Starting from vanilla weights, the new parameters need not learn at the old ones' rate, and of
    the new ones the predictors want a low rate, as in every deformable network, where the class
    embeddings need the full one. `custom_keys` cannot say so: they switch off the rules for norms
    and biases. `paramwise_cfg` takes more options, all of which default to 1:

    * `predictor_lr_mult`, `classifying_lr_mult`, `vanilla_lr_mult` (float): Factor on the learning
      rate of a kind.
    * `predictor_decay_mult`, `classifying_decay_mult`, `vanilla_decay_mult` (float): Factor on the
      weight decay of a kind, where it has any.
    * `context_lr_mult`, `context_decay_mult` (float): The same for predictors and classifying
      together, beside their own.

    They multiply with each other and with mmengine's own factors.
    """

    def _validate_cfg(self) -> None:
        super()._validate_cfg()
        for setting in ('lr', 'decay'):
            for kind in (*KINDS, 'vanilla', 'context'):
                name = f'{kind}_{setting}_mult'
                value = self.paramwise_cfg.get(name, 1)
                if isinstance(value, bool) or not isinstance(value, (int, float)) or value < 0:
                    raise UserError(f'{name} should be a number of at least 0, got {value!r}')

    def add_params(self, params: list[dict], module: nn.Module, prefix: str = '', **kwargs) -> None:
        """Add the trainable parameters of `module` to `params`, in place.

        Parameters of equal options make one group, where mmengine's constructor makes one of each
        parameter: on a GPU an optimizer takes some launches for each group.

        Raises:
            UserError: A parameter is in two modules, and duplicates are not bypassed.
        """
        super().add_params(params, module, prefix, **kwargs)
        if prefix:
            return
        rate: Any = self.base_lr
        names = {id(parameter): name for name, parameter in module.named_parameters()}
        for group in params:
            name = names[id(group['params'][0])]
            group['lr'] = group.get('lr', rate) * self._factor(name, 'lr')
            if self.base_wd is not None:
                decay: Any = group.get('weight_decay', self.base_wd)
                group['weight_decay'] = decay * self._factor(name, 'decay')
        given = {'lr': self.base_lr, 'weight_decay': self.base_wd}
        params[:] = _merged(params, {k: v for k, v in given.items() if v is not None})

    def _factor(self, name: str, setting: str) -> float:
        """Product of the factors on `lr` or `decay` of the parameter of that name."""
        kind = kind_of(name)
        factor = self.paramwise_cfg.get(f'{kind}_{setting}_mult', 1.0)
        if kind != 'vanilla':
            factor *= self.paramwise_cfg.get(f'context_{setting}_mult', 1.0)
        return factor


def _merged(groups: list[dict], given: dict) -> list[dict]:
    merged: dict[str, dict] = {}
    for group in groups:
        options = {**given, **{key: value for key, value in group.items() if key != 'params'}}
        first = merged.setdefault(repr(sorted(options.items())), dict(options, params=[]))
        first['params'] += group['params']
    parameters = [id(p) for group in groups for p in group['params']]
    if len(set(parameters)) < len(parameters):
        # Of one group PyTorch would only warn, and take each step twice.
        raise UserError('a parameter is in two modules: set paramwise_cfg.bypass_duplicate=True')
    return list(merged.values())
