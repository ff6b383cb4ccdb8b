"""Time and memory that the check of an annotation file takes, on a generated set of COCO's size.

Run it from a clone: python -m benchmarks.preflight. The images are empty files, which the check
looks for and does not open.
"""

import argparse
import json
import resource
import tempfile
import time
from pathlib import Path

import numpy as np

from mmctx.cli.config import load_config
from mmctx.cli.preflight import check_contents, preflight

IMAGES, OBJECTS, CLASSES = 118_000, 860_000, 80
CONFIG = Path(__file__).parents[1] / 'configs' / 'mask_rcnn_convnext_t_coco.py'


def write_set(root: Path, split: str, names: tuple, images: int, objects: int) -> Path:
    """Write an annotation file, its polygons as long as COCO's on average, and empty images.

    Args:
        root (Path): Folder of the set.
        split (str): Name of the split, as `train2017`.
        names (tuple[str, ...]): Names of the classes.
        images (int): Number of images.
        objects (int): Number of objects.

    Returns:
        Path: The annotation file.
    """
    rng = np.random.default_rng(0)
    folder, path = root / split, root / 'annotations' / f'instances_{split}.json'
    folder.mkdir(parents=True)
    path.parent.mkdir(exist_ok=True)
    listed = [
        dict(id=i, file_name=f'{i:012d}.jpg', width=640, height=480, license=1)
        for i in range(images)
    ]
    for image in listed:
        (folder / image['file_name']).touch()
    with open(path, 'w', encoding='utf-8') as file:
        file.write(f'{{"images": {json.dumps(listed)}, "categories": ')
        json.dump([dict(id=i + 1, name=name) for i, name in enumerate(names)], file)
        file.write(', "annotations": [')
        for n in range(objects):
            x, y, width, height = rng.uniform([0, 0, 10, 10], [400, 300, 200, 150]).round(2)
            points = int(rng.integers(10, 41))
            outline = rng.uniform([x, y], [x + width, y + height], (points, 2)).round(2)
            entry = dict(
                id=n + 1,
                image_id=int(rng.integers(images)),
                category_id=int(rng.integers(len(names))) + 1,
                bbox=[float(x), float(y), float(width), float(height)],
                area=float(width * height),
                iscrowd=0,
                segmentation=[outline.ravel().tolist()],
            )
            file.write((', ' if n else '') + json.dumps(entry))
        file.write(']}')
    return path


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('--images', type=int, default=IMAGES, help=f'number of images ({IMAGES})')
    parser.add_argument('--objects', type=int, default=OBJECTS, help=f'and objects ({OBJECTS})')
    args = parser.parse_args()
    from mmdet.datasets import CocoDataset

    names = CocoDataset.METAINFO['classes']
    with tempfile.TemporaryDirectory() as root:
        began = time.monotonic()
        path = write_set(Path(root), 'train2017', names, args.images, args.objects)
        write_set(Path(root), 'val2017', names, max(args.images // 24, 1), args.objects // 24)
        size = path.stat().st_size / 1e6
        print(f'written in {time.monotonic() - began:.0f} s: {size:.0f} MB', flush=True)
        cfg = load_config(
            str(CONFIG),
            {
                'pretrained': None,
                'train_dataloader.dataset.data_root': root,
                'val_dataloader.dataset.data_root': root,
                'val_evaluator.ann_file': f'{root}/annotations/instances_val2017.json',
            },
        )
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
        began = time.monotonic()
        check_contents(preflight(cfg, 'train'))
        seconds = time.monotonic() - began
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
    print(f'checked in {seconds:.1f} s; peak of memory {peak:.2f} GB ({before:.2f} GB before)')


if __name__ == '__main__':
    main()
