"""Backbones without OpenMMLab's runner: the lines of docs/pytorch.md, and what maps are."""

import re

import pytest
import torch
import torchvision
from trained_networks import run_python

from mmctx.errors import UserError
from mmctx.models.backbones import (
    ContextualConvNeXt,
    ContextualResNet,
    ContextualResNet_CIFAR,
    ContextualResNetTSM,
)


@pytest.fixture(scope='module')
def blocks(repo):
    """The blocks of Python in docs/pytorch.md."""
    return re.findall(r'```python\n(.*?)```', (repo / 'docs/pytorch.md').read_text(), re.DOTALL)


def test_three_lines_in_a_fresh_interpreter(blocks, tmp_path):
    checks = (
        'assert [tuple(m.shape) for m in maps] == [(2, 96 * 2**i, 56 // 2**i, 56 // 2**i) '
        'for i in range(4)]\n'
        'found = detector.eval()([torch.rand(3, 96, 128)])\n'
        'print(sorted(found[0]))'
    )
    small = 'torchvision.models.detection.FasterRCNN('
    assert small in blocks[0] and blocks[1].startswith('print(backbone.feature_info[3])')
    # Images are enlarged to 800 pixels by default.
    code = blocks[0].replace('num_classes=91', 'num_classes=91, min_size=96')
    printed = run_python(code + blocks[1] + checks, cwd=tmp_path)
    assert printed == "['boxes', 'labels', 'scores']"


def test_detector_trains_through_the_pyramid():
    import mmctx

    arch = dict(depths=[1, 1, 1, 1], channels=[8, 8, 16, 16])
    backbone = mmctx.ContextualConvNeXt(
        arch, out_indices=(0, 1, 2, 3), num_classes=20, gap_before_final_norm=False
    )
    with pytest.raises(UserError, match='gap_before_final_norm=False'):
        mmctx.FeaturePyramid(mmctx.ContextualConvNeXt(arch, num_classes=20))
    detector = torchvision.models.detection.FasterRCNN(
        mmctx.FeaturePyramid(backbone, 16), num_classes=3, min_size=64, max_size=96
    )
    box = dict(boxes=torch.tensor([[4.0, 4, 40, 40]]), labels=torch.tensor([1]))
    sum(detector([torch.rand(3, 64, 96)], [box]).values()).backward()
    missing = [n for n, p in detector.named_parameters() if p.requires_grad and p.grad is None]
    assert missing == []


def test_other_lines(blocks, tmp_path, monkeypatch):
    """Weights of a file, a detector of torchvision made contextual, the mixin of Hugging Face."""
    pytest.importorskip('huggingface_hub')
    monkeypatch.chdir(tmp_path)
    _, _, weights, detector, share = blocks
    tiny = 'dict(depths=[1, 1, 1, 1], channels=[8, 8, 16, 16])'
    names = {}
    exec('import mmctx, torch, torchvision', names)
    exec(f'backbone = mmctx.ContextualConvNeXt({tiny})', names)
    torch.save(names['backbone'].state_dict(), 'convnext_tiny_1k_224_ema.pth')
    exec(weights.replace("'tiny'", tiny), names)
    loaded = torch.load('convnext_tiny_1k_224_ema.pth')
    assert all(torch.equal(p, loaded[n]) for n, p in names['backbone'].named_parameters())

    detector = detector.replace("weights='DEFAULT'", 'weights=None, weights_backbone=None, '
                                'min_size=64')  # fmt: skip
    exec(detector.partition('\n')[0], names)
    image = [torch.rand(3, 64, 64)]
    body = names['detector'].eval().backbone.body
    with torch.no_grad():
        before = body(image[0][None])['3']
        exec(detector.partition('\n')[2], names)
        torch.testing.assert_close(body(image[0][None])['3'], before, rtol=1e-3, atol=1e-3)
        assert names['detector'](image)[0].keys() == {'boxes', 'labels', 'scores'}

    exec(share.replace("'tiny'", tiny), names)
    assert {file.name for file in (tmp_path / 'folder').iterdir()} >= {'config.json'}
    assert names['backbone'].contextualizing.considered == (50, 20, 5)


@pytest.mark.parametrize(
    'build',
    [
        lambda: ContextualConvNeXt(
            'tiny', out_indices=(0, 3), stem_patch_size=2, gap_before_final_norm=False
        ),
        lambda: ContextualResNet(18, out_indices=(0, 1, 2, 3)),
        lambda: ContextualResNet(50, out_indices=(1, 3), strides=(1, 2, 1, 1)),
        lambda: ContextualResNet_CIFAR(18, out_indices=(0, 2)),
        lambda: ContextualResNetTSM(18, out_indices=(1, 2), num_segments=1),
    ],
)
def test_feature_info_is_what_maps_are(build):
    pytest.importorskip('mmaction')
    backbone = build().eval()
    with torch.no_grad():
        maps = backbone(torch.zeros(1, 3, 64, 64))
    assert [info['num_chs'] for info in backbone.feature_info] == [m.shape[1] for m in maps]
    assert [info['reduction'] for info in backbone.feature_info] == [64 // m.shape[3] for m in maps]
    for info in backbone.feature_info:
        backbone.get_submodule(info['module'])
