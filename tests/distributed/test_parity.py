"""Two processes train as one with twice the batch: tools/dist_train.sh against tools/train.py.

It holds where nothing depends on which process an image is on: no batch statistics, no random
augmentation or sampling of boxes, and as many boxes on every image, because mmdet's Mask R-CNN
averages over the boxes of one process. Losses and updates then differ by rounding alone.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from mmctx.datasets.shapes import render_dataset

# Differences of rounding grow with each step; a wrong divisor is off by tenths.
LOSSES = dict(rel=1e-3, abs=1e-6)
UPDATES = 1e-2
ITERATIONS = 3

COMMON = f"""
custom_imports = dict(imports=['mmctx', 'record_training'])
custom_hooks = [dict(type='RecordTraining')]
train_cfg = dict(_delete_=True, by_epoch=False, max_iters={ITERATIONS})
val_cfg = val_dataloader = val_evaluator = None
test_cfg = test_dataloader = test_evaluator = None
default_hooks = dict(logger=dict(interval=1), checkpoint=None)
param_scheduler = None
randomness = dict(seed=0)
optim_wrapper = dict(
    _delete_=True, optimizer=dict(type='SGD', lr=0.05, momentum=0.9), clip_grad=dict(max_norm=5.0))
"""

DETECTION = """
_base_ = '{repo}/configs/mask_rcnn_ctx_convnext_shapes.py'
pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='LoadAnnotations', with_bbox=True, with_mask=True),
    dict(type='Resize', scale=(96, 96), keep_ratio=False),
    dict(type='PackDetInputs')
]
train_dataloader = dict(
    num_workers=0, batch_sampler=None,
    dataset=dict(data_root='{data}/', ann_file='annotations/equal.json', pipeline=pipeline))
everything = dict(num=10**6)
model = dict(
    train_cfg=dict(
        rpn=dict(sampler=everything, assigner=dict(pos_iou_thr=0.5, neg_iou_thr=0.5)),
        rpn_proposal=dict(max_per_img=20),
        rcnn=dict(
            sampler=everything,
            assigner=dict(
                pos_iou_thr=0.99, neg_iou_thr=0.99, min_pos_iou=0.99, match_low_quality=False))))
"""

CLASSIFICATION = """
_base_ = '{repo}/configs/ctx_convnext_t_in1k.py'
model = dict(
    backbone=dict(
        arch=dict(_delete_=True, depths=[1, 1, 2, 1], channels=[16, 24, 32, 48]), every=1,
        drop_path_rate=0.0,
        num_classes=12, considered=(8, 5, 3), embed_dims=32),
    data_preprocessor=dict(num_classes=12), train_cfg=None)
pipeline = [dict(type='LoadImageFromFile'), dict(type='PackInputs')]
train_dataloader = dict(
    num_workers=0, persistent_workers=False,
    dataset=dict(
        data_root='{data}/', pipeline=pipeline,
        metainfo=dict(classes=[f'class {{i}}' for i in range(12)])))
"""


@pytest.fixture
def shapes(tmp_path):
    """Rendered images, of which `equal.json` names those with as many objects as most have."""
    root = tmp_path / 'shapes'
    render_dataset(root, num_train=60, num_val=1)
    annotations = json.loads((root / 'annotations' / 'instances_train.json').read_text())
    counts = np.bincount([item['image_id'] for item in annotations['annotations']])
    common = np.bincount(counts[counts > 0]).argmax()
    annotations['images'] = [i for i in annotations['images'] if counts[i['id']] == common]
    assert len(annotations['images']) >= 4 * ITERATIONS
    (root / 'annotations' / 'equal.json').write_text(json.dumps(annotations))
    return root


@pytest.fixture
def noise(tmp_path):
    """ImageNet's layout around images of noise in twelve classes."""
    root = tmp_path / 'imagenet'
    (root / 'train').mkdir(parents=True)
    (root / 'meta').mkdir()
    rng, lines = np.random.default_rng(0), []
    for index in range(4 * ITERATIONS):
        image = rng.integers(0, 256, (64, 64, 3), dtype=np.uint8)
        cv2.imwrite(str(root / 'train' / f'{index}.png'), image)
        lines.append(f'{index}.png {rng.integers(12)}\n')
    (root / 'meta' / 'train.txt').write_text(''.join(lines))
    return root


@pytest.fixture
def train(repo, tmp_path, run_command):
    """Train a config with a batch of four, on one process or on two; losses and parameters."""

    def run(text, data, processes):
        config, work_dir = tmp_path / 'config.py', tmp_path / f'work{processes}'
        config.write_text(text.format(repo=repo, data=data) + COMMON)
        batch = f'train_dataloader.batch_size={4 // processes}'
        options = ('--work-dir', work_dir, '--cfg-options', batch)
        env = {
            'PYTHON': sys.executable, 'OMP_NUM_THREADS': '1', 'PORT': '29517',
            'PYTHONPATH': f'{repo}:{Path(__file__).parent}', 'CUDA_VISIBLE_DEVICES': '-1',
        }  # fmt: skip
        if processes == 1:
            done = run_command(repo / 'tools' / 'train.py', config, *options, cwd=tmp_path, **env)
        else:
            done = subprocess.run(
                [repo / 'tools' / 'dist_train.sh', config, '2', *options],
                cwd=tmp_path,
                env={**os.environ, **env},
                capture_output=True,
                text=True,
                timeout=300,
            )
        assert done.returncode == 0, done.stderr[-3000:]
        losses = json.loads((work_dir / 'losses.json').read_text())
        return losses, torch.load(work_dir / 'parameters.pth', weights_only=True)

    return run


@pytest.mark.parametrize(
    ('config', 'data'), [(DETECTION, 'shapes'), (CLASSIFICATION, 'noise')], ids=['det', 'cls']
)
def test_two_processes_train_as_one_with_twice_the_batch(config, data, train, request):
    folder = request.getfixturevalue(data)
    (losses, (before, after)), (losses_of_two, (before_of_two, after_of_two)) = (
        train(config, folder, processes) for processes in (1, 2)
    )
    assert len(losses) == ITERATIONS
    for one, two in zip(losses, losses_of_two, strict=True):
        assert len(one) >= 5
        assert two == pytest.approx(one, **LOSSES)
    update, other = [], []
    for name, start in before.items():
        assert torch.equal(start, before_of_two[name]), name
        update.append((after[name] - start).flatten())
        other.append((after_of_two[name] - start).flatten())
    update, other = torch.cat(update), torch.cat(other)
    assert update.norm() > 1e-2
    assert (update - other).norm() < UPDATES * update.norm()
