"""Checks of weight files before a run depends on them."""

import os
import re
import urllib.request
from pathlib import Path
from typing import NamedTuple
from urllib.parse import urlparse

import torch
from mmengine.model import BaseModule, BaseTTAModel, is_model_wrapper
from mmengine.runner import CheckpointLoader

from mmctx.errors import UserError

from .latest import RESUME_KEYS

URL_TIMEOUT = 20


class Weights(NamedTuple):
    """What a weight file holds, to be compared with the model once that is built.

    Attributes:
        path (str): The file.
        shapes (dict[str, tuple[int, ...]]): Shape of each tensor by its name.
        module (str): Dotted name of the submodule that loads it; '' for the whole model.
        complete (bool): Whether the file must serve every part of that module.
    """

    path: str
    shapes: dict
    module: str = ''
    complete: bool = False


def fetch(url):
    """Bring weights into torch.hub's cache, where mmengine looks for them later.

    Args:
        url (str): http or https address.

    Returns:
        Path: The cached file.

    Raises:
        UserError: If the address cannot be reached.
    """
    target = Path(torch.hub.get_dir()) / 'checkpoints' / Path(urlparse(url).path).name
    if target.is_file():
        return target
    try:
        # torch.hub sets no time limit, so that a dead address could hang for ever.
        urllib.request.urlopen(url, timeout=URL_TIMEOUT).close()
        target.parent.mkdir(parents=True, exist_ok=True)
        torch.hub.download_url_to_file(url, str(target), progress=os.isatty(2))
    except (OSError, ValueError) as error:
        raise UserError(f'cannot download {url}: {error}') from error
    return target


def read_checkpoint(path, purpose, hint=''):
    """Read a checkpoint and refuse what is not one.

    Args:
        path (str): A local file or an http(s) address.
        purpose (str): What the file is for, in words for the message.
        hint (str): What to do when it is missing. Defaults to ''.

    Returns:
        dict: The file's contents, on the CPU.

    Raises:
        UserError: If the file is missing, truncated or of another kind.
    """
    path = str(path)
    try:
        local = fetch(path) if path.startswith(('http://', 'https://')) else Path(path).expanduser()
    except UserError as error:
        raise UserError(f'{purpose}: {error}. {hint}') from error
    if not local.is_file():
        raise UserError(f'{purpose}: file {path} does not exist. {hint}')
    try:
        checkpoint = CheckpointLoader.load_checkpoint(str(local), 'cpu', logger='silent')
    except Exception as error:
        forbidden = re.search(r'GLOBAL (\S+)', str(error))
        if forbidden:
            raise UserError(
                f'{purpose}: {path} is refused: besides weights it holds {forbidden[1]}, which '
                'reading would run; if you trust it, save its state_dict alone'
            ) from error
        lines = str(error).splitlines() or ['']
        reason = next((line for line in lines if 'Unsupported' in line), lines[0]).strip()[:160]
        raise UserError(
            f'{purpose}: {path} is truncated or not a PyTorch checkpoint '
            f'({type(error).__name__}: {reason})'
        ) from error
    if not isinstance(checkpoint, dict):
        raise UserError(f'{purpose}: {path} holds {type(checkpoint).__name__}, not weights')
    return checkpoint


def weight_shapes(checkpoint, path, prefix=None, bare=False):
    """Names and shapes of a checkpoint's weights, as mmengine would load them.

    Args:
        checkpoint (dict): Contents of the file.
        path (str): The file, for messages.
        prefix (str, optional): Take only names that start with it, and strip it. Defaults to None.
        bare (bool): Whether a plain network inside `model`, as in files that do not come from
            OpenMMLab, is looked into. Defaults to False.

    Returns:
        dict[str, tuple[int, ...]]: Shape of each tensor by its name.

    Raises:
        UserError: If there are no weights, or none under the prefix.
    """
    state = checkpoint.get('state_dict', checkpoint)
    if bare:
        state = state.get('model', state)
    shapes = {
        re.sub(r'^module\.', '', str(name)): tuple(value.shape)
        for name, value in (state.items() if isinstance(state, dict) else ())
        if isinstance(value, torch.Tensor)
    }
    if not shapes and isinstance(checkpoint.get('model'), dict):
        raise UserError(
            f"{path} holds a bare network, in 'model': it can only start a training, by "
            f'--cfg-options pretrained={path}'
        )
    if not shapes:
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


def check_resumable(checkpoint, path):
    """Refuse to resume from a file that holds weights alone.

    Args:
        checkpoint (dict): Contents of the file.
        path (str): The file, for messages.

    Raises:
        UserError: If the state of the training is not in it.
    """
    missing = [key for key in RESUME_KEYS if key not in checkpoint]
    if missing:
        raise UserError(
            f'cannot resume from {path}: it holds no training state ({", ".join(missing)}); to '
            f'start from its weights pass --cfg-options load_from={path}'
        )


def shapes_as_loaded(module, shapes):
    """Shapes after the renaming and resizing that a module's own loading hooks do.

    Args:
        module (nn.Module): The module that is to load the weights.
        shapes (dict[str, tuple[int, ...]]): Shape of each tensor by its name in the file.

    Returns:
        dict[str, tuple[int, ...]]: Shape of each tensor by its name in the module.
    """
    state = {name: torch.zeros(()).expand(shape) for name, shape in shapes.items()}
    for name, part in module.named_modules():
        if part._load_state_dict_pre_hooks:
            prefix = f'{name}.' if name else ''
            # mmengine, too, shows a hook nothing but its own module's weights.
            own = {key: state.pop(key) for key in list(state) if key.startswith(prefix)}
            for hook in part._load_state_dict_pre_hooks.values():
                hook(own, prefix, {}, True, [], [], [])
            state.update(own)
    return {name: tuple(value.shape) for name, value in state.items()}


def translates_names(cls):
    """Whether a class may translate the names of its pretrained weights itself, as Swin does."""
    own_way = getattr(cls, 'init_weights', None) is not BaseModule.init_weights
    return own_way and not cls.__module__.startswith('mmctx.')


def check_fit(model, weights):
    """Refuse weights that the model would silently ignore.

    Args:
        model (nn.Module): The model, wrapped for distributed runs or test-time augmentation or not.
        weights (Weights): What the file holds and which submodule loads it.

    Raises:
        UserError: If no weight fits the module or, where the file must be complete, if a part of
            the model gets none or a weight has another shape.
    """
    while is_model_wrapper(model) or isinstance(model, BaseTTAModel):
        model = model.module
    try:
        module = model.get_submodule(weights.module)
    except AttributeError:
        return
    if weights.module and translates_names(type(module)):
        # mmaction2's passes over names that it cannot translate without a word.
        if type(module).__name__ == 'ResNetTSM' and 'conv1.weight' not in weights.shapes:
            raise UserError(
                f"{weights.path} has not the names of torchvision's ResNet, which ResNetTSM reads "
                f'(its first is {next(iter(weights.shapes))!r})'
            )
        return
    wanted = {name: tuple(value.shape) for name, value in module.state_dict().items()}
    given = shapes_as_loaded(module, weights.shapes)
    fitting = {name for name, shape in wanted.items() if given.get(name) == shape}
    owner = f'the {type(module).__name__} of this config'
    if not fitting:
        raise UserError(
            f'{weights.path} is of another model: none of its {len(weights.shapes)} weights fits '
            f'{owner} (the file has {next(iter(weights.shapes))!r}, the model '
            f'{next(iter(wanted))!r})'
        )
    if not weights.complete:
        return
    for part, child in module.named_children():
        names = {f'{part}.{name}' for name, _ in child.named_parameters()}
        if names and not names & fitting:
            raise UserError(
                f'{weights.path} is of another model: it has no weight that fits {part} of {owner}'
            )
    for name, shape in wanted.items():
        found = given.get(name, shape)
        if found != shape:
            raise UserError(
                f'{weights.path} does not fit {owner}: {name} is {found} in the file and {shape} '
                'in the model'
            )
