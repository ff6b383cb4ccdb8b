"""Checks of a config's data and weights before anything slow or silent can happen with them."""

import inspect
import os
import re
from pathlib import Path

from mmengine.registry import DATASETS
from mmengine.runner.checkpoint import get_torchvision_models

from mmctx.checkpoints.fitting import Weights, check_resumable, read_checkpoint, weight_shapes
from mmctx.checkpoints.latest import latest_checkpoint, nothing_whole
from mmctx.datasets.checks.coco.quick import check_categories, check_images, check_sizes, read_coco
from mmctx.datasets.checks.imagenet_quick import check_image_folder
from mmctx.datasets.checks.kinetics_quick import PREPARE, check_video_dataset, reads_video_list
from mmctx.errors import UserError

ENV_VARIABLE = re.compile(r'\{\{\s*\$(\w+)\s*:')
FROM_SCRATCH = 'or train from scratch with --cfg-options pretrained=None'


def preflight(cfg, mode):
    """Check the files that a run reads.

    Args:
        cfg (Config): The merged config.
        mode (str): 'train' (looks at the training and validation data, the pretrained weights and
            the checkpoint to start from) or 'test' (the test data and the checkpoint).

    Returns:
        list[Weights]: Weight files to compare with the model once that is built.

    Raises:
        UserError: At the first mistake.
    """
    splits = ('train', 'val') if mode == 'train' else ('test',)
    for split in splits:
        evaluators = as_list(cfg.get(f'{split}_evaluator'))
        predict_only = any(metric.get('format_only') for metric in evaluators)
        for dataset in leaf_datasets((cfg.get(f'{split}_dataloader') or {}).get('dataset')):
            check_dataset(cfg, dataset, f'{split}_dataloader', not predict_only)
        for metric in evaluators:
            ann_file = metric.get('ann_file')
            if is_local(metric, ann_file) and not Path(ann_file).is_file():
                raise UserError(
                    f'annotation file {described(ann_file)} of {split}_evaluator does not exist; '
                    f'{root_hint(cfg, f"{split}_evaluator.ann_file")}'
                )
    weights = pretrained_weights(cfg) if mode == 'train' else []
    return weights + started_from(cfg, mode)


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
    """Check the folders, the annotation file and, where it is COCO's, the contents of a data set.

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
    if is_local(dataset, ann_file):
        ann_file = os.path.join(root, ann_file)
        if not Path(ann_file).is_file():
            write = f', then write the lists by "{PREPARE} ROOT"' if reads_video_list(cls) else ''
            raise UserError(
                f'annotation file {described(ann_file)} of {loader} does not exist; {hint}{write}'
            )
    prefixes = dataset.get('data_prefix') or {}
    prefixes = prefixes if isinstance(prefixes, dict) else {'img_path': prefixes}
    folders = {key: os.path.join(root, p) for key, p in prefixes.items() if isinstance(p, str)}
    for folder in folders.values():
        if folder and '://' not in folder and not Path(folder).is_dir():
            raise UserError(f'folder {described(folder)} of {loader} does not exist; {hint}')
    classes = (dataset.get('metainfo') or {}).get(
        'classes', getattr(cls, 'METAINFO', {}).get('classes')
    )
    if reads_image_folders(cls, root, dataset):
        check_image_folder(os.path.join(root, dataset['split']), classes and len(classes), hint)
    if ann_file and reads_video_list(cls):
        head = cfg.model.get('cls_head') or {}
        check_video_dataset(dataset, ann_file, folders.get('video', root), head.get('num_classes'))
    if ann_file and reads_plain_coco(cls):
        steps = dataset.get('pipeline') or ()
        masks_needed = any(step.get('with_mask') for step in steps)
        contents = read_coco(ann_file, annotations_needed, annotations_needed and masks_needed)
        if isinstance(classes, (list, tuple)):
            check_categories(contents, ann_file, classes)
        check_images(contents, ann_file, folders.get('img', root))
        filtered = not dataset.get('test_mode', False) and dataset.get('filter_cfg')
        check_sizes(contents, ann_file, filtered.get('min_size', 0) if filtered else 0)


def dataset_class(cfg, dataset):
    """Class of a data set's config in the config's scope; None where it is not registered."""
    if not isinstance(dataset['type'], str):
        return dataset['type']
    scope = dataset.get('_scope_') or cfg.get('default_scope')
    with DATASETS.switch_scope_and_registry(scope) as registry:
        return registry.get(dataset['type'])


def reads_image_folders(cls, root, dataset):
    """Whether a data set is mmpretrain's ImageNet, its labels taken from the folders' names."""
    split = dataset.get('split')
    return (
        any(base.__name__ == 'ImageNet' for base in getattr(cls, '__mro__', ()))
        and bool(root and split)
        and not dataset.get('ann_file')
        and not dataset.get('data_prefix')
        and not Path(root, 'meta', f'{split}.txt').is_file()
    )


def reads_plain_coco(cls):
    """Whether a class reads COCO files just as mmdet's CocoDataset does."""
    coco = next((c for c in getattr(cls, '__mro__', ()) if c.__name__ == 'CocoDataset'), None)
    return coco is not None and all(
        getattr(cls, name) is getattr(coco, name) for name in ('load_data_list', 'parse_data_info')
    )


def pretrained_weights(cfg):
    """Weights that the model's `init_cfg` entries name, each checked to be there and readable.

    So are those that mmaction2's backbones name by `pretrained`; they rename them as they load.
    """
    found = []
    for module, init in init_cfgs(cfg.get('model') or {}):
        path = address(init['checkpoint'])
        if '://' in path and not path.startswith(('http://', 'https://')):
            continue
        hint = cfg.get('pretrained_hint', 'Name another file with --cfg-options pretrained=FILE')
        purpose = f'pretrained weights of model.{module}' if module else 'pretrained weights'
        checkpoint = read_checkpoint(path, purpose, f'{hint}, {FROM_SCRATCH}')
        shapes = weight_shapes(checkpoint, path, init.get('prefix'), bare=True)
        found.append(Weights(path, shapes, module))
    return found


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


def started_from(cfg, mode):
    """The checkpoint that a run resumes, continues from or tests, checked to be readable."""
    resume = mode == 'train' and cfg.get('resume', False)
    path = cfg.get('load_from')
    if resume and path is None:
        path, passed_over = latest_checkpoint(cfg.work_dir)
        if path is None and passed_over:
            raise UserError(nothing_whole(cfg.work_dir, passed_over))
    if path is None or ('://' in path and not path.startswith(('http://', 'https://'))):
        return []
    purpose = 'checkpoint to resume' if resume else 'checkpoint'
    checkpoint = read_checkpoint(path, purpose)
    if resume:
        check_resumable(checkpoint, path)
    complete = bool(resume) or mode == 'test'
    return [Weights(path, weight_shapes(checkpoint, path), complete=complete)]
