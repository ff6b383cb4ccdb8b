"""Checks of a config's data and weights before anything slow or silent can happen with them."""

import inspect
import os
import re
from pathlib import Path
from typing import NamedTuple

from mmengine.registry import DATASETS
from mmengine.runner.checkpoint import get_torchvision_models

from mmctx.checkpoints.fitting import Weights, weight_shapes
from mmctx.checkpoints.latest import Latest, missing_state, read_latest
from mmctx.checkpoints.reading import UnreadableCheckpoint, fetch, read_checkpoint
from mmctx.datasets.checks import imagenet, kinetics
from mmctx.datasets.checks.coco import quick as coco
from mmctx.datasets.checks.dataset_files import DatasetFiles
from mmctx.errors import UserError

ENV_VARIABLE = re.compile(r'\{\{\s*\$(\w+)\s*:')
FROM_SCRATCH = 'or train from scratch with --cfg-options pretrained=None'
WEB = ('http://', 'https://')


class Checked(NamedTuple):
    """What was read of the files of a run, so that it is read once.

    Attributes:
        weights (list[Weights]): Weight files to compare with the model once that is built.
        checkpoints (dict[str, dict]): Contents of these files, by the names that the config has.
        latest (Latest | None): The checkpoint of the work dir to resume from, if it was asked for.
    """

    weights: list
    checkpoints: dict
    latest: Latest | None = None


def preflight(cfg, mode):
    """Check the files that a run reads.

    Args:
        cfg (Config): The merged config.
        mode (str): 'train' (looks at the training and validation data, the pretrained weights and
            the checkpoint to start from) or 'test' (the test data and the checkpoint).

    Returns:
        Checked: The weights and checkpoints that were read.

    Raises:
        UserError: At the first mistake.
    """
    for split in ('train', 'val') if mode == 'train' else ('test',):
        check_split(cfg, split)
    checkpoints = {}
    weights = pretrained_weights(cfg, checkpoints) if mode == 'train' else []
    latest = None
    if mode == 'train' and cfg.get('resume', False) and cfg.get('load_from') is None:
        latest = read_latest(cfg.work_dir)
    weights += started_from(cfg, mode, latest, checkpoints)
    return Checked(weights, checkpoints, latest)


def check_split(cfg, split):
    """Check the data sets and the metrics' annotation files of a split."""
    metrics = as_list(cfg.get(f'{split}_evaluator'))
    predict_only = any(metric.get('format_only') for metric in metrics)
    for dataset in leaf_datasets((cfg.get(f'{split}_dataloader') or {}).get('dataset')):
        check_dataset(cfg, dataset, f'{split}_dataloader', not predict_only)
    for metric in metrics:
        ann_file = metric.get('ann_file')
        if is_local(metric, ann_file) and not Path(ann_file).is_file():
            raise UserError(
                f'annotation file {described(ann_file)} of {split}_evaluator does not exist; '
                f'{root_hint(cfg, f"{split}_evaluator.ann_file")}'
            )


def as_list(value):
    return list(value) if isinstance(value, (list, tuple)) else [value] if value else []


def leaf_datasets(dataset):
    """Every data set beneath wrappers such as RepeatDataset and ConcatDataset.

    Args:
        dataset (dict | None): A data set's config.

    Returns:
        list[dict]: Configs of the data sets that read files.
    """
    if not dataset:
        return []
    inner = as_list(dataset.get('dataset')) + as_list(dataset.get('datasets'))
    return [leaf for item in inner for leaf in leaf_datasets(item)] if inner else [dataset]


def is_local(holder, path):
    """Whether a path is to be found on this machine's file system."""
    return (
        bool(path)
        and isinstance(path, str)
        and '://' not in path
        and not holder.get('backend_args')
    )


def described(path):
    path = str(path)
    return path if os.path.isabs(path) else f'{path} (in {os.getcwd()})'


def root_hint(cfg, key):
    """How to say where the data is, by the environment variables that the config file reads."""
    names = sorted({name for name in ENV_VARIABLE.findall(cfg.text) if name.endswith('ROOT')})
    if not names:
        return f'set {key}, for example with --cfg-options {key}=FOLDER'
    name = names[0]
    now = f'now {os.environ[name]}' if name in os.environ else 'now not set'
    return f'set {name} ({now}) to the folder of the data: export {name}=/path/to/data'


def check_dataset(cfg, dataset, loader, annotations_needed=True):
    """Check the folders and the annotation file of a data set, and what is in them if it is known.

    Args:
        cfg (Config): The whole config, for its scope and its hints.
        dataset (dict): Config of a data set that reads files.
        loader (str): Name of the data loader, for messages.
        annotations_needed (bool): Whether a COCO file must hold annotations. Defaults to True.

    Raises:
        UserError: At the first mistake.
    """
    cls = dataset_class(cfg, dataset)
    downloads = cls is not None and 'download' in inspect.signature(cls.__init__).parameters
    root = dataset.get('data_root') or ''
    if downloads or '://' in root or dataset.get('backend_args'):
        return
    hint = root_hint(cfg, f'{loader}.dataset.data_root')
    if root and not Path(root).is_dir():
        raise UserError(f'data root {described(root)} of {loader} does not exist; {hint}')
    ann_file = dataset.get('ann_file')
    local = is_local(dataset, ann_file)
    if local:
        ann_file = os.path.join(root, ann_file)
        if not Path(ann_file).is_file():
            lists = kinetics.reads_video_list(cls)
            write = f', then write the lists by "{kinetics.PREPARE} ROOT"' if lists else ''
            raise UserError(
                f'annotation file {described(ann_file)} of {loader} does not exist; {hint}{write}'
            )
    prefixes = dataset.get('data_prefix') or {}
    prefixes = prefixes if isinstance(prefixes, dict) else {'img_path': prefixes}
    folders = {key: os.path.join(root, p) for key, p in prefixes.items() if isinstance(p, str)}
    for folder in folders.values():
        if folder and '://' not in folder and not Path(folder).is_dir():
            raise UserError(f'folder {described(folder)} of {loader} does not exist; {hint}')
    num_classes = (cfg.model.get('cls_head') or {}).get('num_classes')
    files = DatasetFiles(
        dataset, cls, root, ann_file or '', folders, hint, annotations_needed, num_classes
    )
    for check in (coco.quick_check, imagenet.quick_check, kinetics.quick_check):
        check(files)


def dataset_class(cfg, dataset):
    """Class of a data set's config in the config's scope; None where it is not registered."""
    if not isinstance(dataset['type'], str):
        return dataset['type']
    scope = dataset.get('_scope_') or cfg.get('default_scope')
    with DATASETS.switch_scope_and_registry(scope) as registry:
        return registry.get(dataset['type'])


def pretrained_weights(cfg, checkpoints):
    """Read the weights that the model's `init_cfg` entries name, each file once.

    Those that mmaction2's backbones name by `pretrained` are read too.

    Args:
        cfg (Config): The merged config.
        checkpoints (dict[str, dict]): Contents of the files that have been read, extended in place.

    Returns:
        list[Weights]: Weights for each module that loads some.

    Raises:
        UserError: If a file is missing, damaged or of another kind.
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
    """Read a checkpoint, local or from the web.

    Args:
        path (str): Local file or http(s) address.
        purpose (str): What the file is for, in words for the message.
        hint (str): What to do when it is missing. Defaults to ''.

    Returns:
        dict: The file's contents.

    Raises:
        UserError: If the file is missing, damaged or of another kind.
    """
    try:
        return read_checkpoint(fetch(path))
    except UnreadableCheckpoint as error:
        missing = f'. {hint}' if 'does not exist' in error.reason else ''
        raise UserError(f'{purpose}: {error}{missing}') from error
    except UserError as error:
        raise UserError(f'{purpose}: {error}. {hint}') from error


def is_remote(path):
    """Whether only mmengine knows how to read a file."""
    return '://' in path and not path.startswith(WEB)


def address(path):
    """Where weights lie; torchvision's, given as `torchvision://resnet50`, at an http address."""
    name = path.removeprefix('torchvision://')
    return path if name == path else get_torchvision_models().get(name, path)


def init_cfgs(model, name=''):
    """Every `init_cfg` of type Pretrained in a model's config, with the dotted name of its owner.

    A module's `pretrained` is given as an `init_cfg` of type `pretrained`.

    Args:
        model (dict): Config of a module.
        name (str): Its dotted name. Defaults to ''.

    Yields:
        tuple[str, dict]: Name of the owning module and its `init_cfg`.
    """
    for init in as_list(model.get('init_cfg')):
        if init.get('type') == 'Pretrained' and isinstance(init.get('checkpoint'), str):
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
        latest (Latest | None): The checkpoint of the work dir, if that is to be resumed from.
        checkpoints (dict[str, dict]): Contents of the files that have been read, extended in place.

    Returns:
        list[Weights]: The weights of the checkpoint, if there is one.

    Raises:
        UserError: If the file is missing, damaged, or does not hold what the run needs.
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
