"""Comparison of the classes of data sets, heads of the model, and checkpoint."""

from collections.abc import Iterator
from itertools import pairwise

import torch.nn as nn

from mmctx.errors import UserError, first_few

from .datasets import class_names, metainfo, name_of, samples_of

# Heads without classes, or with other classes than the data set.
OTHER_CLASSES = ('RPNHead', 'FusedSemanticHead', 'VGG')


def check_classes(model: nn.Module, data: dict, checked) -> None:
    """Compare the classes of all data sets with each other, the heads and the checkpoint.

    Args:
        model (nn.Module): The model, without wrappers.
        data (dict[str, list[Dataset]]): Data sets of each split, without wrappers.
        checked (Checked): Contents of the run's files, from the preflight.

    Raises:
        UserError: The classes differ in number, names or order.
    """
    sets = [(split, dataset) for split, found in data.items() for dataset in found]
    for split, dataset in sets:
        check_heads(model, dataset, split)
    for before, after in pairwise(sets):
        compare_names(*before, *after)
    for path, names in checkpoint_classes(checked):
        for split, dataset in sets:
            compare_with_checkpoint(path, names, split, dataset)


def class_counts(model: nn.Module) -> Iterator[tuple[str, int]]:
    """Find the parts of a model that predict the data set's classes: name and number of classes."""
    if hasattr(model, 'language_model'):
        # The classes of such a model are words.
        return
    for name, module in model.named_modules():
        parents = {base.__name__ for base in type(module).__mro__}
        if getattr(module, 'out_type', None) == 'logits' and hasattr(module, 'contextualizing'):
            yield f'{name}.num_classes', module.contextualizing.embeddings.num_embeddings
        count = getattr(module, 'num_classes', None)
        of_features = name.split('.')[0] == 'backbone' or 'loss' in name.rsplit('.', 1)[-1]
        unrelated = parents & set(OTHER_CLASSES) or name.endswith(('rpn_head', 'semantic_head'))
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
            check_labels(model, dataset, name)
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


def check_labels(model: nn.Module, dataset, name: str) -> None:
    """Check the labels of a data set that does not name its classes."""
    heads = dict(class_counts(model))
    if not heads:
        return
    key = min(heads, key=lambda key: heads[key])
    for sample in samples_of(dataset):
        for label in sample.labels:
            if not 0 <= label < heads[key]:
                raise UserError(
                    f'{sample.path} has the label {label} in {name}, but model.{key} is '
                    f'{heads[key]}: classes are numbered from 0'
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


def checkpoint_classes(checked) -> Iterator[tuple[str, tuple]]:
    """Find the classes on which a checkpoint to resume or to test was trained."""
    for weights in checked.weights:
        meta = checked.checkpoints.get(weights.path, {}).get('meta')
        info = meta.get('dataset_meta') if isinstance(meta, dict) else None
        names = class_names(info) if weights.complete and isinstance(info, dict) else None
        if names:
            yield weights.path, names


def compare_with_checkpoint(path: str, names: tuple, split: str, dataset) -> None:
    """Check that a data set numbers classes like the data set of a checkpoint's training."""
    found = class_names(metainfo(dataset))
    if found and found != names:
        where = f'the data of {path}', f'{split}_dataloader'
        raise UserError(
            f'{path} was trained on other classes, or on these in another order: '
            f'{difference(names, found, where)}'
        )
