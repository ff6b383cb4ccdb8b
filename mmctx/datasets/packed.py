"""Tiny-ImageNet decoded once and kept in memory."""

import hashlib
import os
from collections.abc import Iterator
from pathlib import Path
from zipfile import ZipFile

import numpy as np
import torch
from mmengine import fileio
from mmengine.device import get_device
from mmengine.logging import print_log
from mmpretrain.structures import DataSample
from rich.progress import track
from torch.utils.data import Dataset

from mmctx.errors import UserError
from mmctx.files import atomic_write
from mmctx.registry import DATASETS

from .tiny_imagenet import TinyImageNet
from .zip_backend import PREFIX


@DATASETS.register_module()
class PackedTinyImageNet(Dataset):
    """Tiny-ImageNet as one uint8 array, so that loading costs next to nothing.

    The first use decodes the images into a file, whose name depends on them. Later uses map that
    file into memory, or copy it to the GPU if there is one.
    Use it with loaders of `num_workers=0` and `pin_memory=False`, and augment whole batches on the
    device, for example by `CropPreprocessor`.

    Args:
        data_root (str): Root of the set, see `TinyImageNet`.
        cache (str): Folder of the decoded files.
        split (str): `train` or `val`. Defaults to `train`.
        image_size (int): Side in pixels; larger images are averaged. Defaults to 64.
        num_classes (int, optional): Number of classes, evenly spaced in their order. Defaults to
            None, all.

    Raises:
        UserError: The set has fewer classes, an image cannot be read or is smaller, or
            `TinyImageNet` refuses the set.
    """

    def __init__(
        self,
        data_root: str,
        cache: str,
        split: str = 'train',
        image_size: int = 64,
        num_classes: int | None = None,
    ):
        images = TinyImageNet(data_root, split, lazy_init=True)
        images.full_init()
        names = images.CLASSES
        num_classes = len(names) if num_classes is None else num_classes
        if not 1 <= num_classes <= len(names):
            raise UserError(f'{data_root} has {len(names)} classes, not {num_classes}')
        chosen = [i * len(names) // num_classes for i in range(num_classes)]
        self.metainfo = dict(classes=tuple(names[i] for i in chosen))
        new_labels = {label: i for i, label in enumerate(chosen)}
        infos = [images.get_data_info(i) for i in range(len(images))]
        infos = [info for info in infos if info['gt_label'] in new_labels]
        self.labels = [new_labels[info['gt_label']] for info in infos]
        paths = [info['img_path'] for info in infos]
        name = f'{split}_{image_size}px_{num_classes}classes_{digest(paths, data_root)}.npy'
        file = Path(cache) / name
        if not file.is_file():
            decode(paths, image_size, file)
        device = get_device()
        # Pages of the file are read when needed and shared by processes.
        stored = torch.from_numpy(np.load(file, mmap_mode='c'))
        self.images = stored if device == 'cpu' else stored.to(device)  # [N, 3, H, W]

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> dict:
        """An image, (3, H, W), uint8, BGR, and its label, as mmpretrain's pipelines pack them."""
        sample = DataSample().set_gt_label(self.labels[index])
        return dict(inputs=self.images[index], data_samples=sample)


def digest(paths: list[str], root: str) -> str:
    """Digest of images, of twelve hexadecimal digits, that does not depend on their root.

    It is another one for other names, another order or other contents as far as `_versions` detects
    them.
    """
    prefix = f'{Path(root)}{os.sep}'
    hashed = hashlib.blake2b(digest_size=6)
    for path, version in zip(paths, _versions(paths)):
        inside = path.removeprefix(PREFIX).removeprefix(prefix)
        hashed.update(f'{inside}\t{version}\n'.encode())
    return hashed.hexdigest()


def _versions(paths: list[str]) -> Iterator[tuple[int, int]]:
    """Size and checksum of archives' members; size and modification time of other files."""
    archives = {}
    for path in paths:
        if path.startswith(PREFIX):
            archive, _, member = path.removeprefix(PREFIX).partition('!/')
            if archive not in archives:
                with ZipFile(archive) as opened:
                    archives[archive] = opened
            info = archives[archive].getinfo(member)
            yield info.file_size, info.CRC
        else:
            status = os.stat(path)
            yield status.st_size, status.st_mtime_ns


def decode(paths: list[str], image_size: int, file: Path) -> None:
    """Decode images into a file of an array (N, 3, H, W) of uint8, BGR; refuse smaller ones."""
    import cv2

    print_log(f'decoding {len(paths)} images into {file}', logger='current')
    packed = np.empty((len(paths), 3, image_size, image_size), np.uint8)
    for i, path in enumerate(track(paths, f'decoding {file.stem}')):
        image = cv2.imdecode(np.frombuffer(fileio.get(path), np.uint8), cv2.IMREAD_COLOR)
        if image is None or min(image.shape[:2]) < image_size:
            raise UserError(f'{path} is not a readable image of {image_size} pixels')
        if image.shape[:2] != (image_size, image_size):
            image = cv2.resize(image, (image_size, image_size), interpolation=cv2.INTER_AREA)
        packed[i] = image.transpose(2, 0, 1)
    with atomic_write(file) as out:
        np.save(out, packed)
