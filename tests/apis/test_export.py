"""Exported files compute what the network computes, for other batches and sizes too."""

import math
import sys
import warnings

import pytest
import torch
import torch.nn as nn
import torchvision
from trained_networks import run_python

import mmctx
from mmctx.apis import export
from mmctx.apis.predicting import load_network
from mmctx.cli.config import framework, load_config
from mmctx.cli.running import build_model
from mmctx.commands import export as command
from mmctx.errors import UserError
from mmctx.models.backbones import (
    ContextualConvNeXt,
    ContextualResNet,
    ContextualResNet_CIFAR,
    ContextualResNetTSM,
)

FEW = dict(num_classes=12, considered=(8, 5, 3), embed_dims=8)
NARROW = dict(stem_channels=8, base_channels=8)


def convnext(**options):
    arch = dict(depths=[1, 1, 1, 1], channels=[8, 8, 16, 16])
    return ContextualConvNeXt(arch, every=1, **FEW, **options)


class Tiny(nn.Module):
    """A network of two stages of one convolution each."""

    def __init__(self):
        super().__init__()
        self.first = nn.Sequential(nn.Conv2d(3, 4, 3, 2), nn.MaxPool2d(3, 2))
        self.second = nn.Sequential(nn.Conv2d(4, 4, 3, padding=1), nn.ReLU())

    def forward(self, x):
        return self.second(self.first(x))


def tiny():
    return mmctx.contextualize(Tiny(), ['first', 'second'], num_classes=12)


NETWORKS = {
    'maps of a convnext': lambda: convnext(out_indices=(0, 3)),
    'logits of a convnext': lambda: convnext(out_type='logits'),
    'resnet, released': lambda: ContextualResNet(18, preset='released', **NARROW, **FEW),
    'any CNN': lambda: mmctx.contextualize(
        torchvision.models.resnet18(num_classes=5),
        ['layer1', 'layer2', 'layer3'],
        every=4,
        num_classes=12,
    ),
}


def clips():
    return ContextualResNetTSM(18, num_segments=4, average_prior=True, **NARROW, **FEW)


def randomized(build):
    torch.manual_seed(0)
    network = build().eval()
    for parameter in network.parameters():
        nn.init.normal_(parameter, std=0.2)
    return network


def run_onnx(path, images):
    import onnxruntime

    session = onnxruntime.InferenceSession(path, providers=['CPUExecutionProvider'])
    return [torch.from_numpy(out) for out in session.run(None, dict(images=images.numpy()))]


@pytest.mark.parametrize('name', [*NETWORKS, 'clips'])
def test_traced_file_takes_any_batch_and_size(name, tmp_path):
    onnx = pytest.importorskip('onnx')
    network = randomized(NETWORKS.get(name, clips))
    path = tmp_path / 'network.onnx'
    assert export(network, path, (64, 96), exporter='torchscript') < 1e-4
    assert {node.domain for node in onnx.load(path).graph.node} == {''}
    images = torch.randn(4 if name == 'clips' else 1, 3, 70, 97)
    with torch.no_grad():
        expected = network(images)
    expected = [expected] if isinstance(expected, torch.Tensor) else expected
    for out, wanted in zip(run_onnx(path, images), expected, strict=True):
        torch.testing.assert_close(out, wanted, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize('ending', ['pt2', 'onnx'])
def test_torch_export(ending, tmp_path, monkeypatch):
    pytest.importorskip('onnxscript')
    # Which no CPU could follow; an export does not ask.
    monkeypatch.setenv('MMCTX_BACKEND', 'triton')
    network, path = randomized(tiny), tmp_path / f'network.{ending}'
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')
        monkeypatch.setattr('mmctx.apis.exporting._difference', lambda *_: 0.0)
        export(network, path, (64, 96))
    monkeypatch.setenv('MMCTX_BACKEND', 'tapwise')
    for shape in ((1, 3, 65, 64), (3, 3, 98, 159)):
        images = torch.randn(shape)
        with torch.no_grad():
            expected = network(images)
        if ending == 'onnx':
            (result,) = run_onnx(path, images)
        else:
            program = torch.export.load(path)
            assert not any('mmctx' in str(node.target) for node in program.graph.nodes)
            result = program.module()(images)
        torch.testing.assert_close(result, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.slow
def test_small_images(tmp_path):
    network = randomized(lambda: ContextualResNet_CIFAR(18, **NARROW, **FEW))
    path = tmp_path / 'network.pt2'
    assert export(network, path, (32, 32)) < 1e-4
    images = torch.randn(1, 3, 16, 33)
    with torch.no_grad():
        torch.testing.assert_close(torch.export.load(path).module()(images), network(images))


PROGRAM = """
import sys, torch
if sys.argv[1] == 'pt2':
    result = torch.export.load('network.pt2').module()(torch.load('images.pth'))
else:
    import onnxruntime
    session = onnxruntime.InferenceSession('network.onnx', providers=['CPUExecutionProvider'])
    (result,) = session.run(None, {'images': torch.load('images.pth').numpy()})
    result = torch.from_numpy(result)
torch.save(result, 'result.pth')
print([name for name in sys.modules if name.partition('.')[0] in ('mmctx', 'mmengine')])
"""


@pytest.mark.slow
@pytest.mark.parametrize('ending', ['pt2', 'onnx'])
def test_files_run_without_mmctx(ending, tmp_path):
    network, images = randomized(tiny), torch.randn(3, 3, 70, 97)
    export(network, tmp_path / f'network.{ending}', (64, 96))
    torch.save(images, tmp_path / 'images.pth')
    assert run_python(PROGRAM, ending, cwd=tmp_path) == '[]'
    with torch.no_grad():
        expected = network(images)
    torch.testing.assert_close(torch.load(tmp_path / 'result.pth'), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize('ending', ['pt2', 'onnx'])
@pytest.mark.parametrize('name', [*NETWORKS, 'clips'])
def test_torch_export_of_whole_networks(name, ending, tmp_path):
    network = randomized(NETWORKS.get(name, clips))
    assert export(network, tmp_path / f'network.{ending}', (64, 96)) < 1e-4


@pytest.mark.slow
@pytest.mark.parametrize('exporter', ['pt2', 'dynamo', 'torchscript'])
@pytest.mark.parametrize(
    'name',
    [
        'ctx_convnext_t_in1k',
        'ctx_resnet50_in1k',
        'tsm_ctx_resnet50_k400',
        'mask_rcnn_ctx_convnext_t_coco',
    ],
)
def test_shipped_networks(name, exporter, repo, tmp_path):
    """By every exporter, the comparison being of another batch and size than the example."""
    config = load_config(str(repo / f'configs/{name}.py'))
    framework(config)
    network = build_model(config)
    torch.manual_seed(0)
    for parameter in network.parameters():
        # The predictors of a network that is not trained shift nothing.
        if not parameter.any():
            nn.init.normal_(parameter, std=0.02)
    path = tmp_path / ('network.pt2' if exporter == 'pt2' else 'network.onnx')
    options = {} if exporter == 'pt2' else dict(exporter=exporter)
    assert export(network, path, (128, 160), **options) < 1e-4


@pytest.mark.parametrize('name', ['recognizer', 'detector'])
def test_models_of_the_frameworks(name, request, tmp_path):
    """A recognizer whole, of Mask R-CNN the backbone and the neck."""
    folder = request.getfixturevalue(name)
    model, _, _ = load_network(folder / 'epoch_1.pth', folder / 'config.py')
    path = tmp_path / 'model.onnx'
    assert export(model, path, (64, 64), exporter='torchscript') < 1e-4
    images = torch.randn(4, 3, 96, 64)
    assert [out.shape[0] for out in run_onnx(path, images)] == (
        [1] if name == 'recognizer' else [4] * 4
    )


def test_command(classifier, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    arguments = [str(classifier / name) for name in ('config.py', 'epoch_1.pth')]
    arguments += ['--exporter', 'torchscript', '--size', '64', '64']
    monkeypatch.setattr(sys, 'argv', ['mmctx export', *arguments])
    command.main()
    assert 'epoch_1.onnx is written; its results differ' in capsys.readouterr().out
    (logits,) = run_onnx(tmp_path / 'epoch_1.onnx', torch.randn(5, 3, 64, 64))
    assert logits.shape == (5, 6)
    # Of six classes one is considered to the end.
    assert logits.isfinite().sum() == 5
    monkeypatch.setattr(sys, 'argv', ['mmctx export', *arguments, '--out', 'network.pt2'])
    with pytest.raises(UserError, match=r'should end in \.onnx'):
        command.main()


def test_network_stays_as_it_is(tmp_path):
    pytest.importorskip('onnxruntime')
    network = randomized(tiny).train()
    network.second.eval()
    export(network, tmp_path / 'network.onnx', (64, 64), dynamic=False, exporter='torchscript')
    assert network.training and not network.second.training
    assert next(network.parameters()).requires_grad
    network(torch.randn(2, 3, 64, 64)).sum().backward()


def test_says_where_onnxruntime_is_missing(tmp_path, monkeypatch):
    real = mmctx.apis.exporting.find_spec
    monkeypatch.setattr(
        'mmctx.apis.exporting.find_spec', lambda n: None if n == 'onnxruntime' else real(n)
    )
    path = tmp_path / 'network.onnx'
    assert math.isnan(export(randomized(tiny), path, (64, 64), exporter='torchscript'))
    monkeypatch.setattr('mmctx.apis.exporting.find_spec', lambda n: None)
    with pytest.raises(UserError, match=r"onnx and onnxscript: pip install 'mmctx\[export\]'"):
        export(randomized(tiny), path)


def test_says_what_torch_export_cannot_leave_free(tmp_path):
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.PixelUnshuffle(2))
    with pytest.raises(UserError, match='cannot leave the number and the size of the images free'):
        export(network, tmp_path / 'network.pt2', (64, 64))
    assert export(network, tmp_path / 'network.pt2', (64, 64), dynamic=False) == 0


@pytest.mark.parametrize(
    ('path', 'options', 'reason'),
    [
        ('network.pth', {}, r'should end in \.onnx or \.pt2'),
        ('network.pt2', dict(size=(65, 63)), 'size should be at least 64'),
        ('network.onnx', dict(exporter='caffe'), 'exporter should be one of'),
    ],
)
def test_refuses(path, options, reason, tmp_path):
    with pytest.raises(UserError, match=reason):
        export(nn.Conv2d(3, 3, 1), tmp_path / path, **options)
