"""Checks of image folders, one for each class, and of Tiny-ImageNet, also in its archives.

The quick check reads only the folders, the full one every image.
"""

import os
from collections.abc import Iterator
from pathlib import Path
from zipfile import BadZipFile

from mmctx.datasets import SPLITS
from mmctx.errors import UserError, first_few
from mmctx.registry import base_named
from mmctx.text import read_text

from .dataset_files import DatasetFiles
from .full_check import Item, Plan, Problem
from .image_file import read_image
from .listed_files import ListedFiles

EXTENSIONS = ('.jpg', '.jpeg', '.png', '.ppm', '.bmp', '.pgm', '.tif')
CHUNK = 16


def quick_check(files: DatasetFiles) -> None:
    """Check lists of mmpretrain's data sets, and ImageNet's folders that are its labels.

    Args:
        files (DatasetFiles): Files of a data set; data sets of other kinds are not checked.

    Raises:
        UserError: :func:`check_image_list` or :func:`check_image_folder` refuses the data set.
    """
    config, split = files.config, files.config.get('split')
    if files.ann_file and reads_image_list(files.cls) and config.get('with_label', True):
        check_image_list(files.ann_file)
    listed = config.get('ann_file') or config.get('data_prefix')
    if not (base_named(files.cls, 'ImageNet') and files.root and split) or listed:
        return
    if not Path(files.root, 'meta', f'{split}.txt').is_file():
        classes = files.classes and len(files.classes)
        check_image_folder(os.path.join(files.root, split), classes, files.hint)


def reads_image_list(cls: type | None) -> bool:
    """Whether a class reads a list of a file and a label in each line, as mmpretrain's do."""
    lists = base_named(cls, 'CustomDataset')
    own = getattr(cls, 'load_data_list', None) is getattr(lists, 'load_data_list', None)
    return lists is not None and (own or base_named(cls, 'ImageNet') is not None)


def check_image_list(path: str) -> None:
    """Check that each line of a list is a file and the number of its class."""
    try:
        lines = read_text(path).splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f'{path} is no list of images: {error}') from error
    for number, line in enumerate(lines, start=1):
        _, _, label = line.strip().rpartition(' ')
        if label == line.strip() or not label.lstrip('-').isdecimal():
            raise UserError(
                f'{path}, line {number}: expected a file, a space and the number of its class, '
                f'got {line!r}'
            )
    if not lines:
        raise UserError(f'{path} lists no images')


def check_image_folder(root, classes=None, hint=''):
    """Check a folder with one folder of images for each class, such as `train/` of ImageNet.

    Without a number of classes it may have any; the hint is for one that is missing.
    """
    root = Path(root)
    if not root.is_dir():
        raise UserError(f'image folder {root} does not exist; {hint}')
    folders = class_folders(root)
    if not folders:
        raise UserError(f'image folder {root} has no class folders')
    if classes is not None and len(folders) != classes:
        raise UserError(
            f'image folder {root} has {len(folders)} class folders, but the data set has '
            f'{classes} classes'
        )
    empty = [name for name in folders if not _has_image(root / name)]
    if empty:
        raise UserError(
            f'{len(empty)} of the {len(folders)} class folders of {root} have no images: '
            f'{first_few(empty)}'
        )


def class_folders(root):
    """Sorted names of the folders in a folder; their order is the order of the labels."""
    return sorted(entry.name for entry in os.scandir(root) if entry.is_dir())


def is_image_name(name):
    """Whether mmpretrain takes a file of this name for an image."""
    return name.lower().endswith(EXTENSIONS)


def _has_image(folder):
    return any(is_image_name(name) for _, _, names in os.walk(folder) for name in names)


def plan_imagenet(root: Path, splits: list[str] | None = None, classes: int = 1000) -> Plan:
    """Plan a check of `train/` and `val/`, by the lists in `meta/` if there are any.

    Args:
        root (Path): Folder of the data, the IMAGENET_ROOT of the configs.
        splits (list[str], optional): Names of the folders to check. Defaults to None, `train` and
            `val`.
        classes (int): Number of classes. Defaults to 1000.

    Returns:
        Plan: Check, with the problems of the folders.

    Raises:
        UserError: A split is missing, or has neither class folders nor a list.
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
    """Plan a check of Tiny-ImageNet; the arguments are those of :func:`plan_imagenet`.

    Raises:
        UserError: A split is missing, or the package that reads it is not installed.
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
    """Find classes that only some splits have, which would change the labels after them."""
    everything = set().union(*found.values())
    for split, names in found.items():
        for name in sorted(everything - names):
            others = ', '.join(other for other in found if name in found[other])
            yield Problem(f'{split}/{name}', f'is no class folder here, but in {others}')


def _images_in(root, folder, problems):
    """List the items of a class folder, which may have images at any depth."""
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
