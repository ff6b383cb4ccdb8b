"""Folders of images, one for each class, read as a whole; Tiny-ImageNet also in its archives."""

import os
from collections.abc import Iterator
from pathlib import Path
from zipfile import BadZipFile

from mmctx.errors import UserError

from .image_file import read_image
from .imagenet_quick import class_folders, is_image_name
from .listed_files import ListedFiles
from .plan import Item, Plan, Problem

SPLITS = ('train', 'val')
CHUNK = 16


def plan_imagenet(root: Path, splits: list[str] | None = None, classes: int = 1000) -> Plan:
    """Check `train/` and `val/`, and a split whose labels stand in `meta/` by that list.

    Args:
        root (Path): Folder of the data, the IMAGENET_ROOT of the configs.
        splits (list[str], optional): Folders of classes. Defaults to None, `train` and `val`.
        classes (int): Number of classes. Defaults to 1000.

    Returns:
        Plan: With what is wrong in the folders.

    Raises:
        UserError: A split is not there, or has neither class folders nor a list.
    """
    problems, items, found = [], [], {}
    for split in splits or SPLITS:
        folder = root / split
        if not folder.is_dir():
            raise UserError(f'image folder {folder} does not exist')
        if (root / 'meta' / f'{split}.txt').is_file():
            listed = ListedFiles(root, f'meta/{split}.txt', split, classes)
            problems += listed.problems
            items += listed.items
            continue
        names = class_folders(folder)
        if not names:
            raise UserError(f'image folder {folder} has no class folders')
        found[split] = set(names)
        if len(names) != classes:
            problems.append(Problem(split, f'has {len(names)} class folders, not {classes}'))
        for name in sorted(os.listdir(folder)):
            if name not in found[split]:
                problems.append(Problem(f'{split}/{name}', 'is in no class folder'))
        for name in names:
            items += _images_in(root, f'{split}/{name}', problems)
    problems += differences(found)
    return Plan(f'{len(items)} images', problems, items, read_image, CHUNK)


def plan_tiny_imagenet(root: Path, splits: list[str] | None = None, classes: int = 200) -> Plan:
    """Check Tiny-ImageNet, in folders or archives; the arguments are :func:`plan_imagenet`'s.

    Raises:
        UserError: A split is not there, or the package that reads it is missing.
    """
    from mmctx.datasets.tiny_imagenet import images_by_class
    from mmctx.datasets.zip_backend import PREFIX

    problems, items, found = [], [], {}
    for split in splits or SPLITS:
        try:
            images = images_by_class(root, split)
        except (UserError, BadZipFile, OSError) as error:
            raise UserError(f'cannot read {split} of {root}: {error}') from error
        found[split] = set(images)
        if len(images) != classes:
            problems.append(Problem(split, f'has {len(images)} classes, not {classes}'))
        for name in sorted(images):
            if not images[name]:
                problems.append(Problem(f'{split}, class {name}', 'has no images'))
            for path in sorted(images[name]):
                shown = os.path.relpath(path.removeprefix(PREFIX), root)
                items.append(Item(shown, path))
    problems += differences(found)
    return Plan(f'{len(items)} images', problems, items, read_image, CHUNK)


def differences(found: dict[str, set[str]]) -> Iterator[Problem]:
    """Classes that one split has and another one lacks: all labels behind them would differ."""
    everything = set().union(*found.values())
    for split, names in found.items():
        for name in sorted(everything - names):
            others = ', '.join(other for other in found if name in found[other])
            yield Problem(f'{split}/{name}', f'is no class folder here, but in {others}')


def _images_in(root, folder, problems):
    """Items of a class folder, in which images may lie at any depth."""
    items = []
    for parent, _, names in os.walk(root / folder, followlinks=True):
        inside = Path(parent).relative_to(root)
        for name in sorted(names):
            shown = (inside / name).as_posix()
            if is_image_name(name):
                items.append(Item(shown, os.path.join(parent, name)))
            else:
                problems.append(Problem(shown, 'is no image by its name'))
    if not items:
        problems.append(Problem(folder, 'has no images'))
    return items
