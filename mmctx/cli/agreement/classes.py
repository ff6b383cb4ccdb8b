"""Comparison of the classes of data sets, heads of the model, and checkpoint."""

import logging
from collections.abc import Iterator
from itertools import pairwise
from pathlib import PurePath

import torch.nn as nn
from mmengine.logging import print_log

from mmctx.errors import UserError, first_few
from mmctx.registry import base_named

from .datasets import check_range, class_names, metainfo, name_of, samples_of

# Heads without classes, or with other classes than the data set.
OTHER_CLASSES = ('RPNHead', 'FusedSemanticHead', 'VGG')


def check_classes(model: nn.Module, data: dict, checked) -> None:
    """Compare the classes of all data sets with each other, the heads and the checkpoint."""
    sets = [(split, dataset) for split, found in data.items() for dataset in found]
    for split, dataset in sets:
        check_heads(model, dataset, split)
        compare_with_folders(split, dataset)
    for before, after in pairwise(sets):
        compare_names(*before, *after)
    for (split, numbers), (other, others) in pairwise(
        (split, labels_of_folders(dataset)) for split, dataset in sets
    ):
        compare_labels(split, numbers, other, others)
    for path, names, is_same_task in checkpoint_classes(checked):
        for split, dataset in sets:
            compare_with_checkpoint(path, names, is_same_task, split, dataset)


def class_counts(model: nn.Module) -> Iterator[tuple[str, int]]:
    """Find the parts of a model that predict the data set's classes: name and number of classes."""
    if hasattr(model, 'language_model'):
        # The classes of such a model are words.
        return
    for name, module in model.named_modules():
        if getattr(module, 'out_type', None) == 'logits' and hasattr(module, 'contextualizing'):
            yield f'{name}.num_classes', module.contextualizing.embeddings.num_embeddings
        count = getattr(module, 'num_classes', None)
        of_features = name.split('.')[0] == 'backbone' or 'loss' in name.rsplit('.', 1)[-1]
        unrelated = any(base_named(type(module), other) for other in OTHER_CLASSES)
        unrelated = unrelated or name.endswith(('rpn_head', 'semantic_head'))
        if type(count) is int and not of_features and not unrelated:
            yield f'{name}.num_classes' if name else 'num_classes', count


def check_heads(model: nn.Module, dataset, split: str) -> None:
    """Check that heads have as many classes as a data set."""
    info = metainfo(dataset)
    classes = class_names(info)
    name = f'{name_of(dataset)} of {split}_dataloader'
    if classes is None:
        count = getattr(dataset, 'num_classes', None)
        if type(count) is not int:
            smallest = min(((n, key) for key, n in class_counts(model)), default=None)
            if smallest:
                limit, key = smallest
                labels = ((s.path, label) for s in samples_of(dataset) for label in s.labels)
                check_range(labels, limit, name, f'model.{key} is {limit}')
            return
        possible = {count}
    else:
        # With a panoptic data set some heads predict only things or only stuff.
        count = len(classes)
        parts = [value for key, value in info.items() if key.endswith('_classes')]
        possible = {count, *(len(value) for value in parts if isinstance(value, (list, tuple)))}
    for key, heads in class_counts(model):
        if heads not in possible:
            names = f' ({first_few(classes)})' if classes else ''
            raise UserError(
                f'model.{key} is {heads}, but {name} has {count} classes{names}: set '
                f'model.{key}={count}, or name the classes of the data set by '
                'metainfo=dict(classes=(...))'
            )


def compare_names(split, dataset, other_split, other) -> None:
    """Check that two data sets number the same classes in the same way."""
    where = f'{split}_dataloader', f'{other_split}_dataloader'
    folders = [getattr(found, 'folder_to_idx', None) or {} for found in (dataset, other)]
    if all(folders) and folders[0] != folders[1]:
        raise UserError(
            f'the class folders of {where[0]} and {where[1]} are not the same: '
            f'{difference(tuple(folders[0]), tuple(folders[1]), where)}; labels are their numbers '
            'in the sorted order, so they would differ'
        )
    names = [class_names(metainfo(found)) or () for found in (dataset, other)]
    if all(names) and names[0] != names[1]:
        raise UserError(
            f'{where[0]} and {where[1]} do not have the same classes in the same order: '
            f'{difference(names[0], names[1], where)}'
        )


def compare_with_folders(split: str, dataset) -> None:
    """Check that `classes` lists the class folders in the order of their labels."""
    folders = tuple(getattr(dataset, 'folder_to_idx', None) or ())
    names = class_names(metainfo(dataset)) or ()
    if folders != names and set(folders) == set(names):
        where = 'the folders', f'`classes` of {split}_dataloader'
        raise UserError(
            f'{difference(folders, names, where)}: labels are the numbers of the folders in the '
            'sorted order, whatever the order of the names, so sort them'
        )


def labels_of_folders(dataset) -> dict[str, int]:
    """Find the label of each folder in a list; empty unless each folder has a single label."""
    found: dict[str, int] = {}
    if not getattr(dataset, 'ann_file', None) and not getattr(dataset, 'folder_to_idx', None):
        return found
    for sample in samples_of(dataset):
        name = PurePath(sample.path).parent.name
        if len(sample.labels) != 1 or found.setdefault(name, sample.labels[0]) != sample.labels[0]:
            # Such folders are not class folders.
            return {}
    return found if len(set(found.values())) > 1 else {}


def compare_labels(split: str, numbers: dict, other_split: str, others: dict) -> None:
    """Check that two data sets give files in folders of the same name the same labels."""
    for name in sorted(numbers.keys() & others.keys()):
        if numbers[name] != others[name]:
            raise UserError(
                f'files in folders {name} have the label {numbers[name]} in {split}_dataloader and '
                f'{others[name]} in {other_split}_dataloader: write both lists with the same '
                'numbers of the classes'
            )


def difference(first: tuple, second: tuple, where: tuple[str, str]) -> str:
    """Describe how two sequences of class names differ."""
    alone = [name for name in first if name not in second]
    added = [name for name in second if name not in first]
    parts = []
    if alone:
        parts.append(f'only {where[0]} has {first_few(alone)}')
    if added:
        parts.append(f'only {where[1]} has {first_few(added)}')
    if not parts:
        place, (a, b) = next(
            (place, pair) for place, pair in enumerate(zip(first, second)) if pair[0] != pair[1]
        )
        parts.append(f'class {place} is {a} in {where[0]} and {b} in {where[1]}')
    return ', '.join(parts)


def checkpoint_classes(checked) -> Iterator[tuple[str, tuple, bool]]:
    """Find the classes on which a checkpoint was trained, and whether it is resumed or tested."""
    for weights in checked.weights:
        meta = checked.checkpoints.get(weights.path, {}).get('meta')
        info = meta.get('dataset_meta') if isinstance(meta, dict) else None
        names = class_names(info) if isinstance(info, dict) and not weights.module else None
        if names:
            yield weights.path, names, weights.complete


def compare_with_checkpoint(
    path: str, names: tuple, is_same_task: bool, split: str, dataset
) -> None:
    """Check that a data set numbers classes like the data set of a checkpoint's training.

    A training that only starts from the checkpoint may have other classes. The same classes in
    another order are probably a mistake: the weights of the head would belong to the wrong classes.
    """
    found = class_names(metainfo(dataset))
    if not found or found == names:
        return
    where = f'the data of {path}', f'{split}_dataloader'
    if is_same_task:
        raise UserError(
            f'{path} was trained on other classes, or on these in another order: '
            f'{difference(names, found, where)}'
        )
    if split == 'train' and set(found) == set(names):
        print_log(
            f'{path} was trained on the same classes in another order: '
            f'{difference(names, found, where)}',
            'current',
            logging.WARNING,
        )
