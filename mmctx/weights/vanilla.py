"""Weights of vanilla ConvNeXt and ResNet: converting checkpoints, or loading them directly."""

import re
from collections.abc import Mapping, Sequence
from typing import Any

import torch.nn as nn
from torch import Tensor

from mmctx.errors import UserError

from .layouts import CONVNEXT_LAYOUTS, RESNET_LAYOUTS, Layout, find_layout

_BODY = r'(downsample_layers|stages|norm\d|stem|conv1|bn1|layer\d)\.'


def convert_vanilla(state: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], str]:
    """Rename a vanilla network's state for contextual backbones and for mmpretrain's backbones.

    The classifier is left out.

    Args:
        state (Mapping[str, Tensor]): State of mmpretrain's, facebookresearch's, timm's or
            torchvision's ConvNeXt or ResNet.

    Returns:
        tuple[dict[str, Tensor], str]: The same tensors under mmpretrain's names, each beginning
        with `backbone.`, and the title of the layout that was recognised.

    Raises:
        UserError: The state has none of these layouts.
    """
    layout, prefix = find_layout(state, CONVNEXT_LAYOUTS + RESNET_LAYOUTS, ('backbone.', ''))
    if layout is None:
        raise UserError(
            'not a vanilla ConvNeXt or ResNet of mmpretrain, facebookresearch, timm or torchvision '
            f'(its first name is {next(iter(state), None)!r})'
        )
    converted = {}
    for name, value in state.items():
        own = layout.rename(name[len(prefix) :]) if name.startswith(prefix) else ''
        if re.match(_BODY, own):
            converted[f'backbone.{own}'] = layout.reshape(own, value)
    return converted, layout.title


def adopt_vanilla_convnext(module: nn.Module, state_dict: dict, prefix: str, *_) -> None:
    """`adopt_vanilla` for Contextual ConvNeXt."""
    adopt_vanilla(CONVNEXT_LAYOUTS, module, state_dict, prefix)


def adopt_vanilla_resnet(module: nn.Module, state_dict: dict, prefix: str, *_) -> None:
    """`adopt_vanilla` for Contextual ResNet."""
    adopt_vanilla(RESNET_LAYOUTS, module, state_dict, prefix)


def adopt_vanilla(
    layouts: Sequence[Layout], module: nn.Module, state_dict: dict, prefix: str
) -> None:
    """Rename a checkpoint's keys, in place, to those of a contextual backbone.

    It is called before the backbone loads its state. It accepts the layouts of vanilla networks,
    with or without the prefix `backbone.` and the key `model` around the state, and drops
    classifying layers that the backbone does not have.

    Args:
        layouts (Sequence[Layout]): Layouts to look for.
        module (nn.Module): The backbone.
        state_dict (dict): State that is about to be loaded.
        prefix (str): Prefix of the backbone's keys in the model that is loaded.
    """
    if isinstance(state_dict.get('model'), dict):
        state_dict.update(state_dict.pop('model'))
    layout, source = find_layout(state_dict, layouts, (prefix, 'backbone.', ''))
    own = {key[len(source) :]: key for key in list(state_dict) if key.startswith(source)}
    contextualizing: Any = module.contextualizing
    classifying = len(contextualizing.classifying) if contextualizing else 0
    shapes = {name: tuple(parameter.shape) for name, parameter in module.named_parameters()}
    for name, key in own.items():
        stage = re.match(r'contextualizing\.classifying\.(\d+)\.', name)
        if stage and int(stage[1]) >= classifying:
            del state_dict[key]
        elif layout is not None:
            renamed = layout.rename(name)
            value = layout.reshape(renamed, state_dict.pop(key))
            # A linear layer's weight where the backbone has a 1×1 convolution.
            if renamed in shapes and shapes[renamed] == (*value.shape, 1, 1):
                value = value[..., None, None]
            state_dict[prefix + renamed] = value
