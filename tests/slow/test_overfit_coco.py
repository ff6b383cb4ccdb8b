"""The full-size contextual detector learns eight real COCO images by heart, from scratch."""

import json
import re
import shutil
from pathlib import Path

import pytest

CONFIG = Path(__file__).with_name('overfit_coco.py')
IMAGES = 8
SECONDS = 2700


@pytest.fixture
def few_images(coco_tiny, tmp_path):
    """A COCO root whose training and validation images are the same first eight."""
    truth = json.loads((coco_tiny / 'annotations' / 'instances_train2017.json').read_text())
    truth['images'] = sorted(truth['images'], key=lambda image: image['id'])[:IMAGES]
    ids = {image['id'] for image in truth['images']}
    truth['annotations'] = [a for a in truth['annotations'] if a['image_id'] in ids]
    root = tmp_path / 'coco'
    (root / 'annotations').mkdir(parents=True)
    for split in ('train2017', 'val2017'):
        (root / split).mkdir()
        (root / 'annotations' / f'instances_{split}.json').write_text(json.dumps(truth))
        for image in truth['images']:
            shutil.copy(coco_tiny / 'train2017' / image['file_name'], root / split)
    return root


@pytest.mark.slow
def test_learns_real_images_by_heart(few_images, tmp_path, run_tool):
    environment = dict(
        cwd=tmp_path, COCO_ROOT=str(few_images), seconds=SECONDS, OMP_NUM_THREADS='2'
    )
    trained = run_tool('train.py', CONFIG, '--work-dir', 'run', **environment)
    assert trained.returncode == 0, trained.stderr
    checkpoint = Path((tmp_path / 'run' / 'last_checkpoint').read_text())
    tested = run_tool('test.py', CONFIG, checkpoint, '--work-dir', 'test', **environment)
    assert tested.returncode == 0, tested.stderr
    figures = dict(re.findall(r'coco/(\w+): (-?[\d.]+)', tested.stdout + tested.stderr))
    print({name: figures[name] for name in ('bbox_mAP_50', 'segm_mAP_50', 'bbox_mAP', 'segm_mAP')})
    assert float(figures['bbox_mAP_50']) > 0.5
