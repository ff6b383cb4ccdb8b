"""The converters as a user runs them: any wrapper in, one loadable file out, nothing executed."""

import argparse
import importlib.util
import os
import pickle
import re
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine.runner import load_checkpoint
from torchvision.models import ResNet
from torchvision.models.resnet import BasicBlock

from mmctx.apis import build_classifier
from mmctx.cli.tool import run_tool as report
from mmctx.registry import MODELS
from mmctx.weights import convert_released, read_state

CASE = Path(__file__).parents[1] / 'data' / 'released_ctx_convnext.npz'
KEPT = ('--considered', '8', '5', '3')


@pytest.fixture(scope='module')
def released():
    with np.load(CASE) as arrays:
        keys = [key for key in arrays.files if key.startswith('state/')]
        return {key[6:]: torch.from_numpy(arrays[key]) for key in keys}


@pytest.fixture
def convert(repo, monkeypatch):
    """Run a converter in this process; what `run_tool` does with its errors included."""

    def run(name, *args):
        path = repo / 'tools' / 'model_converters' / f'{name}.py'
        spec = importlib.util.spec_from_file_location(name, path)
        tool = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(tool)
        monkeypatch.setattr(sys, 'argv', [name, *map(str, args)])
        report(tool.main)

    return run


@pytest.fixture
def fails(convert, capsys, tmp_path):
    """The one line that a converter prints about a file; nothing is written."""

    def run(name, src, *args):
        before = sorted(tmp_path.iterdir())
        with pytest.raises(SystemExit) as caught:
            convert(name, src, tmp_path / 'out.pth', *args)
        assert caught.value.code == 2
        assert sorted(tmp_path.iterdir()) == before
        (line,) = capsys.readouterr().err.splitlines()
        assert line.startswith('error: ')
        return line

    return run


def averaged(state):
    return {name: value + 1 for name, value in state.items()}


def prefixed(state):
    return {f'module.{name}': value for name, value in state.items()}


WRAPPERS = {
    'bare': (lambda s: s, '', 'the bare state'),
    'module': (prefixed, '', 'the bare state'),
    'state_dict': (lambda s: dict(state_dict=prefixed(s), epoch=7), '', 'state_dict'),
    'model': (lambda s: dict(model=s, optimizer=dict(lr=0.1)), '', 'model'),
    'ema': (
        lambda s: dict(state_dict=averaged(s), state_dict_ema=prefixed(s)),
        '',
        'state_dict_ema',
    ),
    'model_ema': (lambda s: dict(model=averaged(s), model_ema=s), '--ema', 'model_ema'),
    'no ema': (lambda s: dict(state_dict=s, state_dict_ema=averaged(s)), '--no-ema', 'state_dict'),
    'arguments': (
        lambda s: dict(state_dict=s, args=argparse.Namespace(lr=1.0), metric=np.float64(81.2)),
        '',
        'state_dict',
    ),
}


@pytest.mark.parametrize('wrapper', WRAPPERS)
def test_wrappers(wrapper, released, convert, tmp_path, capsys):
    wrap, option, source = WRAPPERS[wrapper]
    src, dst = tmp_path / 'src.pth', tmp_path / 'made' / 'dst.pth'
    torch.save(wrap(released), src)
    convert('released_to_mmctx', src, dst, *KEPT, *option.split())
    printed = capsys.readouterr().out
    assert f'weights taken: {source}\n' in printed
    assert 'ContextualConvNeXt' in printed and '12 classes' in printed
    assert "'depths': [1, 1, 4, 1]" in printed

    written = torch.load(dst, weights_only=True)
    assert written['meta']['source'] == 'src.pth'
    classifier = build_classifier(written['meta']['backbone'])
    load_checkpoint(classifier, str(dst), strict=True)
    loaded = classifier.state_dict()
    expected = convert_released(released)
    assert loaded.keys() == expected.keys()
    assert all(torch.equal(loaded[name], value) for name, value in expected.items())
    assert os.listdir(dst.parent) == ['dst.pth']


def test_printed_config_says_what_is_assumed(released, convert, tmp_path, capsys):
    torch.save(released, tmp_path / 'src.pth')
    convert('released_to_mmctx', tmp_path / 'src.pth', tmp_path / 'dst.pth')
    printed = capsys.readouterr().out
    assert 'considered=(6, 2, 1) is assumed' in printed
    snippet = {}
    exec(printed[printed.index('model = dict(') :], snippet)
    backbone = MODELS.build(snippet['model']['backbone'])
    state = torch.load(snippet['load_from'], weights_only=True)['state_dict']
    backbone.load_state_dict({n.removeprefix('backbone.'): v for n, v in state.items()})


def test_overwriting_needs_force(released, convert, fails, tmp_path):
    src, dst = tmp_path / 'src.pth', tmp_path / 'out.pth'
    torch.save(released, src)
    dst.write_text('mine')
    assert '--force' in fails('released_to_mmctx', src)
    assert dst.read_text() == 'mine'
    convert('released_to_mmctx', src, dst, '--force', *KEPT)
    assert torch.load(dst, weights_only=True)['state_dict']


class Hostile:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return open, (str(self.path), 'w')


class HostileArguments(argparse.Namespace):
    def __reduce__(self):
        return argparse.Namespace, (), {'effect': Hostile(self.path)}


@pytest.mark.parametrize('tool', ['released_to_mmctx', 'vanilla_to_mmctx'])
@pytest.mark.parametrize('plain_pickle', [False, True])
@pytest.mark.parametrize('kind', [Hostile, lambda p: HostileArguments(path=p)])
def test_hostile_pickle_is_not_run(tool, plain_pickle, kind, released, fails, tmp_path):
    src, effect = tmp_path / 'src.pth', tmp_path / 'effect'
    content = dict(state_dict=released, args=kind(effect))
    if plain_pickle:
        src.write_bytes(pickle.dumps(content, protocol=2))
    else:
        torch.save(content, src)
    assert 'src.pth is refused' in fails(tool, src)
    assert not effect.exists()


def corrupt(released):
    wrong_size = dict(released, **{'cls.logit_scale': torch.zeros(2)})
    vanilla_blocks = {k: v for k, v in released.items() if 'offset_layer' not in k}
    return {
        'missing key': {k: v for k, v in released.items() if k != 'stages.1.0.norm.weight'},
        'wrong size': wrong_size,
        'vanilla blocks': vanilla_blocks,
        'foreign': {'encoder.weight': torch.zeros(2, 2)},
        'no weights': dict(epoch=3),
        'a list': [torch.zeros(1)],
        'a tensor': torch.zeros(3),
        'no ema': released,
    }


@pytest.mark.parametrize(
    ('kind', 'message'),
    {
        'missing key': r'does not fit .* Missing key.* "backbone.stages.1.0.norm.weight"',
        'wrong size': 'size mismatch for backbone.contextualizing.logit_scale',
        'vanilla blocks': 'every n-th',
        'foreign': "not a state of the released .* 'encoder.weight'",
        'no weights': "holds no weights .*'epoch'",
        'a list': 'holds list, not weights',
        'a tensor': 'holds Tensor, not weights',
        'no ema': 'has no moving average',
    }.items(),
)
def test_unfit_contents(kind, message, released, fails, tmp_path):
    torch.save(corrupt(released)[kind], tmp_path / 'src.pth')
    options = ['--ema'] if kind == 'no ema' else KEPT
    line = fails('released_to_mmctx', tmp_path / 'src.pth', *options)
    assert re.search(message, line), line


@pytest.mark.parametrize('tool', ['released_to_mmctx', 'vanilla_to_mmctx'])
def test_unreadable_files(tool, released, fails, tmp_path):
    src = tmp_path / 'src.pth'
    assert 'src.pth does not exist' in fails(tool, src)
    torch.save(released, src)
    src.write_bytes(src.read_bytes()[:5000])
    assert 'damaged or not a PyTorch checkpoint' in fails(tool, src)
    src.write_bytes(b'<html>404</html>')
    assert 'damaged or not a PyTorch checkpoint' in fails(tool, src)
    src.write_bytes(b'')
    assert 'damaged or not a PyTorch checkpoint' in fails(tool, src)


def test_numbers_of_kept_classes_are_checked(released, fails, tmp_path):
    torch.save(released, tmp_path / 'src.pth')
    line = fails('released_to_mmctx', tmp_path / 'src.pth', '--considered', 20, 5, 3)
    assert '20 classes cannot be kept of 12' in line


def test_vanilla_resnet(convert, tmp_path, capsys):
    src, dst = tmp_path / 'src.pth', tmp_path / 'dst.pth'
    state = ResNet(BasicBlock, [2, 2, 2, 2]).state_dict()
    torch.save(dict(state_dict=prefixed(state), args=argparse.Namespace()), src)
    convert('vanilla_to_mmctx', src, dst)
    printed = capsys.readouterr().out
    snippet = {}
    exec(printed[printed.index('model = dict(') :], snippet)
    backbone = MODELS.build(snippet['model']['backbone'])
    assert type(backbone).__name__ == 'ContextualResNet' and backbone.depth == 18
    backbone.init_weights()
    loaded = backbone.state_dict()
    del state['fc.weight'], state['fc.bias']
    assert all(torch.equal(loaded[name], value) for name, value in state.items())
    assert read_state(dst).source == 'state_dict'


def test_vanilla_with_missing_weights(fails, tmp_path):
    state = ResNet(BasicBlock, [2, 2, 2, 2]).state_dict()
    del state['layer3.0.bn2.running_mean']
    torch.save(state, tmp_path / 'src.pth')
    line = fails('vanilla_to_mmctx', tmp_path / 'src.pth')
    assert 'layer3.0.bn2.running_mean' in line


def test_one_line_of_a_command(run_tool, released, tmp_path):
    """Even where the frameworks are imported, and warn, before the mistake is found."""
    torch.save({k: v for k, v in released.items() if k != 'cls.logit_scale'}, tmp_path / 'src.pth')
    tool = 'model_converters/released_to_mmctx.py'
    refused = run_tool(tool, 'src.pth', 'dst.pth', *KEPT, cwd=tmp_path)
    assert refused.returncode == 2
    (line,) = refused.stderr.splitlines()
    assert 'does not fit' in line and 'logit_scale' in line
    assert os.listdir(tmp_path) == ['src.pth']
