"""Parameter groups with options of their own for contextual and for vanilla parameters."""

from typing import Any

import torch.nn as nn
from mmengine.optim import DefaultOptimWrapperConstructor

from mmctx.errors import UserError
from mmctx.registry import OPTIM_WRAPPER_CONSTRUCTORS

# Parts of the names of each kind of parameters; a parameter without any of them is vanilla.
KINDS = {
    'predictor': ('sampling_offset_predictor.', 'weight_offset_predictor.', 'prior_weight'),
    'classifying': ('contextualizing.', 'first_merging.'),
}


def kind_of(name: str) -> str:
    """Kind of a parameter: `predictor`, `classifying` or `vanilla`.

    Args:
        name (str): Name of the parameter in the model.

    Returns:
        str: `predictor` for the predictors of Δp and Δw, and for the weights that a prior as an
        input adds (row a2 of Table 4); `classifying` for class embeddings, τ, classifying and
        merging layers; `vanilla` for the parameters that a network without context has too.
    """
    kinds = (kind for kind, parts in KINDS.items() if any(part in name for part in parts))
    return next(kinds, 'vanilla')


@OPTIM_WRAPPER_CONSTRUCTORS.register_module()
class ContextualOptimWrapperConstructor(DefaultOptimWrapperConstructor):
    """mmengine's default constructor with factors for each kind of parameter (`kind_of`).

    A network that starts from vanilla weights may need other learning rates for its new parameters:
    predictors need a low one, as in every deformable network, class embeddings the full one.
    `custom_keys` are no way to set them, as they switch off the rules for norms and biases.
    `paramwise_cfg` therefore takes more options, all of which default to 1:

    * `predictor_lr_mult`, `classifying_lr_mult`, `vanilla_lr_mult` (float): Factor on the learning
      rate of a kind.
    * `predictor_decay_mult`, `classifying_decay_mult`, `vanilla_decay_mult` (float): Factor on the
      weight decay of a kind.
    * `context_lr_mult`, `context_decay_mult` (float): Factors on those of both predictors and
      classifying.

    The factors multiply with each other and with mmengine's own.
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

        Parameters with equal options form one group, because on a GPU each group costs an optimizer
        some kernel launches. mmengine's constructor makes a group of each parameter.

        Raises:
            UserError: A parameter is in two modules, and duplicates are not bypassed.
        """
        super().add_params(params, module, prefix, **kwargs)
        if prefix:
            return
        names = {id(parameter): name for name, parameter in module.named_parameters()}
        base: dict[str, Any] = {'lr': self.base_lr, 'weight_decay': self.base_wd}
        # An optimizer's own defaults are not known here, so no factor can change them.
        base = {option: value for option, value in base.items() if value is not None}
        for group in params:
            name = names[id(group['params'][0])]
            for option, value in base.items():
                setting = option.removeprefix('weight_')
                group[option] = group.get(option, value) * self._factor(name, setting)
        params[:] = _merged(params, base)

    def _factor(self, name: str, setting: str) -> float:
        """Product of the factors on the `lr` or `decay` of the parameter of that name."""
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
        # Within one group PyTorch only warns, and updates the parameter twice in each step.
        raise UserError('a parameter is in two modules: set paramwise_cfg.bypass_duplicate=True')
    return list(merged.values())
