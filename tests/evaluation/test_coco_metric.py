"""COCO's figures where nothing, or the truth itself, is detected."""

import json

import numpy as np
import pytest

pytest.importorskip('mmdet')

import torch
from mmdet.structures.mask import encode_mask_results

from mmctx.evaluation.coco_metric import CocoMetric

BOX, SIZE = [4, 6, 10, 8], (40, 50)


@pytest.fixture
def ann_file(tmp_path):
    x, y, w, h = BOX
    contents = dict(
        images=[dict(id=i, file_name=f'{i}.png', width=SIZE[1], height=SIZE[0]) for i in (1, 2)],
        categories=[dict(id=1, name='disk')],
        annotations=[
            dict(id=1, image_id=1, category_id=1, bbox=BOX, area=w * h, iscrowd=0,
                 segmentation=[[x, y, x + w, y, x + w, y + h, x, y + h]])
        ],
    )  # fmt: skip
    path = tmp_path / 'truth.json'
    path.write_text(json.dumps(contents))
    return str(path)


def evaluate(ann_file, boxes):
    metric = CocoMetric(ann_file=ann_file, metric=['bbox', 'segm'])
    metric.dataset_meta = dict(classes=('disk',))
    for image in (1, 2):
        found = boxes if image == 1 else []
        masks = np.zeros((len(found), *SIZE), bool)
        for mask, (x, y, w, h) in zip(masks, found):
            mask[y : y + h, x : x + w] = True
        corners = [[x, y, x + w, y + h] for x, y, w, h in found]
        prediction = dict(
            bboxes=torch.tensor(corners, dtype=torch.float).reshape(-1, 4),
            scores=torch.full((len(found),), 0.9),
            labels=torch.zeros(len(found), dtype=torch.long),
            masks=encode_mask_results(masks),
        )
        metric.process({}, [dict(img_id=image, ori_shape=SIZE, pred_instances=prediction)])
    return metric.evaluate(size=2)


def test_nothing_detected_is_zero(ann_file):
    figures = evaluate(ann_file, [])
    assert figures['coco/bbox_mAP'] == figures['coco/segm_mAP'] == 0
    assert figures['coco/bbox_mAP_50'] == figures['coco/segm_mAP_75'] == 0


def test_the_truth_detected_is_one(ann_file):
    figures = evaluate(ann_file, [BOX])
    assert figures['coco/bbox_mAP'] == figures['coco/segm_mAP'] == 1
