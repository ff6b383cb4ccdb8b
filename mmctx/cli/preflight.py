"""Checks of a config's data and weights before a run, so that mistakes are found early."""

import inspect
import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from mmengine.registry import DATASETS, METRICS

from mmctx.checkpoints.latest import Latest, read_latest
from mmctx.datasets.checks import imagenet, kinetics
from mmctx.datasets.checks.coco import quick as coco
from mmctx.datasets.checks.dataset_files import DatasetFiles
from mmctx.errors import UserError
from mmctx.registry import base_named, class_of

from .config import as_list
from .starting_weights import pretrained_weights, started_from

SPLITS_OF_MODE = dict(train=('train', 'val'), test=('test',))
ENV_VARIABLE = re.compile(r'\{\{\s*\$(\w+)\s*:')


class Checked(NamedTuple):
    """Contents of the files of a run, kept so that each file is read once.

    Attributes:
        weights (list[Weights]): Weights to compare with the model after it has been built.
        checkpoints (dict[str, dict]): Contents of the weight files, by the names in the config.
        latest (Latest | None): Checkpoint of the work dir to resume from; None unless `--resume`
            was given without a name.
        datasets (list[DatasetFiles]): Data sets whose files exist, for :func:`check_contents`.
        metric_files (list[str]): Annotation files in COCO's format that metrics read, for
            :func:`check_contents`.
    """

    weights: list
    checkpoints: dict
    latest: Latest | None = None
    datasets: Sequence = ()
    metric_files: Sequence = ()


def preflight(cfg, mode):
    """Check that the files of a run exist, and read its weights.

    Args:
        cfg (Config): The merged config.
        mode (str): 'train', which checks training and validation data, pretrained weights and the
            checkpoint to start from, or 'test', which checks test data and checkpoint.

    Returns:
        Checked: The weights and checkpoints that were read, and the data sets to check next.

    Raises:
        UserError: At the first mistake.
    """
    splits = SPLITS_OF_MODE[mode]
    datasets = [files for split in splits for files in find_datasets(cfg, split)]
    metric_files = [path for split in splits for path in find_metric_files(cfg, split)]
    checkpoints = {}
    weights = pretrained_weights(cfg, checkpoints) if mode == 'train' else []
    latest = None
    if mode == 'train' and cfg.get('resume', False) and cfg.get('load_from') is None:
        latest = read_latest(cfg.work_dir)
    weights += started_from(cfg, mode, latest, checkpoints)
    return Checked(weights, checkpoints, latest, datasets, metric_files)


def check_contents(checked):
    """Check the contents of the annotation files and folders that :func:`preflight` has found.

    It takes up to a minute for a set of COCO's size.

    Args:
        checked (Checked): Result of :func:`preflight`.

    Raises:
        UserError: At the first mistake.
    """
    for files in checked.datasets:
        coco.quick_check(files)
        imagenet.quick_check(files)
    seen = {os.path.realpath(files.ann_file) for files in checked.datasets}
    for path in checked.metric_files:
        if os.path.realpath(path) not in seen:
            coco.read_coco(path)


def find_datasets(cfg, split):
    """Files of a split's data sets that are on this machine; refuse missing ones."""
    loader = cfg.get(f'{split}_dataloader') or {}
    size = loader.get('batch_size')
    if size is not None and (type(size) is not int or size < 1):
        raise UserError(f'{split}_dataloader.batch_size should be a number from 1 on, not {size!r}')
    metrics = as_list(cfg.get(f'{split}_evaluator'))
    predict_only = any(metric.get('format_only') for metric in metrics)
    found = [
        files_of_dataset(cfg, dataset, f'{split}_dataloader', not predict_only)
        for dataset in leaf_datasets(loader.get('dataset'))
    ]
    return [files for files in found if files]


def find_metric_files(cfg, split):
    """Annotation files in COCO's format that a split's metrics read; refuse missing ones."""
    for metric in as_list(cfg.get(f'{split}_evaluator')):
        ann_file = metric.get('ann_file')
        if not is_local(metric, ann_file):
            continue
        if not Path(ann_file).is_file():
            raise UserError(
                f'annotation file {described(ann_file)} of {split}_evaluator does not exist; '
                f'{root_hint(cfg, f"{split}_evaluator.ann_file")}'
            )
        is_coco = base_named(class_of(metric, METRICS, cfg.get('default_scope')), 'CocoMetric')
        if is_coco and not metric.get('format_only'):
            yield ann_file


def leaf_datasets(dataset):
    """Configs of the data sets that read files, inside wrappers such as RepeatDataset."""
    if not dataset:
        return []
    inner = as_list(dataset.get('dataset')) + as_list(dataset.get('datasets'))
    return [leaf for item in inner for leaf in leaf_datasets(item)] if inner else [dataset]


def is_local(holder, path):
    """Whether a path is on this machine's file system."""
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
    """Explain how to set the folder of the data, by the environment variable of the config."""
    names = sorted({name for name in ENV_VARIABLE.findall(cfg.text) if name.endswith('ROOT')})
    if not names:
        return f'set {key}, for example with --cfg-options {key}=FOLDER'
    name = names[0]
    now = f'now {os.environ[name]}' if name in os.environ else 'now not set'
    return f'set {name} ({now}) to the folder of the data: export {name}=/path/to/data'


def files_of_dataset(cfg, dataset, loader, annotations_needed):
    """Find the folders and the annotation file of a data set.

    Args:
        cfg (Config): The whole config, for its scope and for hints in messages.
        dataset (dict): Config of a data set that reads files.
        loader (str): Name of the data loader, for messages.
        annotations_needed (bool): Whether a COCO file must contain annotations.

    Returns:
        DatasetFiles | None: None for a data set that is downloaded or is on another machine.

    Raises:
        UserError: At the first mistake.
    """
    cls = class_of(dataset, DATASETS, cfg.get('default_scope'))
    downloads = cls is not None and 'download' in inspect.signature(cls.__init__).parameters
    root = dataset.get('data_root') or ''
    if downloads or '://' in root or dataset.get('backend_args'):
        return None
    hint = root_hint(cfg, f'{loader}.dataset.data_root')
    if root and not Path(root).is_dir():
        raise UserError(f'data root {described(root)} of {loader} does not exist; {hint}')
    ann_file = dataset.get('ann_file')
    if not is_local(dataset, ann_file):
        ann_file = ''
    else:
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
    return DatasetFiles(dataset, cls, root, ann_file, folders, hint, annotations_needed, loader)
