"""A tiny set in COCO's format; its images are empty files, for checks that never open them."""

import json

import pytest
from mmdet.datasets import CocoDataset

from mmctx.cli.config import load_config

CLASSES = CocoDataset.METAINFO['classes']


class TinyCoco:
    """Writes the set and rewrites a part of an annotation file."""

    def __init__(self, root):
        self.root = root
        for split in ('train', 'val'):
            (root / f'{split}2017').mkdir(parents=True)
            names = [f'{split}{i}.jpg' for i in range(6)]
            for name in names:
                (root / f'{split}2017' / name).touch()
            self.write(
                split,
                images=[dict(id=i, file_name=n, width=64, height=48) for i, n in enumerate(names)],
                annotations=[
                    dict(
                        id=1,
                        image_id=0,
                        category_id=1,
                        bbox=[1, 2, 9, 9],
                        area=81,
                        iscrowd=0,
                        segmentation=[[1, 2, 10, 2, 10, 11, 1, 11]],
                    )
                ],
                categories=[dict(id=i + 1, name=name) for i, name in enumerate(CLASSES)],
            )

    def ann_file(self, split):
        return self.root / 'annotations' / f'instances_{split}2017.json'

    def write(self, split, **contents):
        self.ann_file(split).parent.mkdir(exist_ok=True)
        self.ann_file(split).write_text(json.dumps(contents))

    def change(self, split, change):
        contents = json.loads(self.ann_file(split).read_text())
        change(contents)
        self.write(split, **contents)


@pytest.fixture
def tiny_coco(tmp_path, monkeypatch):
    """The set, with COCO_ROOT naming it."""
    coco = TinyCoco(tmp_path / 'coco')
    monkeypatch.setenv('COCO_ROOT', str(coco.root))
    return coco


@pytest.fixture
def load(repo):
    """Load one of the repository's configs with `--cfg-options`; from scratch unless told."""

    def load(name='mask_rcnn_convnext_t_coco', **options):
        options = {'pretrained': None, **{k.replace('__', '.'): v for k, v in options.items()}}
        return load_config(str(repo / 'configs' / f'{name}.py'), options)

    return load
