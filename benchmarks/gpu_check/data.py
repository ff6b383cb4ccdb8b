"""Images, clips and shapes that are easy to learn, rendered if no real data is named."""

import os
from pathlib import Path

import av
import cv2
import numpy as np

from mmctx.datasets.shapes import render_dataset

from .sizes import Place

# Blue, green and red of each class.
COLOURS = ((40, 40, 220), (40, 220, 40), (220, 40, 40), (40, 220, 220))
NOISE = 30
SHAPES = (('COCO_ROOT', 'shapes'), ('K400_ROOT', 'clips'), ('IMAGENET_ROOT', 'images'))


def root_of(variable: str, place: Place) -> tuple[Path, bool]:
    """Folder of a data set, and whether it is real.

    Args:
        variable (str): 'COCO_ROOT', 'K400_ROOT' or 'IMAGENET_ROOT'; what it names is used on a GPU.
        place (Place): Device and folder of the check.

    Returns:
        tuple[Path, bool]: The folder, and False for one beneath `place.data`.
    """
    real = os.environ.get(variable)
    if real and not place.small:
        return Path(real).resolve(), True
    return place.data / dict(SHAPES)[variable], False


def picture(label: int, side: int, draw: np.random.Generator) -> np.ndarray:
    """A noisy square of the class's colour, (side, side, 3), BGR."""
    noise = draw.integers(-NOISE, NOISE, (side, side, 3))
    return (np.array(COLOURS[label]) + noise).clip(0, 255).astype(np.uint8)


def render_images(root: Path, count: int, side: int) -> None:
    """Pictures of four classes, laid out as ImageNet with annotation files is."""
    draw = np.random.default_rng(0)
    (root / 'train').mkdir(parents=True)
    (root / 'meta').mkdir()
    labels = {f'{i}.jpg': i % len(COLOURS) for i in range(count)}
    for name, label in labels.items():
        cv2.imwrite(str(root / 'train' / name), picture(label, side, draw))
    lines = [f'{name} {label}\n' for name, label in labels.items()]
    (root / 'meta' / 'train.txt').write_text(''.join(lines))


def render_clips(root: Path, count: int, frames: int, side: int) -> None:
    """Clips of four classes, laid out as Kinetics-400 is."""
    draw = np.random.default_rng(0)
    folder = root / 'videos_train'
    folder.mkdir(parents=True)
    labels = {f'{i}.mp4': i % len(COLOURS) for i in range(count)}
    for name, label in labels.items():
        with av.open(str(folder / name), 'w') as clip:
            stream = clip.add_stream('mpeg4', rate=10, options={'threads': '1'})
            stream.width = stream.height = side
            stream.pix_fmt = 'yuv420p'
            for _ in range(frames):
                frame = av.VideoFrame.from_ndarray(picture(label, side, draw), format='bgr24')
                clip.mux(stream.encode(frame))
            clip.mux(stream.encode())
    lines = [f'{name} {label}\n' for name, label in labels.items()]
    (root / 'kinetics400_train_list_videos.txt').write_text(''.join(lines))


def render(place: Place) -> dict:
    """Render the data sets for which no real one is named.

    Args:
        place (Place): Device and folder of the check.

    Returns:
        dict: Path of each data set.
    """
    counts = dict(images=40, clips=20, shapes=20) if place.small else {}
    counts = {**dict(images=320, clips=80, shapes=40), **counts}
    side = 48 if place.small else 256
    roots = {name: root_of(variable, place) for variable, name in SHAPES}
    for name, (root, real) in roots.items():
        if real:
            continue
        if name == 'images':
            render_images(root, counts[name], side)
        elif name == 'clips':
            render_clips(root, counts[name], 16, side)
        else:
            processes = 1 if place.small else min(os.cpu_count(), 8)
            render_dataset(root, num_train=counts[name], num_val=1, seed=0, nproc=processes)
    return {name: str(root) for name, (root, _) in roots.items()}
