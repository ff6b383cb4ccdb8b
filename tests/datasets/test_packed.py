"""Packed Tiny-ImageNet holds what TinyImageNet reads."""

import os
from zipfile import ZipFile

import cv2
import numpy as np
import pytest
import torch

from mmctx.datasets.packed import PackedTinyImageNet

PIPELINE = [dict(type='mmpretrain.LoadImageFromFile'), dict(type='mmpretrain.PackInputs')]


def write_set(root, zipped=True, added=0):
    """Four classes of two images of a shade of their own, to which a number is added."""
    for split in ('train', 'val'):
        files = {}
        for c in range(4):
            for i in range(2):
                image = np.full((64, 64, 3), 60 * c + 10 * i + added, np.uint8)
                files[f'n0000000{c}/{i}.png'] = cv2.imencode('.png', image)[1].tobytes()
        root.mkdir(exist_ok=True)
        if zipped:
            with ZipFile(root / f'{split}.zip', 'w') as archive:
                for name, data in files.items():
                    archive.writestr(name, data)
        else:
            for name, data in files.items():
                file = root / split / name
                file.parent.mkdir(parents=True, exist_ok=True)
                file.write_bytes(data)
                # Files that are written in one tick of the clock have the same time.
                os.utime(file, (added, added))
    return root


@pytest.fixture
def root(tmp_path):
    return write_set(tmp_path)


def test_classes_and_shades(root):
    data = PackedTinyImageNet(str(root), str(root / 'packed'), image_size=16, num_classes=2)
    samples = [data[i] for i in range(len(data))]
    assert [int(s['data_samples'].gt_label) for s in samples] == [0, 0, 1, 1]
    assert data.metainfo['classes'] == ('n00000000', 'n00000002')
    assert all(s['inputs'].shape == (3, 16, 16) for s in samples)
    assert [int(s['inputs'].float().mean()) for s in samples] == [0, 10, 120, 130]


def test_decodes_once(root, monkeypatch):
    args = str(root), str(root / 'packed'), 'val'
    first = PackedTinyImageNet(*args).images
    monkeypatch.setattr(cv2, 'imdecode', None)
    second = PackedTinyImageNet(*args).images
    assert second.shape == (8, 3, 64, 64) and torch.equal(first, second)
    assert [file.suffix for file in (root / 'packed').iterdir()] == ['.npy']
    with pytest.raises(TypeError):
        PackedTinyImageNet(str(root), str(root / 'packed'), 'train')


@pytest.mark.parametrize('zipped', (True, False))
def test_other_pixels_are_not_shared(zipped, tmp_path):
    cache = str(tmp_path / 'packed')
    for name, added in (('one', 0), ('other', 1)):
        write_set(tmp_path / name, zipped, added)
        assert PackedTinyImageNet(str(tmp_path / name), cache).images[0].unique() == added


def test_replaced_images_are_decoded(tmp_path):
    for added in (0, 1):
        root = write_set(tmp_path / 'root', zipped=False, added=added)
        assert PackedTinyImageNet(str(root), str(tmp_path / 'packed')).images[0].unique() == added


@pytest.mark.parametrize('zipped', (True, False))
def test_a_moved_set_is_not_decoded_again(zipped, tmp_path, monkeypatch):
    root = write_set(tmp_path / 'root', zipped)
    cache = str(tmp_path / 'packed')
    images = PackedTinyImageNet(str(root), cache).images
    moved = root.rename(tmp_path / 'moved')
    monkeypatch.setattr(cv2, 'imdecode', None)
    assert torch.equal(PackedTinyImageNet(f'{moved}/', cache).images, images)
    monkeypatch.chdir(moved)
    assert torch.equal(PackedTinyImageNet('.', cache).images, images)


def test_the_real_set(shared_data, tmp_path):
    from mmctx.datasets.tiny_imagenet import TinyImageNet

    folder = str(shared_data / 'tiny_imagenet')
    packed = PackedTinyImageNet(folder, str(tmp_path), 'val', num_classes=20)
    plain = TinyImageNet(folder, 'val', pipeline=PIPELINE)
    assert len(packed) == 1000
    assert packed.metainfo['classes'] == plain.CLASSES[::10]
    for i in (0, 51, 999):
        other = plain[i // 50 * 500 + i % 50]
        assert int(other['data_samples'].gt_label) == 10 * packed.labels[i]
        assert torch.equal(packed[i]['inputs'].cpu(), other['inputs'])


def test_wrong_numbers_of_classes_and_small_images_are_refused(root):
    with pytest.raises(ValueError, match='has 4 classes, not 5'):
        PackedTinyImageNet(str(root), str(root / 'packed'), num_classes=5)
    with pytest.raises(ValueError, match=r'0\.png is not a readable image of 65 pixels'):
        PackedTinyImageNet(str(root), str(root / 'packed'), image_size=65)
    assert not (root / 'packed').exists()
