"""Tiny-ImageNet for mmpretrain: 200 classes of 64×64 pixels, in folders or zip archives."""

import os
import re
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from zipfile import ZipFile

from mmpretrain.datasets import BaseDataset

from mmctx.datasets import SPLITS
from mmctx.errors import UserError
from mmctx.registry import DATASETS
from mmctx.text import read_text

from .imagenet import CheckedImages
from .zip_backend import zip_path

EXTENSIONS = ('.jpeg', '.jpg', '.png')
CLASS_FOLDER = re.compile(r'(?:^|/)(n\d{8})/')


class _TinyImageNet(BaseDataset):
    """Tiny-ImageNet without the checks of `CheckedImages`."""

    def __init__(self, data_root: str, split: str, **kwargs):
        if split not in SPLITS:
            raise UserError(f'split should be one of {SPLITS}, got {split!r}')
        self.split = split
        super().__init__(ann_file='', data_root=data_root, **kwargs)

    def load_data_list(self) -> list[dict]:
        root = Path(self.data_root)
        images = images_by_class(root, self.split)
        names = class_names(root)
        if not names:
            others = images if self.split == 'train' else images_by_class(root, 'train')
            names = {wnid: wnid for wnid in others}
        wnids = sorted(names)
        empty = [wnid for wnid in wnids if not images.get(wnid)]
        if empty:
            raise UserError(
                f'{len(empty)} of the {len(wnids)} classes have no images in {self.split} of '
                f'{root}: {", ".join(empty[:3])}'
            )
        unknown = sorted(images.keys() - names)
        if unknown:
            raise UserError(
                f'{self.split} of {root} has classes that are not among its {len(wnids)}: '
                f'{", ".join(unknown[:3])}'
            )
        self._metainfo.setdefault('classes', tuple(names[wnid] for wnid in wnids))
        return [
            dict(img_path=path, gt_label=label)
            for label, wnid in enumerate(wnids)
            for path in sorted(images[wnid])
        ]


@DATASETS.register_module()
class TinyImageNet(CheckedImages, _TinyImageNet):
    """Tiny-ImageNet in its standard folders or in zip archives, which need not be unpacked.

    The root contains `train/` and `val/`, or archives `train*.zip` and `val*.zip`. The class of an
    image is the WordNet number that its folder is named after or, in the standard `val/`, the one
    that `val_annotations.txt` states. Labels count the sorted WordNet numbers of `classes.tsv` or
    `wnids.txt`, or of the training set if neither file exists.

    Args:
        data_root (str): Root folder of the data.
        split (str): `train` or `val`. Defaults to `train`.
        skip_broken (bool): Whether a broken image is replaced by another one, with a warning;
            possible in training only. Defaults to False.
        **kwargs: Arguments of mmpretrain's `BaseDataset`.

    Raises:
        UserError: The split is missing, a class is unknown or has no images, or a label is out of
            the range of a given `metainfo`.
    """

    def __init__(self, data_root: str, split: str = 'train', **kwargs):
        super().__init__(data_root=data_root, split=split, **kwargs)


def images_by_class(root: Path, split: str) -> dict[str, list[str]]:
    """Find the images of a split.

    Args:
        root (Path): Folder of the data.
        split (str): `train` or `val`.

    Returns:
        dict[str, list[str]]: Paths of the images, for mmengine's file functions, by WordNet number;
        an empty list for an empty folder.

    Raises:
        UserError: The split has neither a folder nor an archive.
    """
    folder, archives = root / split, sorted(root.glob(f'{split}*.zip'))
    if not folder.is_dir() and not archives:
        raise UserError(f'there is neither {folder} nor {root}/{split}*.zip')
    annotations = folder / f'{split}_annotations.txt'
    stated = dict(_table(annotations)) if annotations.is_file() else {}
    images: dict[str, list[str]] = defaultdict(list)
    for name, path in _folder_entries(folder) if folder.is_dir() else _zip_entries(archives):
        in_folder = CLASS_FOLDER.search(name)
        wnid = in_folder[1] if in_folder else stated.get(name.rsplit('/', 1)[-1])
        if wnid:
            images[wnid] += [path] if name.lower().endswith(EXTENSIONS) else []
    return dict(images)


def class_names(root: Path) -> dict[str, str]:
    """Class names by WordNet number, from `classes.tsv` or from `wnids.txt` and `words.txt`."""
    if (root / 'classes.tsv').is_file():
        return dict(_table(root / 'classes.tsv'))
    if not (root / 'wnids.txt').is_file():
        return {}
    words = dict(_table(root / 'words.txt')) if (root / 'words.txt').is_file() else {}
    wnids = read_text(root / 'wnids.txt').split()
    return {wnid: words.get(wnid, wnid) for wnid in wnids}


def _table(path: Path) -> Iterator[tuple[str, str]]:
    for line in read_text(path).splitlines():
        if line.strip():
            key, value, *_ = line.rstrip().split('\t')
            yield key, value


def _folder_entries(folder: Path) -> Iterator[tuple[str, str]]:
    for parent, folders, files in os.walk(folder):
        inside = Path(parent).relative_to(folder).as_posix()
        for name in [*files, *(f'{name}/' for name in folders)]:
            yield f'{inside}/{name}', os.path.join(parent, name)


def _zip_entries(archives: list[Path]) -> Iterator[tuple[str, str]]:
    for archive in archives:
        with ZipFile(archive) as opened:
            for name in opened.namelist():
                yield name, zip_path(archive, name)
