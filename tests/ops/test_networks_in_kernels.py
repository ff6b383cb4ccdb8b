"""Every shipped backbone in kernels on the CPU, as `make check-gpu` compares it on a GPU."""

import pytest
import torch

import benchmarks.gpu_check.backbones as backbones
from benchmarks.gpu_check.sizes import Place

pytest.importorskip('triton')
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(torch.cuda.is_available(), reason='make check-gpu does it on a GPU'),
    pytest.mark.usefixtures('way', 'through_kernels'),
]


# Images as small as these leave too little of a gradient in bfloat16.
SINGLE, HALF = (torch.float32,), (torch.float32, torch.float16)
TYPES = dict(convnext=HALF, resnet=HALF, ablations=SINGLE)


@pytest.mark.parametrize('group', backbones.GROUPS)
def test_backbones_agree_with_the_reference(group, tmp_path, monkeypatch):
    # With fewer images, rounding in one of them would have too much weight in gradients.
    monkeypatch.setattr(backbones, 'IMAGES', (4, 3, 32, 64))
    monkeypatch.setattr(backbones, 'DTYPES', dict(cpu=TYPES[group]))
    assert backbones.check(group, Place('cpu', tmp_path))['backbones'] > 2
