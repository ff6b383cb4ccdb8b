"""Whether the weights of a file fit a model."""

import logging
import math
import re
from typing import NamedTuple

import torch
from mmengine.logging import print_log
from mmengine.model import BaseModule

from mmctx.errors import UserError, first_few
from mmctx.models.backbones.contextual_backbone import ContextualBackbone
from mmctx.models.layers.contextualizing import usually_considered
from mmctx.models.unwrapping import bare_model

# Shares of elements, as a file of another depth or width shares a few layers with any network.
LEAST_SHARE, COMPLETE_SHARE = 0.75, 0.9
BUFFERS = ('running_mean', 'running_var', 'num_batches_tracked')


class Weights(NamedTuple):
    """Contents of a weight file, to be compared with the model after it has been built.

    Attributes:
        path (str): The file.
        shapes (dict[str, tuple[int, ...]]): Shape of each tensor by its name.
        module (str): Dotted name of the submodule that loads the file; '' for the whole model.
        complete (bool): Whether the file must contain weights for every part of the submodule.
    """

    path: str
    shapes: dict
    module: str = ''
    complete: bool = False


def weight_shapes(checkpoint, path, prefix=None, bare=False):
    """Names and shapes of a checkpoint's weights, as mmengine would load them.

    Args:
        checkpoint (dict): Contents of the file.
        path (str): The file, for messages.
        prefix (str, optional): Prefix of the names to take, which is removed from them. Defaults to
            None, all names.
        bare (bool): Whether to accept weights under the key `model`, as in files that do not come
            from OpenMMLab. Defaults to False.

    Returns:
        dict[str, tuple[int, ...]]: Shape of each tensor by its name.

    Raises:
        UserError: The file contains no weights, none with the prefix, or weights that are NaN.
    """
    state = checkpoint.get('state_dict', checkpoint)
    if bare:
        state = state.get('model', state)
    tensors = {
        re.sub(r'^module\.', '', str(name)): value
        for name, value in (state.items() if isinstance(state, dict) else ())
        if isinstance(value, torch.Tensor)
    }
    broken = [name for name, v in tensors.items() if v.is_floating_point() and v.isnan().any()]
    if broken:
        raise UserError(
            f'{len(broken)} of the {len(tensors)} tensors of {path} hold NaN, as after a training '
            f'that diverged: {first_few(broken)}; take an earlier checkpoint'
        )
    shapes = {name: tuple(value.shape) for name, value in tensors.items()}
    if not shapes and isinstance(checkpoint.get('model'), dict):
        raise UserError(
            f"{path} holds a bare network, in 'model': it can only start a training, by "
            f'--cfg-options pretrained={path}'
        )
    if not shapes:
        others = [repr(key) for key, value in checkpoint.items() if holds_weights(value)]
        if others:
            raise UserError(
                f"{path} has its weights in {first_few(others)}, not in 'state_dict': save one of "
                f'these alone, torch.save(torch.load({str(path)!r})[{others[0]}], FILE)'
            )
        raise UserError(f'{path} holds no weights')
    if prefix is None:
        return shapes
    prefix = prefix if prefix.endswith('.') else f'{prefix}.'
    inner = {name[len(prefix) :]: s for name, s in shapes.items() if name.startswith(prefix)}
    if not inner:
        raise UserError(
            f'{path} has no weights whose names start with {prefix!r} (the first is '
            f'{next(iter(shapes))!r}); if it holds the bare network, pass '
            '--cfg-options model.backbone.init_cfg.prefix=None'
        )
    return inner


def holds_weights(value):
    """Whether an entry of a file is a dict of weights."""
    return isinstance(value, dict) and any(isinstance(v, torch.Tensor) for v in value.values())


def shapes_as_loaded(module, shapes):
    """Shapes by name in the module, whose own loading hooks rename and resize those of a file."""
    state = {name: torch.zeros(()).expand(shape) for name, shape in shapes.items()}
    for name, part in module.named_modules():
        if part._load_state_dict_pre_hooks:
            prefix = f'{name}.' if name else ''
            # As in mmengine, a hook sees only the weights of its own module.
            own = {key: state.pop(key) for key in list(state) if key.startswith(prefix)}
            for hook in part._load_state_dict_pre_hooks.values():
                hook(own, prefix, {}, True, [], [], [])
            state.update(own)
    return {name: tuple(value.shape) for name, value in state.items()}


def translates_names(cls):
    """Whether a class may itself translate the names of its pretrained weights, as Swin does."""
    own_way = getattr(cls, 'init_weights', None) is not BaseModule.init_weights
    return own_way and not cls.__module__.startswith('mmctx.')


def check_fit(model, weights):
    """Refuse weights that the model would silently ignore, and log which weights are loaded.

    Args:
        model (nn.Module): The model; it may be wrapped for distributed runs or test-time
            augmentation.
        weights (Weights): Weights of a file, and the submodule that loads them.

    Raises:
        UserError: The parameters that fit are less than three quarters of the module and less than
            three quarters of the file, counted by elements. If the file must be complete: a part of
            the model lacks a tenth of its parameters, or a weight has another shape. The file has
            class embeddings of another number of classes, and the backbone returns maps.
    """
    model = bare_model(model)
    try:
        module = model.get_submodule(weights.module)
    except AttributeError:
        return
    if weights.module and translates_names(type(module)):
        # mmaction2's ResNetTSM silently skips names that it cannot translate.
        if type(module).__name__ == 'ResNetTSM' and 'conv1.weight' not in weights.shapes:
            raise UserError(
                f"{weights.path} has not the names of torchvision's ResNet, which ResNetTSM reads "
                f'(its first is {next(iter(weights.shapes))!r})'
            )
        return
    wanted = {name: tuple(value.shape) for name, value in module.state_dict().items()}
    given = shapes_as_loaded(module, weights.shapes)
    owner = f'the {type(module).__name__} of this config'
    # Buffers such as the counters of batch norm are in every file and fit everywhere.
    parameters = {name: tuple(value.shape) for name, value in module.named_parameters()}
    fitting = {name for name, shape in parameters.items() if given.get(name) == shape}
    if not fitting:
        raise UserError(
            f'{weights.path} is of another model: none of its {len(weights.shapes)} weights fits '
            f'{owner} (the file has {next(iter(weights.shapes))!r}, the model '
            f'{next(iter(wanted))!r})'
        )
    if weights.complete:
        check_complete(module, weights.path, wanted, given, fitting, owner)
    loaded = elements(parameters, fitting)
    of_model, of_file = loaded / elements(parameters), loaded / elements(given)
    if max(of_model, of_file) < LEAST_SHARE:
        raise UserError(
            f'{weights.path} is of another model: only {of_model:.0%} of the parameters of {owner} '
            f'are in it, and they are {of_file:.0%} of it'
        )
    print_log(summary(weights, parameters, given, fitting), logger='current')
    check_embeddings(module, weights, given)


def check_embeddings(module, weights, given):
    """Refuse class embeddings that would be random for no reason; see :func:`check_fit`.

    A backbone that returns maps may have the classes of the file. One that classifies has those of
    its data, so that its embeddings start anew, with a warning.
    """
    for name, backbone in module.named_modules():
        if not isinstance(backbone, ContextualBackbone) or backbone.contextualizing is None:
            continue
        place = f'{name}.' if name else ''
        classes, dims = backbone.contextualizing.embeddings.weight.shape
        found = given.get(f'{place}contextualizing.embeddings.weight', (classes, dims))
        if found == (classes, dims):
            continue
        owner = '.'.join(part for part in ('model', weights.module, name) if part)
        counts = f'{weights.path} has embeddings of {found[0]} classes, and {owner} of {classes}'
        if backbone.out_type == 'featmap' and found[1] == dims:
            considered = usually_considered(found[0])
            raise UserError(
                f'{counts}, which would start at random: set {owner}.num_classes={found[0]} and '
                f'{owner}.considered as in the training of the file, by default {considered}'
            )
        print_log(f'{counts}: these start anew', 'current', logging.WARNING)


def check_complete(module, path, wanted, given, fitting, owner):
    """Refuse a file that lacks the weights of a part of the model; see :func:`check_fit`."""
    parts = {
        part: {f'{part}.{name}': tuple(value.shape) for name, value in child.named_parameters()}
        for part, child in module.named_children()
    }
    for part, own in parts.items():
        if own and not own.keys() & fitting:
            raise UserError(
                f'{path} is of another model: it has no weight that fits {part} of {owner}'
            )
    for name, shape in wanted.items():
        found = given.get(name, shape)
        if found != shape:
            raise UserError(
                f'{path} does not fit {owner}: {name} is {found} in the file and {shape} '
                'in the model'
            )
    for part, own in parts.items():
        share = elements(own, own.keys() & fitting) / elements(own) if own else 1.0
        if share < COMPLETE_SHARE:
            raise UserError(
                f'{path} is of another model: it has {share:.0%} of the parameters of {part} of '
                f'{owner} (it lacks {first_few(own.keys() - fitting)})'
            )


def elements(shapes, names=None):
    """Number of elements of all tensors, or of those with the given names."""
    return sum(math.prod(shapes[name]) for name in (shapes if names is None else names))


def summary(weights, parameters, given, fitting):
    """Describe in one line which weights of a file are loaded and which are not."""
    total = elements(parameters)
    owner = f'model.{weights.module}' if weights.module else 'the model'
    share = f'{elements(parameters, fitting):,} of {total:,} parameters of {owner}'
    text = f'{weights.path} has {share}'
    new = parameters.keys() - fitting
    if new:
        text += f'; {len(new)} tensors keep their initial values ({first_few(new)})'
    unused = {n for n in given.keys() - parameters.keys() if n.rsplit('.', 1)[-1] not in BUFFERS}
    if unused:
        text += f'; {len(unused)} of the file are not used ({first_few(unused)})'
    return text
