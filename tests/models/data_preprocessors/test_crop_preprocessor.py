"""Batches are augmented image by image, in training alone."""

import torch
from mmpretrain.structures import DataSample

from mmctx.models.data_preprocessors import CropPreprocessor
from mmctx.models.data_preprocessors.crop_preprocessor import random_crop, random_flip


def test_crops_are_shifts_with_zeros(seed):
    images = torch.randint(1, 255, (64, 3, 5, 7), dtype=torch.uint8)
    crops = random_crop(images, 2)
    padded = torch.nn.functional.pad(images, (2, 2, 2, 2))
    places = set()
    for before, crop in zip(padded, crops):
        found = [
            (y, x)
            for y in range(5)
            for x in range(5)
            if torch.equal(before[:, y : y + 5, x : x + 7], crop)
        ]
        assert len(found) == 1
        places.add(found[0])
    assert len(places) > 15
    mirrored = random_flip(images)
    flips = [torch.equal(m, i.flip(2)) for m, i in zip(mirrored, images)]
    assert all(flip or torch.equal(m, i) for flip, m, i in zip(flips, mirrored, images))
    assert 16 < sum(flips) < 48


def test_only_training_is_augmented(seed):
    preprocessor = CropPreprocessor(padding=4, mean=[1.0, 2, 3], std=[1.0, 1, 1], to_rgb=True)
    images = torch.randint(1, 255, (8, 3, 8, 8), dtype=torch.uint8)

    def run(training):
        samples = [DataSample().set_gt_label(i) for i in range(8)]
        return preprocessor(dict(inputs=images, data_samples=samples), training)

    plain = images.flip(1) - torch.tensor([1.0, 2, 3])[:, None, None]
    assert torch.equal(run(False)['inputs'], plain)
    assert not torch.equal(run(True)['inputs'], plain)
    assert [int(s.gt_label) for s in run(True)['data_samples']] == list(range(8))
