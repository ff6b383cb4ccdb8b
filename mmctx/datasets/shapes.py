"""A small instance-segmentation set in COCO format that is rendered, not downloaded.

Each image depends only on the seed, its split and its index, so images can be rendered in any order
and in any process.
"""

import colorsys
import json
import multiprocessing
from functools import partial
from pathlib import Path
from shutil import rmtree

import cv2
import numpy as np
from pycocotools import mask as coco_mask
from rich.progress import track

from mmctx.datasets import SPLITS
from mmctx.errors import UserError

STAMP = 'shapes.json'
FORMAT_VERSION = 1
SIDES = (112, 160)
RADII = (13, 38)
MAX_TURN = np.deg2rad(25)
MIN_VISIBLE_FRACTION = 0.4
MIN_VISIBLE_AREA = 60
SUPERSAMPLING = 4


def turned(angle):
    """Matrix that turns points by an angle in radians."""
    cos, sin = np.cos(angle), np.sin(angle)
    return np.array([[cos, -sin], [sin, cos]])


def _arc(start, stop, radius=1.0, centre=(0.0, 0.0), points=48):
    angles = np.linspace(start, stop, points)
    return np.stack([np.cos(angles), np.sin(angles)], axis=1) * radius + centre


def _regular(corners, inner=None):
    """A regular polygon, or a star whose inner corners lie at radius `inner`."""
    radii = np.array([1.0] if inner is None else [1.0, inner])
    count = corners * len(radii)
    angles = np.arange(count) * (2 * np.pi / count) - np.pi / 2
    return np.stack([np.cos(angles), np.sin(angles)], 1) * np.resize(radii, count)[:, None]


def _crescent(distance=0.5, radius=0.8):
    """The unit disk without a disk of `radius` whose centre is `distance` to the right."""
    tip = np.arccos((1 + distance**2 - radius**2) / (2 * distance))
    inner_tip = np.arctan2(np.sin(tip), np.cos(tip) - distance)
    outer = _arc(tip, 2 * np.pi - tip)
    inner = _arc(2 * np.pi - inner_tip, inner_tip, radius, (distance, 0))
    return np.concatenate([outer, inner[1:-1]])


def _cross(arm=0.34):
    corner = np.array([[1, -arm], [1, arm], [arm, arm]])
    return np.concatenate([corner @ turned(-quarter * np.pi / 2) for quarter in range(4)])


def _heart():
    t = np.linspace(0, 2 * np.pi, 64, endpoint=False)
    x = 16 * np.sin(t) ** 3
    y = 13 * np.cos(t) - 5 * np.cos(2 * t) - 2 * np.cos(3 * t) - np.cos(4 * t)
    return np.stack([x, -y], axis=1) / 16


# Contours in the unit disk, y downwards; where contours nest, the inner one is a hole.
OUTLINES = {
    'disk': [_arc(0, 2 * np.pi)],
    'ring': [_arc(0, 2 * np.pi), _arc(0, 2 * np.pi, 0.55)],
    'square': [_regular(4) @ turned(np.pi / 4)],
    'triangle': [_regular(3)],
    'star': [_regular(5, inner=0.45)],
    'cross': [_cross()],
    'crescent': [_crescent()],
    'heart': [_heart()],
}
METAINFO = {
    'classes': tuple(OUTLINES),
    'palette': [
        (66, 133, 244),
        (0, 172, 193),
        (124, 179, 66),
        (251, 140, 0),
        (253, 216, 53),
        (229, 57, 53),
        (142, 68, 173),
        (236, 64, 122),
    ],
}


def coverage_of(contours, transform, shape):
    """Fraction of each pixel that the contours cover, (H, W) float32 in [0, 1]."""
    fine = np.zeros([side * SUPERSAMPLING for side in shape], np.uint8)
    corners = [contour @ transform[:, :2].T + transform[:, 2] for contour in contours]
    corners = [np.rint(points * SUPERSAMPLING).astype(np.int32) for points in corners]
    cv2.fillPoly(fine, corners, 255)
    coarse = cv2.resize(fine, shape[::-1], interpolation=cv2.INTER_AREA)
    return coarse.astype(np.float32) / 255


def _colour(rng, saturation, value, hue=(0, 1)):
    rgb = colorsys.hsv_to_rgb(rng.uniform(*hue) % 1, rng.uniform(*saturation), rng.uniform(*value))
    return np.array(rgb[::-1], np.float32)


def _pattern(rng, shape):
    """A random texture, (H, W) float32 in [0, 1]: gradient, stripes, checks or dots."""
    angle, period = rng.uniform(0, 2 * np.pi), rng.uniform(6, 14)
    cos, sin = np.float32([np.cos(angle), np.sin(angle)]) * np.float32(2 * np.pi / period)
    y, x = np.ogrid[: shape[0], : shape[1]]
    y, x = y.astype(np.float32), x.astype(np.float32)
    u, v = cos * x + sin * y, cos * y - sin * x
    wave_u, wave_v = np.cos(u), np.cos(v)
    kind = rng.integers(4)
    if kind == 0:
        return (u - u.min()) / np.ptp(u)
    wave = (wave_u, wave_u * wave_v * 2, wave_u + wave_v - 1)[kind - 1]
    return np.clip(0.5 + 2 * wave, 0, 1)


def background(rng, shape):
    """A pale patterned canvas, BGR, (H, W, 3) float32."""
    ramp = _pattern(rng, shape)[..., None] * rng.uniform(0.1, 0.5)
    first, second = _colour(rng, (0.05, 0.4), (0.3, 0.9)), _colour(rng, (0.05, 0.4), (0.3, 0.9))
    grid = rng.integers(3, 7, 2)
    clouds = rng.normal(0, 0.1, (*grid, 1)) + rng.normal(0, 0.03, (*grid, 3))
    clouds = cv2.resize(clouds.astype(np.float32), shape[::-1], interpolation=cv2.INTER_CUBIC)
    return (first * (1 - ramp) + second * ramp + clouds).astype(np.float32)


def paint(rng, canvas, coverage, hue=(0, 1)):
    """Paint a textured object with a soft shadow and a darker rim onto the canvas, in place."""
    x, y, width, height = cv2.boundingRect((coverage > 0).astype(np.uint8))
    window = slice(max(y - 12, 0), y + height + 12), slice(max(x - 12, 0), x + width + 12)
    canvas, coverage = canvas[window], coverage[window]
    shape = coverage.shape
    offset = np.float32([[1, 0, rng.uniform(1, 4)], [0, 1, rng.uniform(1, 4)]])
    shadow = cv2.GaussianBlur(cv2.warpAffine(coverage, offset, shape[::-1]), (0, 0), 2.5)
    canvas *= 1 - 0.4 * shadow[..., None]
    blend = _pattern(rng, shape)[..., None] * (rng.uniform() < 0.7)
    main = _colour(rng, (0.45, 1), (0.55, 1), hue)
    other = _colour(rng, (0.2, 1), (0.4, 1), hue)
    inside = cv2.erode(coverage, np.ones((3, 3), np.uint8))[..., None]
    surface = (main * (1 - blend) + other * blend) * (0.6 + 0.4 * inside)
    canvas += coverage[..., None] * (surface - canvas)


def finish(rng, canvas):
    """Add the noise of a camera, and turn the canvas into a uint8 image."""
    canvas += rng.normal(0, rng.uniform(0.005, 0.03), canvas.shape)
    return np.rint(np.clip(canvas, 0, 1) * 255).astype(np.uint8)


def render_image(index, split='train', seed=0):
    """Render one scene of 1 to 5 shapes that may hide parts of each other.

    Args:
        index (int): Number of the image in its split. The category `index % 8` is always in it.
        split (str): 'train' or 'val'. Defaults to 'train'.
        seed (int): Seed of the whole set. Defaults to 0.

    Returns:
        tuple: The image, BGR uint8 of shape (H, W, 3) with sides of 112 to 160 pixels; the
        category of each object, a list of int; and their visible parts, a list of bool arrays of
        shape (H, W) that do not overlap.
    """
    rng = np.random.default_rng([seed, SPLITS.index(split), index])
    shape = tuple(int(side) for side in rng.integers(SIDES[0], SIDES[1] + 1, 2))
    outlines = list(OUTLINES.values())
    wanted = rng.integers(len(outlines), size=rng.integers(1, 6))
    wanted[0] = index % len(outlines)

    canvas = background(rng, shape)
    categories, masks, whole = [], [], []
    for category in wanted:
        for _ in range(10):
            radius = np.exp(rng.uniform(*np.log(RADII)))
            turn = rng.uniform(-MAX_TURN, MAX_TURN)
            height, width = shape
            x = rng.uniform(0.6 * radius, width - 0.6 * radius)
            y = rng.uniform(0.6 * radius, height - 0.6 * radius)
            squeeze = np.diag([radius, radius * rng.uniform(0.85, 1)])
            transform = np.column_stack([turned(turn) @ squeeze, (x, y)])
            coverage = coverage_of(outlines[category], transform, shape)
            mask = coverage >= 0.5
            left = [np.count_nonzero(below & ~mask) for below in masks]
            fits = all(
                area >= max(MIN_VISIBLE_AREA, MIN_VISIBLE_FRACTION * full)
                for area, full in zip(left, whole)
            )
            if fits and np.count_nonzero(mask) >= MIN_VISIBLE_AREA:
                masks = [below & ~mask for below in masks] + [mask]
                whole.append(np.count_nonzero(mask))
                categories.append(int(category))
                paint(rng, canvas, coverage)
                break
    return finish(rng, canvas), categories, masks


def _write_image(index, root, split, seed):
    """Render and write one image; return its COCO entry and those of its objects."""
    image, categories, masks = render_image(index, split, seed)
    name = f'{index:06d}.jpg'
    if not cv2.imwrite(str(root / split / name), image, [cv2.IMWRITE_JPEG_QUALITY, 95]):
        raise UserError(f'cannot write {root / split / name}')
    entry = {'id': index, 'file_name': name, 'height': image.shape[0], 'width': image.shape[1]}
    objects = []
    for category, mask in zip(categories, masks):
        code = coco_mask.encode(np.asfortranarray(mask, np.uint8))
        objects.append(
            {
                'image_id': index,
                'category_id': category + 1,
                'iscrowd': 0,
                'area': int(coco_mask.area(code)),
                'bbox': coco_mask.toBbox(code).tolist(),
                'segmentation': {'size': code['size'], 'counts': code['counts'].decode('ascii')},
            }
        )
    return entry, objects


def _map(function, items, nproc):
    if nproc == 1:
        yield from map(function, items)
        return
    # Forked workers would inherit OpenCV's threads in an undefined state.
    context = multiprocessing.get_context('spawn')
    with context.Pool(nproc, initializer=cv2.setNumThreads, initargs=(1,)) as pool:
        yield from pool.imap(function, items, chunksize=8)


def _is_complete(root, stamp):
    try:
        found = json.loads((root / STAMP).read_text())
    except (OSError, ValueError):
        return False
    counts = [len(list((root / split).glob('*.jpg'))) for split in SPLITS]
    files = [root / 'annotations' / f'instances_{split}.json' for split in SPLITS]
    return (
        found == dict(stamp, complete=True)
        and counts == [stamp[f'num_{split}'] for split in SPLITS]
        and all(file.is_file() for file in files)
    )


def render_dataset(root, num_train=1600, num_val=200, seed=0, nproc=1):
    """Render the set into `root`, unless `root` contains the same set already.

    Writes `train/`, `val/` and `annotations/instances_{train,val}.json` in COCO format.

    Args:
        root (str | Path): Folder of the set. Another rendered set in the folder is replaced.
        num_train (int): Number of training images, at least 1. Defaults to 1600.
        num_val (int): Number of validation images, at least 1. Defaults to 200.
        seed (int): Seed of the set, not negative. Defaults to 0.
        nproc (int): Number of processes; the result does not depend on it. Defaults to 1.

    Returns:
        bool: Whether anything had to be rendered.

    Raises:
        UserError: A number is out of range, or `root` contains something else than a rendered set.
    """
    if min(num_train, num_val) < 1 or seed < 0:
        raise UserError(
            'num_train and num_val must be at least 1 and seed at least 0, '
            f'but got {num_train}, {num_val} and {seed}'
        )
    root = Path(root)
    stamp = {'version': FORMAT_VERSION, 'num_train': num_train, 'num_val': num_val, 'seed': seed}
    if _is_complete(root, stamp):
        return False
    if root.exists() and any(root.iterdir()) and not (root / STAMP).is_file():
        raise UserError(f'{root} is not empty and holds no rendered set; name another folder')

    (root / 'annotations').mkdir(parents=True, exist_ok=True)
    (root / STAMP).write_text(json.dumps(dict(stamp, complete=False)))
    for split in SPLITS:
        if (root / split).exists():
            rmtree(root / split)
        (root / split).mkdir()
        write = partial(_write_image, root=root, split=split, seed=seed)
        count = stamp[f'num_{split}']
        written = _map(write, range(count), nproc)
        results = list(track(written, f'rendering {split}', total=count))
        annotations = [entry for _, objects in results for entry in objects]
        for number, entry in enumerate(annotations, start=1):
            entry['id'] = number
        content = {
            'images': [entry for entry, _ in results],
            'annotations': annotations,
            'categories': [{'id': i + 1, 'name': name} for i, name in enumerate(OUTLINES)],
        }
        (root / 'annotations' / f'instances_{split}.json').write_text(json.dumps(content))
    (root / STAMP).write_text(json.dumps(dict(stamp, complete=True)))
    return True
