"""Tiny-ImageNet in one small file, to be carried to a GPU, and as arrays there."""

import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple
from zipfile import ZIP_STORED, ZipFile

import cv2
import numpy as np
import torch
from torch import Tensor

from mmctx.datasets import SPLITS
from mmctx.datasets.packed import PackedTinyImageNet
from mmctx.errors import UserError
from mmctx.files import atomic_write

LABELS = 'labels.json'
# Images of a mosaic side by side. One WebP file of many images has one header for all.
ACROSS = 32


class Images(NamedTuple):
    """A split on a device.

    Attributes:
        pixels (Tensor): (N, 3, H, W), uint8, BGR.
        labels (Tensor): One-hot, (N, N₁), float32.
    """

    pixels: Tensor
    labels: Tensor


def write_packed(data_root: str, cache: str, file: Path, num_classes: int, quality: int) -> None:
    """Compress both splits of Tiny-ImageNet again, into one file.

    Args:
        data_root (str): Root of the set, see `TinyImageNet`.
        cache (str): Folder of the decoded images, see `PackedTinyImageNet`.
        file (Path): What to write.
        num_classes (int): Number of classes, evenly spaced in their order.
        quality (int): WebP's quality, 1 to 100.

    Raises:
        UserError: As `PackedTinyImageNet` does.
    """
    labels = {}
    with atomic_write(file) as out, ZipFile(out, 'w', ZIP_STORED) as archive:
        for split in SPLITS:
            packed = PackedTinyImageNet(data_root, cache, split, 64, num_classes)
            labels[split] = packed.labels
            for i, mosaic in enumerate(_mosaics(packed.images.cpu().numpy())):
                options = [cv2.IMWRITE_WEBP_QUALITY, quality]
                encoded = cv2.imencode('.webp', mosaic, options)[1]
                archive.writestr(f'{split}_{i:04d}.webp', encoded.tobytes())
        archive.writestr(LABELS, json.dumps(labels))


def _mosaics(pixels: np.ndarray) -> Iterator[np.ndarray]:
    count, channels, height, width = pixels.shape
    for begin in range(0, count, ACROSS**2):
        tiles = np.zeros((ACROSS**2, channels, height, width), np.uint8)
        part = pixels[begin : begin + ACROSS**2]
        tiles[: len(part)] = part
        grid = tiles.reshape(ACROSS, ACROSS, channels, height, width).transpose(0, 3, 1, 4, 2)
        yield np.ascontiguousarray(grid).reshape(ACROSS * height, ACROSS * width, channels)


def read_packed(file: Path, device: torch.device) -> dict[str, Images]:
    """Decode what `write_packed` wrote.

    Args:
        file (Path): The file.
        device (torch.device): Where the images shall lie.

    Returns:
        dict[str, Images]: `train` and `val`.

    Raises:
        UserError: There is no such file, or it is another one.
    """
    if not file.is_file():
        raise UserError(f'{file} is not there: write it with the subcommand `pack`')
    found = {}
    with ZipFile(io.BytesIO(file.read_bytes())) as archive:
        if LABELS not in archive.namelist():
            raise UserError(f'{file} was not written by the subcommand `pack`')
        labels = json.loads(archive.read(LABELS))
        classes = 1 + max(max(own) for own in labels.values())
        for split in SPLITS:
            names = sorted(n for n in archive.namelist() if n.startswith(split))
            tiles = torch.cat([_tiles(archive.read(name)) for name in names])
            own = torch.tensor(labels[split])
            one_hot = torch.nn.functional.one_hot(own, classes).float()
            pixels = tiles[: len(own)].contiguous()
            found[split] = Images(pixels.to(device), one_hot.to(device))
    return found


def _tiles(encoded: bytes) -> Tensor:
    mosaic = cv2.imdecode(np.frombuffer(encoded, np.uint8), cv2.IMREAD_COLOR)
    side = mosaic.shape[0] // ACROSS
    grid = mosaic.reshape(ACROSS, side, ACROSS, side, 3).transpose(0, 2, 4, 1, 3)
    return torch.from_numpy(np.ascontiguousarray(grid).reshape(-1, 3, side, side))
