"""Checks of a data set in COCO's format: is the file COCO's, and are its images there?"""

import contextlib
import gc
import json
import os
from collections import defaultdict
from pathlib import Path

from .errors import UserError

STRIDE = 32
SHOWN = 3


def _sample(names):
    names = sorted(names)
    rest = f' and {len(names) - SHOWN} more' if len(names) > SHOWN else ''
    return ', '.join(map(str, names[:SHOWN])) + rest


@contextlib.contextmanager
def _no_garbage_collection():
    # Millions of new objects trigger it over and over: COCO's file takes five times as long.
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


def read_coco(path, annotations_needed=True):
    """Read an annotation file and refuse what is not in COCO's format.

    Args:
        path (str | Path): The annotation file.
        annotations_needed (bool): Whether it must hold annotations; a test set that is only
            predicted has none. Defaults to True.

    Returns:
        dict: The contents.

    Raises:
        UserError: If it is not JSON, lacks a part, or an entry of it lacks a key.
    """
    try:
        with open(path, encoding='utf-8') as file, _no_garbage_collection():
            contents = json.load(file)
    except (OSError, ValueError) as error:
        raise UserError(f'annotation file {path} is not readable JSON: {error}') from error
    required = {
        'images': ('id', 'file_name', 'width', 'height'),
        'categories': ('id', 'name'),
    }
    if annotations_needed:
        required['annotations'] = ('image_id', 'category_id', 'bbox')
    for part, keys in required.items():
        entries = contents.get(part) if isinstance(contents, dict) else None
        if not isinstance(entries, list):
            raise UserError(
                f'annotation file {path} is not in COCO format: it has no list {part!r}'
            )
        keys = set(keys)
        for index, entry in enumerate(entries):
            if not isinstance(entry, dict) or not keys <= entry.keys():
                missing = sorted(keys - set(entry)) if isinstance(entry, dict) else sorted(keys)
                raise UserError(
                    f'annotation file {path} is not in COCO format: {part}[{index}] has no '
                    f'{", ".join(missing)}'
                )
    if not contents['images']:
        raise UserError(f'annotation file {path} lists no images')
    return contents


def check_images(contents, path, folder):
    """Check that every image is there; each folder is listed once, no file is looked up singly.

    Args:
        contents (dict): Contents of the annotation file.
        path (str | Path): The annotation file, for messages.
        folder (str | Path): Folder that the file names of the images start from.

    Raises:
        UserError: If images are missing; names the first few and their number.
    """
    by_folder = defaultdict(set)
    for image in contents['images']:
        parent, name = os.path.split(image['file_name'])
        by_folder[parent].add(name)
    missing = []
    for parent, names in by_folder.items():
        inner = Path(folder) / parent
        there = set(os.listdir(inner)) if inner.is_dir() else set()
        missing += [os.path.join(parent, name) for name in names - there]
    if missing:
        raise UserError(
            f'{len(missing)} of the {len(contents["images"])} images named in {path} are not in '
            f'{folder}: {_sample(missing)}'
        )


def check_categories(contents, path, classes):
    """Check that the file has every class that the data set names.

    A class that it lacks would be dropped without a word, and all later labels would shift.

    Args:
        contents (dict): Contents of the annotation file.
        path (str | Path): The annotation file, for messages.
        classes (sequence of str): Class names of the data set.

    Raises:
        UserError: If a class is missing.
    """
    names = [category['name'] for category in contents['categories']]
    missing = [name for name in classes if name not in names]
    if missing:
        raise UserError(
            f'{len(missing)} of the {len(classes)} classes of the data set are not among the '
            f'categories of {path}: {_sample(missing)} (the file has: {_sample(names)}); name '
            'your own classes with metainfo=dict(classes=(...)) in every dataset of the config'
        )


def check_sizes(contents, path, dropped_below=0):
    """Check that no image is smaller than the network's stride.

    Args:
        contents (dict): Contents of the annotation file.
        path (str | Path): The annotation file, for messages.
        dropped_below (int): Images whose shorter side is below this many pixels are left out by
            the data set itself. Defaults to 0.

    Raises:
        UserError: If an image that is used has a side below the stride.
    """
    small = [
        f'{image["file_name"]} ({image["width"]}x{image["height"]})'
        for image in contents['images']
        if dropped_below <= min(image['width'], image['height']) < STRIDE
    ]
    if small:
        raise UserError(
            f"{len(small)} images in {path} are smaller than the network's stride of {STRIDE} "
            f'pixels: {_sample(small)}; take them out of the annotation file'
        )
