"""Checks of an image folder: are the classes there, as many as the model has, none empty?"""

import os
from pathlib import Path

from mmctx.errors import UserError, first_few

EXTENSIONS = ('.jpg', '.jpeg', '.png', '.ppm', '.bmp', '.pgm', '.tif')


def check_image_folder(root, classes=None, hint=''):
    """Check a folder of one folder of images for each class, as `train/` of ImageNet.

    Args:
        root (str | Path): The folder.
        classes (int, optional): Number of classes of the data set. Defaults to None, any.
        hint (str): What to do about a missing folder. Defaults to ''.

    Raises:
        UserError: If the folder is missing, has not as many class folders, or has empty ones.
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
    """Names of the folders in a folder, sorted: their order numbers the classes."""
    return sorted(entry.name for entry in os.scandir(root) if entry.is_dir())


def is_image_name(name):
    """Whether mmpretrain takes a file of this name for an image."""
    return name.lower().endswith(EXTENSIONS)


def _has_image(folder):
    return any(is_image_name(name) for _, _, names in os.walk(folder) for name in names)
