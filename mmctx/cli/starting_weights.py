"""The weight files that a run starts from, each read once and checked."""

from mmengine.runner.checkpoint import get_torchvision_models

from mmctx.checkpoints.fitting import Weights, weight_shapes
from mmctx.checkpoints.latest import missing_state
from mmctx.checkpoints.reading import UnreadableCheckpoint, fetch, read_checkpoint
from mmctx.errors import UserError

from .config import as_list, loads_weights

FROM_SCRATCH = 'or train from scratch with --cfg-options pretrained=None'
WEB = ('http://', 'https://')


def pretrained_weights(cfg, checkpoints):
    """Read the weights that the model's `init_cfg` entries name, each file once.

    Weights that mmaction2's backbones name by `pretrained` are read too.

    Args:
        cfg (Config): The merged config.
        checkpoints (dict[str, dict]): Contents of the files that have been read, extended in place.

    Returns:
        list[Weights]: Weights of each module that loads any.

    Raises:
        UserError: A file is missing, damaged or of another kind.
    """
    found = []
    hint = cfg.get('pretrained_hint', 'Name another file with --cfg-options pretrained=FILE')
    for module, init in init_cfgs(cfg.get('model') or {}):
        name = init['checkpoint']
        path = address(name)
        if is_remote(path):
            continue
        if name not in checkpoints:
            purpose = f'pretrained weights of model.{module}' if module else 'pretrained weights'
            checkpoints[name] = read(path, purpose, f'{hint}, {FROM_SCRATCH}')
        shapes = weight_shapes(checkpoints[name], path, init.get('prefix'), bare=True)
        found.append(Weights(path, shapes, module))
    return found


def read(path, purpose, hint=''):
    """Read a checkpoint, local or from the web; a message says its purpose, and how to mend it."""
    try:
        return read_checkpoint(fetch(path))
    except UnreadableCheckpoint as error:
        missing = f'. {hint}' if 'does not exist' in error.reason else ''
        raise UserError(f'{purpose}: {error}{missing}') from error
    except UserError as error:
        raise UserError(f'{purpose}: {error}. {hint}') from error


def is_remote(path):
    """Whether a file is on a remote storage that only mmengine can read."""
    return '://' in path and not path.startswith(WEB)


def address(path):
    """Address of weights; `torchvision://resnet50` becomes an http address."""
    name = path.removeprefix('torchvision://')
    return path if name == path else get_torchvision_models().get(name, path)


def init_cfgs(model, name=''):
    """Find each `init_cfg` of type Pretrained in a model's config, and the module that it is of.

    An argument `pretrained` of a module becomes an `init_cfg` of type `pretrained`.
    """
    for init in as_list(model.get('init_cfg')):
        if loads_weights(init) and isinstance(init.get('checkpoint'), str):
            yield name, init
    if isinstance(model.get('pretrained'), str):
        yield name, dict(type='pretrained', checkpoint=model['pretrained'])
    for key, value in model.items():
        if isinstance(value, dict) and key != 'init_cfg':
            yield from init_cfgs(value, f'{name}.{key}' if name else key)


def started_from(cfg, mode, latest, checkpoints):
    """Read the checkpoint that a run is resumed from, starts from or tests.

    Args:
        cfg (Config): The merged config.
        mode (str): 'train' or 'test'.
        latest (Latest | None): Checkpoint of the work dir, if the run resumes from it.
        checkpoints (dict[str, dict]): Contents of the files that have been read, extended in place.

    Returns:
        list[Weights]: Weights of the checkpoint, if there is one.

    Raises:
        UserError: The file is missing, damaged, or does not contain what the run needs.
    """
    resume = mode == 'train' and cfg.get('resume', False)
    path = latest.path if latest else cfg.get('load_from')
    if path is None or is_remote(path):
        return []
    if latest and latest.contents:
        contents = latest.contents
    else:
        contents = read(path, 'checkpoint to resume' if resume else 'checkpoint')
    missing = missing_state(contents) if resume else []
    if missing:
        raise UserError(
            f'cannot resume from {path}: it holds no training state ({", ".join(missing)}); to '
            f'start from its weights pass --cfg-options load_from={path}'
        )
    checkpoints[path] = contents
    complete = bool(resume) or mode == 'test'
    return [Weights(path, weight_shapes(contents, path), complete=complete)]
