"""The op's benchmark: its cases, its check, and the tool from end to end."""

import json
import sys

import pytest
import torch

from benchmarks.speed import op
from benchmarks.speed.op_cases import (
    PLAIN,
    SAMPLING_OFFSET_STEP,
    OpInputs,
    OpShape,
    draw_inputs,
    formulations,
)
from benchmarks.speed.op_check import check, exact_results, relative_errors, run_once
from benchmarks.timing import Call, time_in_turn, use_device
from mmctx.cli.tool import run_tool as report
from mmctx.errors import UserError
from mmctx.ops import BACKENDS, contextual_conv2d

CPU = torch.device('cpu')
SHAPES = ('dw7:24x9x7', 'dense3:6x9x8:s2', 'dw3:5x6x7:s2')


@pytest.fixture
def tool(monkeypatch, tmp_path):
    """Run the tool in this process; returns its exit status."""

    def run(*args):
        monkeypatch.setattr(sys, 'argv', ['benchmark_op.py', *map(str, args)])
        monkeypatch.chdir(tmp_path)
        try:
            report(op.main)
        except SystemExit as stop:
            return stop.code
        return 0

    return run


def test_shapes_are_read():
    shape = OpShape.parse('dense3:128x56x57:s2:b4')
    assert shape == OpShape(False, 3, 128, 56, 57, stride=2, batch=4)
    assert shape.out_size == (28, 29)
    assert str(shape) == 'dense 3×3, 128×56×57, stride 2'
    for text in ('dw7', 'dw6:4x8x8', 'dw7:4x0x8', 'conv7:4x8x8', 'dw7:4x8x8:b0'):
        with pytest.raises(UserError, match='is no shape'):
            OpShape.parse(text)


def test_bytes_and_flops_are_those_of_the_definition():
    """Of KERNELS' table: 49·B·C·HW taps of 10 FLOP, 2·B·(2·C·HW + 147·HW + 49·C) bytes."""
    shape, batch = OpShape.parse('dw7:192x28x28'), 2
    inputs = draw_inputs(shape, batch, torch.float16, CPU, modulated=True)
    values = 49 * batch * 192 * 28 * 28
    assert shape.flops(batch) == (10 * values, 28 * values)
    assert shape.flops(batch, contextual=False) == (2 * values, 4 * values)
    moved = 2 * batch * (2 * 192 * 784 + 147 * 784 + 49 * 192)
    static = 2 * (192 * 49 + 192)
    assert inputs.bytes()[0] == moved + static
    dense = OpShape.parse('dense3:8x5x5')
    assert dense.flops(1) == (9 * 8 * 25 * (8 + 2 * 8 + 2), 9 * 8 * 25 * (24 + 4 * 8 + 4))


@pytest.mark.parametrize('dtype', [torch.float32, torch.float16, torch.bfloat16])
def test_offsets_are_exact_and_never_whole(dtype):
    inputs = draw_inputs(OpShape.parse('dw3:2x40x40'), 2, dtype, CPU)
    steps = inputs.tensors['sampling_offset'].double() / SAMPLING_OFFSET_STEP
    assert torch.equal(steps, steps.round())
    assert (steps % 2 == 1).all()
    assert steps.abs().max() * SAMPLING_OFFSET_STEP > 4


@pytest.mark.parametrize('modulated', [False, True])
@pytest.mark.parametrize('text', SHAPES)
def test_exact_results_do_not_depend_on_the_pieces(text, modulated, monkeypatch):
    shape = OpShape.parse(text)
    inputs = draw_inputs(shape, 2, torch.float64, CPU, modulated)
    whole = run_once(formulations()['reference'], inputs, shape.geometry)
    for samples in (1, 2**22):
        monkeypatch.setattr('benchmarks.speed.op_check.SAMPLES_AT_A_TIME', samples)
        errors = relative_errors(exact_results(shape, inputs), whole)
        assert errors.keys() == {*inputs.tensors, 'output'}
        assert max(errors.values()) < 1e-12


@pytest.mark.parametrize('modulated', [False, True])
@pytest.mark.parametrize('dtype', [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize('text', SHAPES)
def test_released_formulation_and_plain_convolution_are_right(text, dtype, modulated):
    """Independent of the project's own kernels: torchvision's and PyTorch's operators."""
    shape, functions = OpShape.parse(text), formulations(['released'])
    inputs = draw_inputs(shape, 3, dtype, CPU, modulated, channels_last=modulated)
    for name, given in (('released', inputs), (PLAIN, inputs.plain())):
        errors, wrong = check(functions[name], shape, given, exact_results(shape, given))
        assert wrong == ''
        assert errors.keys() == {*given.tensors, 'output'}


def without_sampling_offset_gradient(**arguments):
    arguments['sampling_offset'] = (
        arguments['sampling_offset'].detach() + 0 * arguments['sampling_offset']
    )
    return contextual_conv2d(**arguments, backend='reference')


@pytest.mark.parametrize(
    ('function', 'message'),
    [
        (lambda **a: 1.0001 * contextual_conv2d(**a, backend='reference'), 'output'),
        (without_sampling_offset_gradient, 'sampling_offset'),
        (lambda **a: torch.nan * contextual_conv2d(**a, backend='reference'), 'output nan'),
        (lambda **a: contextual_conv2d(**a, backend='reference')[:1], 'shape'),
    ],
)
def test_wrong_formulations_are_found(function, message):
    shape = OpShape.parse('dw3:4x6x5')
    inputs = draw_inputs(shape, 2, torch.float32, CPU)
    if message == 'shape':
        inputs = OpInputs(inputs.tensors, inputs.cotangent)
        exact = exact_results(shape, inputs)
        inputs.cotangent = inputs.cotangent[:1]
    else:
        exact = exact_results(shape, inputs)
    _, wrong = check(function, shape, inputs, exact)
    assert message in wrong


def test_calls_take_turns():
    order = []
    calls = {name: Call(lambda i, name=name: order.append((name, i))) for name in 'ab'}
    times = time_in_turn(calls, CPU, seconds=0, min_runs=4)
    assert order == [('a', 0), ('b', 0)] + [(name, i) for i in (1, 2, 3, 4) for name in 'ab']
    assert all(spent.runs == 4 and spent.best <= spent.low <= spent.median <= spent.high
               for spent in times.values())  # fmt: skip


def test_a_device_that_is_not_there():
    for name in ('cuda:99', 'tpu', 'meta'):
        with pytest.raises(UserError, match=f'--device {name}'):
            use_device(name)


def test_tool_writes_ratios_to_the_plain_convolution(tool, tmp_path, capsys):
    args = ('--shapes', 'dw3:4x6x5', 'dense3:4x6x6:s2:b1', '--batch-size', 2, '--seconds', 0)
    assert tool(*args, '--json', 'op.json', '--markdown', 'op.md', '--device', 'cpu') == 0
    results = json.loads((tmp_path / 'op.json').read_text())
    assert {'device', 'versions', 'date', 'dtype', 'ceilings', 'rows'} <= results.keys()
    assert results['versions']['torch'] == torch.__version__.partition('+')[0]
    rows = {(row['shape'], row['formulation']): row for row in results['rows']}
    assert len(rows) == 2 * (2 + len(BACKENDS))
    assert {row['batch'] for row in rows.values()} == {1, 2}
    timed = [row for row in rows.values() if row['status'] == 'ok']
    assert {'reference', 'tapwise', 'released', PLAIN} <= {row['formulation'] for row in timed}
    for row in timed:
        plain = rows[row['shape'], PLAIN]['passes']
        for name, figures in row['passes'].items():
            spent = figures['median_s']
            assert figures['ratio_to_plain'] == pytest.approx(spent / plain[name]['median_s'])
            assert figures['bytes_per_s'] == pytest.approx(figures['bytes'] / spent)
            assert figures['share_of_copy'] == pytest.approx(
                figures['bytes_per_s'] / results['ceilings']['copy_bytes_per_s']
            )
        assert max(row['errors'].values()) < 2e-5
    table = [line for line in (tmp_path / 'op.md').read_text().splitlines() if line[0:1] == '|']
    assert len(table) == 2 + len(rows)
    assert len({line.count('|') for line in table}) == 1
    assert 'depthwise 3×3, 4×6×5' in capsys.readouterr().out


def test_tool_gives_no_speed_for_a_wrong_back_end(tool, monkeypatch, tmp_path, capsys):
    def wrong(x, weight, bias, sampling_offset, *rest, **options):
        return BACKENDS['reference'](x, weight, bias, sampling_offset.roll(1, 1), *rest, **options)

    def absent(*_, **__):
        raise NotImplementedError('needs another device')

    def broken(*_, **__):
        raise RuntimeError('no kernel image')

    for function in (wrong, absent, broken):
        monkeypatch.setitem(BACKENDS, function.__name__, function)
    args = ('--shapes', 'dw3:4x6x5', '--batch-size', 2, '--seconds', 0, '--device', 'cpu')
    chosen = ('--backends', 'wrong', 'broken', 'absent', 'reference')
    assert tool(*args, *chosen, '--json', 'op.json') == 1
    rows = json.loads((tmp_path / 'op.json').read_text())['rows']
    status = {row['formulation']: row['status'] for row in rows}
    assert status == {
        PLAIN: 'ok', 'wrong': 'FAILED', 'broken': 'FAILED', 'absent': 'not run',
        'reference': 'ok',
    }  # fmt: skip
    assert all('passes' not in row for row in rows if row['status'] != 'ok')
    printed = capsys.readouterr().out
    assert 'wrong: FAILED, relative error over 2e-05: ' in printed
    assert 'absent: not run, NotImplementedError: needs another device' in printed
    assert tool(*args, '--backends', 'absent', 'reference') == 0


@pytest.mark.parametrize(
    ('args', 'message'),
    [
        (('--shapes', 'dw8:4x4x4'), "'dw8:4x4x4' is no shape"),
        (('--backends', 'nonsense'), '--backends: no nonsense; there are '),
        (('--batch-size', 0), '--batch-size must be at least 1'),
        (('--seconds', -1), '--seconds must not be -1.0'),
        (('--threads', 0), '--threads must be at least 1'),
        (('--json', '/no/such/op.json'), '--json /no/such/op.json: its folder does not exist'),
    ],
)
def test_wrong_options_end_in_one_line(args, message, tool, capsys):
    assert tool(*args) == 2
    assert capsys.readouterr().err.startswith(f'error: {message}')


def test_host_time_needs_no_gpu(run_tool, tmp_path):
    """In a process of its own, as launching is replaced for good."""
    file = tmp_path / 'host.json'
    arguments = ('--host', '--seconds', 0, '--json', file)
    result = run_tool('analysis/benchmark_op.py', *arguments, cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    rows = json.loads(file.read_text())['rows']
    assert {row['layer'] for row in rows} == {'7×7 depthwise', '3×3 dense'}
    parts = {row['part'].partition(',')[0] for row in rows}
    assert parts == {'nn.Conv2d', 'op', 'whole layer'}
    assert all(row['microseconds'] > 0 and row['ratio'] > 0 for row in rows)
