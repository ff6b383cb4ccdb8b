"""ImageNet: mistakes in the data are named."""

import cv2
import numpy as np
import pytest

from mmctx.datasets.checks.imagenet import check_image_folder
from mmctx.datasets.imagenet import ImageNet
from mmctx.errors import UserError

PIPELINE = [dict(type='mmpretrain.LoadImageFromFile'), dict(type='mmpretrain.PackInputs')]


@pytest.fixture
def root(tmp_path):
    for split in ('train', 'val'):
        for name in ('cat', 'dog', 'owl'):
            (tmp_path / split / name).mkdir(parents=True)
            cv2.imwrite(str(tmp_path / split / name / '0.jpeg'), np.zeros((8, 8, 3), np.uint8))
    return tmp_path


def make(root, split='train', **options):
    classes = dict(classes=('cat', 'dog', 'owl'))
    return ImageNet(
        data_root=str(root), split=split, metainfo=classes, pipeline=PIPELINE, **options
    )


def test_a_broken_image_is_named_or_skipped(root):
    (root / 'train' / 'dog' / '0.jpeg').write_bytes(b'no picture')
    assert make(root)[0]['data_samples'].gt_label == 0
    with pytest.raises(ValueError, match=r'dog/0\.jpeg is not a readable image'):
        make(root)[1]
    assert make(root, skip_broken=True)[1]['data_samples'].gt_label != 1
    with pytest.raises(ValueError, match='skip_broken'):
        make(root, 'val', skip_broken=True)


@pytest.mark.parametrize('label', [3, -1])
def test_a_label_out_of_range_is_named(root, label):
    (root / 'meta').mkdir()
    (root / 'meta' / 'train.txt').write_text(f'cat/0.jpeg 0\ndog/0.jpeg {label}\n')
    with pytest.raises(ValueError, match=f'dog/0.jpeg has the label {label}, but there are 3'):
        make(root)


def test_checks_the_folder(root):
    check_image_folder(root / 'train')
    check_image_folder(root / 'train', 3)
    with pytest.raises(UserError, match='has 3 class folders, but the data set has 1000'):
        check_image_folder(root / 'train', 1000)
    (root / 'train' / 'owl' / '0.jpeg').rename(root / 'train' / 'owl' / 'notes.txt')
    (root / 'train' / 'eel').mkdir()
    with pytest.raises(UserError, match=r'2 of the 4 class folders .* no images: eel, owl'):
        check_image_folder(root / 'train')
    with pytest.raises(UserError, match='no class folders'):
        check_image_folder(root / 'train' / 'cat')
    with pytest.raises(UserError, match='does not exist'):
        check_image_folder(root / 'test')
