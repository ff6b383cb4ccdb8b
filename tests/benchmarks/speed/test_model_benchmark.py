"""The models' benchmark: counterparts, modes, what is refused, and the tool from end to end."""

import gzip
import json
import sys

import pytest
import torch

from benchmarks.speed import models
from benchmarks.speed.model_benchmark import Entry
from benchmarks.speed.model_check import ReferenceResults, reference_backend, relative_error
from benchmarks.speed.networks import Network, parse_mode, randomize_predictors, vanilla_config
from mmctx.cli.config import load_config
from mmctx.cli.running import build_model
from mmctx.cli.tool import run_tool as report
from mmctx.errors import UserError
from mmctx.models.layers import ContextualConv2d
from mmctx.ops import BACKENDS, contextual_conv2d

CPU = torch.device('cpu')
NARROW = """
_base_ = '{repo}/configs/{base}.py'
model = dict(
    backbone=dict(
        arch=dict(_delete_=True, depths=[1, 1, 1, 1], channels=[16, 64, 96, 128]){more}),
    head={head})
"""
NARROW_DETECTOR = """
_base_ = '{repo}/configs/mask_rcnn_ctx_convnext_t_coco.py'
model = dict(
    backbone=dict(arch=dict(_delete_=True, depths=[1, 1, 1, 1], channels=[8, 16, 24, 32])),
    neck=dict(in_channels=[8, 16, 24, 32], out_channels=16),
    rpn_head=dict(in_channels=16, feat_channels=16),
    roi_head=dict(
        bbox_roi_extractor=dict(out_channels=16),
        bbox_head=dict(in_channels=16, fc_out_channels=32),
        mask_roi_extractor=dict(out_channels=16),
        mask_head=dict(in_channels=16, conv_out_channels=16, num_convs=1)),
    test_cfg=dict(rpn=dict(nms_pre=50, max_per_img=5), rcnn=dict(max_per_img=5)))
"""


@pytest.fixture
def configs(repo, tmp_path):
    """A narrow Contextual ConvNeXt and its vanilla counterpart."""
    more = ', num_classes=12, considered=(8, 5, 3), embed_dims=16'
    for name, base, extra, head in (
        ('ctx', 'ctx_convnext_t_in1k', more, 'dict()'),
        ('vanilla', 'convnext_t_in1k', '', 'dict(in_channels=128)'),
    ):
        text = NARROW.format(repo=repo, base=base, more=extra, head=head)
        (tmp_path / f'{name}.py').write_text(text)
    return tmp_path


@pytest.fixture
def narrow(configs):
    """The narrow network, and its config."""
    cfg = load_config(str(configs / 'ctx.py'), {'pretrained': None})
    return randomize_predictors(build_model(cfg)), cfg


@pytest.fixture
def tool(monkeypatch):
    """Run the tool in this process; returns its exit status."""

    def run(*args):
        monkeypatch.setattr(sys, 'argv', ['benchmark.py', *map(str, args)])
        try:
            report(models.main)
        except SystemExit as stop:
            return stop.code
        return 0

    return run


@pytest.mark.parametrize(
    ('config', 'vanilla'),
    [
        ('ctx_convnext_t_in1k', 'convnext_t_in1k'),
        ('ctx_resnet50_in1k', 'resnet50_in1k'),
        ('ablations/c2_stage4', 'ablations/c1_no_stages'),
        ('mask_rcnn_ctx_convnext_t_coco', 'mask_rcnn_convnext_t_coco'),
        ('convnext_t_in1k', None),
        ('mask_rcnn_ctx_convnext_shapes', None),
    ],
)
def test_counterparts_are_those_of_the_paper(config, vanilla, repo):
    assert vanilla_config(str(repo / 'configs' / f'{config}.py')) == vanilla
    assert vanilla is None or (repo / 'configs' / f'{vanilla}.py').is_file()


def test_modes_are_read():
    assert parse_mode('eager') == ()
    assert parse_mode('amp+compile') == ('amp', 'compile')
    for text in ('fast', 'amp+', 'eager+amp'):
        with pytest.raises(UserError, match='--modes'):
            parse_mode(text)


def test_relative_error():
    inf, nan = torch.inf, torch.nan
    expected = torch.tensor([3.0, 4.0, -inf, 0.0, 0.0, 0.0])
    assert relative_error(torch.tensor([3.0, 4.5, -inf, 0.0, 0.0, 0.0]), expected) == 0.1
    assert relative_error(torch.tensor([3.0, -inf, 1.0, 0.0, 0.0, 0.0]), expected) == 0
    few = torch.tensor([3.0, -inf, -inf, -inf, 0.0, 0.0])
    assert relative_error(few, expected) == inf
    broken = relative_error(torch.tensor([3.0, nan, -inf, 0.0, 0.0, 0.0]), expected)
    assert not broken < inf


def test_checked_networks_depend_on_every_predictor(narrow):
    model, cfg = narrow
    network = Network(model, cfg, (), (64, 64), CPU)
    images = torch.rand(1, 3, 64, 64)
    with torch.no_grad():
        before = network.features(images)[0]
        layers = [m for m in network.model.modules() if isinstance(m, ContextualConv2d)]
        assert layers
        for layer in layers:
            for predictor in (layer.sampling_offset_predictor, layer.weight_offset_predictor):
                kept = predictor[-1].weight.clone()
                predictor[-1].weight.zero_()
                assert relative_error(network.features(images)[0], before) > 1e-4
                predictor[-1].weight.copy_(kept)


def shifted(x, weight, bias, sampling_offset, *rest, **options):
    return BACKENDS['reference'](x, weight, bias, sampling_offset + 0.01, *rest, **options)


class Halved(torch.autograd.Function):
    """The same value, half the gradient."""

    @staticmethod
    def forward(ctx, x):
        return x.clone()

    @staticmethod
    def backward(ctx, grad):
        return grad / 2


def halved_gradient(x, weight, bias, sampling_offset, *rest, **options):
    return BACKENDS['reference'](x, weight, bias, Halved.apply(sampling_offset), *rest, **options)


@pytest.mark.parametrize(
    ('backend', 'what'), [(shifted, 'features'), (halved_gradient, 'gradients')]
)
def test_a_wrong_back_end_does_not_pass(backend, what, narrow, monkeypatch):
    model, cfg = narrow
    eager = Network(model, cfg, (), (64, 64), CPU)
    reference = ReferenceResults(eager)
    errors, wrong = reference.check(eager)
    assert wrong == ''
    assert errors.keys() == {'features', 'gradients'}
    monkeypatch.setitem(BACKENDS, 'wrong', backend)
    monkeypatch.setenv('MMCTX_BACKEND', 'wrong')
    assert what in reference.check(eager)[1]


def test_reference_backend_is_put_back(monkeypatch):
    tensors = torch.rand(1, 1, 3, 3), torch.rand(1, 1, 3, 3)
    monkeypatch.setenv('MMCTX_BACKEND', 'nonsense')
    with reference_backend():
        contextual_conv2d(*tensors)
    with pytest.raises(ValueError, match='nonsense'):
        contextual_conv2d(*tensors)


def test_detector_takes_a_training_step(repo, tmp_path):
    (tmp_path / 'narrow.py').write_text(NARROW_DETECTOR.format(repo=repo))
    cfg = load_config(str(tmp_path / 'narrow.py'), {'pretrained': None})
    network = Network(randomize_predictors(build_model(cfg)), cfg, (), (64, 96), CPU)
    assert len(network.features(torch.rand(1, 3, 64, 96))) == 5
    network.inference(1)()
    step, wrapper = network.training_step(2)
    weight = network.model.backbone.stages[1][0].depthwise_conv.weight
    before = weight.clone()
    assert step().isfinite()
    assert wrapper.optimizer.state[weight]['exp_avg'].any()
    # Steps at a recipe's first learning rate would move the drawn offsets out of the image.
    assert torch.equal(weight, before)


def test_no_speed_for_a_training_step_whose_loss_is_not_finite(narrow, monkeypatch):
    network = Network(*narrow, (), (32, 32), CPU)
    step, wrapper = network.training_step(2)
    monkeypatch.setattr(network, 'training_step', lambda _: (lambda: step() * torch.nan, wrapper))
    entry = Entry('narrow', network)
    entry.prepare_training(2)
    assert entry.row['status'] == 'FAILED'
    assert not entry.calls


def test_tool_writes_ratios_to_the_vanilla_network(tool, configs, capsys):
    targets = {name: configs / f'models.{name}' for name in ('json', 'md', 'png')}
    status = tool(
        configs / 'ctx.py', '--baseline', configs / 'vanilla.py', '--device', 'cpu', '--seconds', 0,
        '--modes', 'eager', 'amp+channels-last', '--batch-size', 2, '--shape', 64, 96,
        '--json', targets['json'], '--markdown', targets['md'], '--plot', targets['png'],
        '--trace', configs / 'traces',
    )  # fmt: skip
    assert status == 0
    results = json.loads(targets['json'].read_text())
    rows = {(row['config'], row['mode']): row for row in results['rows']}
    assert len(rows) == 4
    assert results['amp_dtype'] == 'bfloat16'
    for (name, mode), row in rows.items():
        assert row['status'] == 'ok'
        assert row['images_per_second'] == pytest.approx(2 / row['batch']['median_s'])
        assert ('ratios' in row) == (name == 'ctx')
        for quantity, value in row.get('ratios', {}).items():
            other = rows['vanilla', mode][quantity]
            assert value == pytest.approx(row[quantity]['median_s'] / other['median_s'])
    assert rows['ctx', 'eager']['ratios'].keys() == {'batch', 'single image', 'training step'}
    table = [line for line in targets['md'].read_text().splitlines() if line[0:1] == '|']
    assert len(table) == 6
    assert len({line.count('|') for line in table}) == 1
    assert targets['png'].read_bytes().startswith(b'\x89PNG')
    assert 'bfloat16 autocast' in capsys.readouterr().out
    assert len(list((configs / 'traces').iterdir())) == 4 * 3
    with gzip.open(configs / 'traces' / 'ctx_eager_training_step.json.gz', 'rt') as file:
        events = {event.get('name') for event in json.load(file)['traceEvents']}
    assert 'aten::_embedding_bag_forward_only' in events


def test_tool_gives_no_speed_for_a_wrong_back_end(tool, configs, monkeypatch, capsys):
    monkeypatch.setitem(BACKENDS, 'wrong', shifted)
    monkeypatch.setenv('MMCTX_BACKEND', 'wrong')
    args = ('--device', 'cpu', '--seconds', 0, '--batch-size', 1, '--shape', 64, 64, '--no-train')
    assert tool(configs / 'ctx.py', *args, '--json', configs / 'm.json') == 1
    (row,) = json.loads((configs / 'm.json').read_text())['rows']
    assert row['status'] == 'FAILED'
    assert 'images_per_second' not in row
    assert 'ctx, eager: FAILED, relative error over' in capsys.readouterr().out


def test_a_mode_that_cannot_run_leaves_the_others(tool, configs, monkeypatch, capsys):
    def no_compiler(function, **_):
        def run(*args, **kwargs):
            raise RuntimeError('no C++ compiler found')

        return run

    monkeypatch.setattr(torch, 'compile', no_compiler)
    args = ('--device', 'cpu', '--seconds', 0, '--batch-size', 1, '--shape', 64, 64, '--no-train')
    assert tool(configs / 'ctx.py', *args, '--modes', 'compile', 'eager', '--json',
                configs / 'm.json') == 0  # fmt: skip
    compiled, eager = json.loads((configs / 'm.json').read_text())['rows']
    assert (compiled['status'], eager['status']) == ('not run', 'ok')
    assert 'no C++ compiler found' in compiled['note']
    assert 'images_per_second' not in compiled
    assert 'images_per_second' in eager
    assert 'ctx, compile: not run, RuntimeError: no C++ compiler' in capsys.readouterr().out


@pytest.mark.parametrize(
    ('args', 'message'),
    [
        (('--modes', 'fast'), '--modes fast: eager, or some of amp, channels-last, compile'),
        (('--shape', 16, 64), '--shape 16 64 is smaller than 32'),
        (('--batch-size', 0), '--batch-size must be at least 1, not 0'),
        (('--plot', '/no/such/p.png'), '--plot /no/such/p.png: its folder does not exist'),
    ],
)
def test_wrong_options_end_in_one_line(args, message, tool, configs, capsys):
    assert tool(configs / 'ctx.py', *args) == 2
    assert capsys.readouterr().err.startswith(f'error: {message}')
