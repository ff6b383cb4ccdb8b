"""Parameter names of vanilla ConvNeXt checkpoints, so that they load with no conversion."""

import re

import torch.nn as nn

# facebookresearch's names -> mmpretrain's
FACEBOOK_NAMES = (
    (re.compile(r'^(stages\.\d+\.\d+)\.dwconv\.'), r'\1.depthwise_conv.'),
    (re.compile(r'^(stages\.\d+\.\d+)\.pwconv([12])\.'), r'\1.pointwise_conv\2.'),
    (re.compile(r'^norm\.'), 'norm3.'),
)


def adopt_vanilla_convnext(module: nn.Module, state_dict: dict, prefix: str, *_) -> None:
    """Rename a checkpoint's keys, in place, to those of a contextual backbone.

    A hook that runs before the state of the backbone is loaded. It takes mmpretrain's and
    facebookresearch's names, with or without `backbone.` before them or `model` around them, and
    drops classifying layers that the backbone has no use for.

    Args:
        module (nn.Module): The backbone.
        state_dict (dict): The state about to be loaded.
        prefix (str): What the backbone's keys begin with in the model being loaded.
    """
    if isinstance(state_dict.get('model'), dict):
        state_dict.update(state_dict.pop('model'))
    source = next(
        (p for p in (prefix, 'backbone.', '') if f'{p}downsample_layers.0.0.weight' in state_dict),
        prefix,
    )
    own = {key[len(source) :]: key for key in list(state_dict) if key.startswith(source)}
    classifying = len(module.contextualizing.classifying)
    for name, key in own.items():
        renamed = name
        for pattern, replacement in FACEBOOK_NAMES:
            renamed = pattern.sub(replacement, renamed)
        stage = re.match(r'contextualizing\.classifying\.(\d+)\.', name)
        value = state_dict.pop(key) if prefix + renamed != key or stage else state_dict[key]
        if not stage or int(stage[1]) < classifying:
            state_dict[prefix + renamed] = value
