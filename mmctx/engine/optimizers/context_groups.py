"""Parameter groups that tell a network's contextual parameters from its vanilla ones."""

import torch.nn as nn
from mmengine.optim import DefaultOptimWrapperConstructor

from mmctx.errors import UserError
from mmctx.registry import OPTIM_WRAPPER_CONSTRUCTORS

CONTEXTUAL = (
    'contextualizing.',
    'first_merging.',
    'sampling_offset_predictor.',
    'weight_offset_predictor.',
    'prior_weight',
)


@OPTIM_WRAPPER_CONSTRUCTORS.register_module()
class ContextualOptimWrapperConstructor(DefaultOptimWrapperConstructor):
    """mmengine's default constructor with factors for what a contextual network adds.

    Starting from vanilla weights, the new parameters need not learn at the old ones' rate.
    `custom_keys` cannot say so: they switch off the rules for norms and biases. `paramwise_cfg`
    takes two more options:

    * `context_lr_mult` (float): Factor on the learning rate of the predictors, the class
      embeddings, τ, classifying and merging. Defaults to 1.
    * `context_decay_mult` (float): Factor on their weight decay, where they have any. Defaults
      to 1.
    """

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
        names = {id(parameter): name for name, parameter in module.named_parameters()}
        for group in params:
            name = names[id(group['params'][0])]
            if any(part in name for part in CONTEXTUAL):
                group['lr'] = group.get('lr', self.base_lr) * self.paramwise_cfg.get(
                    'context_lr_mult', 1.0
                )
                if self.base_wd is not None:
                    group['weight_decay'] = group.get(
                        'weight_decay', self.base_wd
                    ) * self.paramwise_cfg.get('context_decay_mult', 1.0)
        given = {'lr': self.base_lr, 'weight_decay': self.base_wd}
        params[:] = _merged(params, {k: v for k, v in given.items() if v is not None})


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
