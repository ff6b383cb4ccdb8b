"""A small classification set that is rendered: one coloured shape an image, in 40 classes.

Its classes form groups, as those of ImageNet do: a network can know the colour before the shape.
"""

from itertools import product
from pathlib import Path

import cv2
import numpy as np
from rich.progress import track

from mmctx.datasets import SPLITS
from mmctx.errors import UserError

from .shapes import MAX_TURN, OUTLINES, background, coverage_of, finish, paint, turned

SIDE = 96
RADII = (20, 40)
# Beginning and end in turns of the colour circle, far enough apart for the names to be certain.
HUES = {
    'red': (-0.03, 0.03),
    'yellow': (0.12, 0.17),
    'green': (0.28, 0.40),
    'blue': (0.55, 0.66),
    'purple': (0.76, 0.86),
}
CLASSES = tuple(f'{colour}-{shape}' for colour, shape in product(HUES, OUTLINES))


def render_object(label: int, index: int, split: str = 'train', seed: int = 0) -> np.ndarray:
    """Render one shape on a patterned background.

    Args:
        label (int): Number of its class in `CLASSES`.
        index (int): Number of the image among those of its class and split.
        split (str): 'train' or 'val'. Defaults to 'train'.
        seed (int): Seed of the whole set. Defaults to 0.

    Returns:
        np.ndarray: BGR uint8 image, (96, 96, 3).
    """
    colour, shape = CLASSES[label].split('-')
    rng = np.random.default_rng([seed, SPLITS.index(split), label, index])
    canvas = background(rng, (SIDE, SIDE))
    radius = np.exp(rng.uniform(*np.log(RADII)))
    squeeze = np.diag([radius, radius * rng.uniform(0.85, 1)])
    centre = rng.uniform(radius, SIDE - radius, 2)
    transform = np.column_stack([turned(rng.uniform(-MAX_TURN, MAX_TURN)) @ squeeze, centre])
    paint(rng, canvas, coverage_of(OUTLINES[shape], transform, (SIDE, SIDE)), HUES[colour])
    return finish(rng, canvas)


def render_folders(
    root: str | Path, train_each: int = 100, val_each: int = 10, seed: int = 0
) -> None:
    """Write the set as mmpretrain's `CustomDataset` and torchvision's `ImageFolder` read it.

    Args:
        root (str | Path): Folder of `train/` and `val/`, each with a folder for each class. Images
            that are there already are kept.
        train_each (int): Training images of each class. Defaults to 100.
        val_each (int): Validation images of each class. Defaults to 10.
        seed (int): Seed of the set, not negative. Defaults to 0.

    Raises:
        UserError: A number is out of range, or an image cannot be written.
    """
    if min(train_each, val_each) < 1 or seed < 0:
        raise UserError(
            'the numbers of images must be at least 1 and the seed at least 0, '
            f'but got {train_each}, {val_each} and {seed}'
        )
    for split, each in zip(SPLITS, (train_each, val_each)):
        for label, name in enumerate(track(CLASSES, f'rendering {split}')):
            folder = Path(root) / split / name
            folder.mkdir(parents=True, exist_ok=True)
            for index in range(each):
                path = folder / f'{index:04d}.png'
                if not path.exists() and not cv2.imwrite(
                    str(path), render_object(label, index, split, seed)
                ):
                    raise UserError(f'cannot write {path}')
