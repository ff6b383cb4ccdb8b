"""Every shipped backbone in the interpreted kernels, as `make check-gpu` compares it on a GPU."""

import pytest
import torch

import benchmarks.gpu_check.backbones as backbones
from benchmarks.gpu_check.sizes import Place
from mmctx.ops.contextual_conv import BACKEND_VARIABLE

pytest.importorskip('triton')
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(torch.cuda.is_available(), reason='make check-gpu does it on a GPU'),
    pytest.mark.usefixtures('interpreted_without_a_gpu'),
]


# Triton's interpreter cuts bfloat16 off where a GPU rounds. Gradients in half precision need four
# images, with two the rounding of one has too much weight.
SINGLE, HALF = (torch.float32,), (torch.float32, torch.float16)
CASES = dict(convnext=(HALF, 4), resnet=(HALF, 4), ablations=(SINGLE, 2))


@pytest.mark.parametrize('group', backbones.GROUPS)
def test_backbones_agree_with_the_reference(group, tmp_path, monkeypatch):
    types, count = CASES[group]
    monkeypatch.setenv(BACKEND_VARIABLE, 'triton')
    monkeypatch.setattr(backbones, 'IMAGES', (count, 3, 32, 64))
    monkeypatch.setattr(backbones, 'DTYPES', dict(cpu=types))
    assert backbones.check(group, Place('cpu', tmp_path))['backbones'] > 2
