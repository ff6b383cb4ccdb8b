"""The rendered classification set: each image shows what its folder says, in any order."""

import colorsys

import cv2
import numpy as np
import pytest

from mmctx.datasets import coloured_shapes
from mmctx.datasets.coloured_shapes import CLASSES, HUES, render_folders, render_object
from mmctx.errors import UserError


def test_images_depend_on_their_number_alone():
    image = render_object(3, 7, 'val', seed=1)
    assert image.shape == (96, 96, 3) and image.dtype == np.uint8
    render_object(4, 0)
    assert np.array_equal(image, render_object(3, 7, 'val', seed=1))
    for other in ((4, 7, 'val', 1), (3, 8, 'val', 1), (3, 7, 'train', 1), (3, 7, 'val', 0)):
        assert not np.array_equal(image, render_object(*other))


@pytest.mark.parametrize('colour', HUES)
def test_the_shape_has_the_colour_of_the_name(colour, monkeypatch):
    def grey(rng, shape):
        return np.full((*shape, 3), 0.5, np.float32)

    monkeypatch.setattr(coloured_shapes, 'background', grey)
    label = CLASSES.index(f'{colour}-disk')
    low, high = HUES[colour]
    for index in range(3):
        pixels = render_object(label, index).reshape(-1, 3)[::7, ::-1] / 255
        hsv = np.array([colorsys.rgb_to_hsv(*pixel) for pixel in pixels])
        hues = hsv[hsv[:, 1] > 0.4, 0]
        assert len(hues) > 50
        # Circular: red lies on both sides of 0. Noise turns a hue a little.
        away = np.abs((hues - (low + high) / 2 + 0.5) % 1 - 0.5)
        assert np.median(away) < (high - low) / 2 + 0.01


def test_folders_are_those_of_the_classes(tmp_path):
    render_folders(tmp_path, train_each=1, val_each=1)
    for split in ('train', 'val'):
        assert sorted(path.name for path in (tmp_path / split).iterdir()) == sorted(CLASSES)
    path = tmp_path / 'val' / CLASSES[5] / '0000.png'
    assert np.array_equal(cv2.imread(str(path)), render_object(5, 0, 'val'))
    with pytest.raises(UserError, match='at least 1'):
        render_folders(tmp_path, train_each=0)
