"""What mmcv and the frameworks use of NumPy works with the NumPy that is installed."""

from importlib import import_module

import mmcv
import numpy as np
import pytest
from mmpretrain.evaluation import RetrievalRecall
from PIL import Image
from torchvision.transforms.functional import adjust_hue

from mmctx.compat.numpy_versions import READERS


@pytest.mark.parametrize('backend', ['pillow', 'cv2'])
@pytest.mark.parametrize('share', [-0.5, -0.31, -0.003, 0.0, 0.31, 0.5])
def test_a_hue_is_turned_either_way(share, backend):
    image = np.random.default_rng(0).integers(0, 256, (24, 32, 3), dtype=np.uint8)
    turned = mmcv.adjust_hue(np.ascontiguousarray(image[..., ::-1]), share, backend)[..., ::-1]
    expected = np.asarray(adjust_hue(Image.fromarray(image), share))
    # Pillow does what torchvision does; OpenCV rounds hues differently.
    difference = np.abs(turned.astype(int) - expected)
    assert difference.max() == 0 if backend == 'pillow' else difference.mean() < 4


def test_metrics_of_retrieval_find_the_labels():
    predicted, labels = [[2, 0, 1], [1, 2, 0]], [[0], [0, 1]]
    recalls = RetrievalRecall.calculate(
        predicted, labels, topk=(1, 2), pred_indices=True, target_indices=True
    )
    assert [float(r) for r in recalls] == [50, 100]


@pytest.mark.parametrize('module', READERS)
def test_modules_read_names_that_numpy_has_dropped(module):
    numpy = import_module(module).np
    for name in READERS[module]:
        assert getattr(numpy, name) is not None
    assert numpy.arange(3).tolist() == [0, 1, 2]
