"""`tools/check_gpu.py`: all of it on a CPU, small, and how it takes what goes wrong."""

import json
import math
import os
import sys

import pytest
import torch

from benchmarks.gpu_check import processes
from benchmarks.gpu_check.backbones import Comparison, build, cases, error_of_each
from benchmarks.gpu_check.sizes import Place
from benchmarks.gpu_check.steps import NAMES, Step, run_step
from benchmarks.gpu_check.training import judge
from mmctx.ops.contextual_conv import BACKEND_VARIABLE


@pytest.fixture(scope='module')
def place(tmp_path_factory):
    """A CPU, and a folder with rendered data."""
    pytest.importorskip('mmdet')
    pytest.importorskip('mmaction')
    place = Place('cpu', tmp_path_factory.mktemp('check'))
    run_step('data', place)
    return place


def test_tool_runs_steps_and_sums_them_up(run_tool, tmp_path):
    arguments = ('--device', 'cpu', '--out', 'check', '--jobs', 1, '--steps')
    steps = ['op', 'train-distributed']
    result = run_tool('check_gpu.py', *arguments, *steps, cwd=tmp_path, seconds=900)
    assert result.returncode == 0, result.stdout + result.stderr
    summary = json.loads((tmp_path / 'check' / 'summary.json').read_text())
    assert summary['passed'] and summary['versions']['torch'] == torch.__version__.split('+')[0]
    assert {name for name, step in summary['steps'].items() if step['passed']} == {'data', *steps}
    assert summary['steps']['train-distributed']['detail'].endswith('backend gloo')
    for name in steps:
        assert f'{name}: passed' in result.stdout
        assert (tmp_path / 'check' / f'{name}.log').is_file()


STEPS_OF_MODELS = ('compile', 'backbones-convnext', 'backbones-resnet', 'backbones-ablations')
STEPS_OF_TRAININGS = ('train-mask-rcnn', 'train-tsm', 'train-classifier')


def test_every_step_is_tried():
    assert {'op', 'train-distributed', *STEPS_OF_MODELS, *STEPS_OF_TRAININGS} == set(NAMES)


@pytest.mark.parametrize('name', STEPS_OF_MODELS)
def test_step_of_models_passes_on_a_cpu(name, place, run_command, repo):
    result = run_command('-m', 'benchmarks.gpu_check', name, 'cpu', place.out, cwd=repo)
    assert result.returncode == 0, result.stdout + result.stderr
    found = json.loads((place.out / f'{name}.json').read_text())
    assert name != 'compile' or found['graphs'] == 1
    assert name != 'backbones-ablations' or found['backbones'] == 12


@pytest.mark.parametrize('name', STEPS_OF_TRAININGS)
def test_step_of_a_training_passes_on_a_cpu(name, place, run_command, repo, monkeypatch):
    def run(command):
        python, *rest = command
        assert python == sys.executable
        result = run_command(*rest, cwd=repo)
        assert result.returncode == 0, result.stdout + result.stderr

    monkeypatch.setattr('benchmarks.gpu_check.training._run', run)
    run_step(name, place)
    assert json.loads((place.out / f'{name}.json').read_text())['iterations'] == 20


@pytest.mark.skipif(torch.cuda.is_available(), reason='there is a GPU')
def test_without_a_gpu_it_refuses_in_one_line(run_tool, tmp_path):
    result = run_tool('check_gpu.py', cwd=tmp_path)
    assert result.returncode == 2
    assert result.stderr.splitlines() == [
        'error: PyTorch sees no GPU here; --device cpu tries the check itself, small'
    ]
    assert not list(tmp_path.iterdir())


def test_a_folder_of_something_else_is_left_alone(run_tool, tmp_path):
    (tmp_path / 'thesis.tex').touch()
    result = run_tool('check_gpu.py', '--device', 'cpu', '--out', '.', cwd=tmp_path)
    assert result.returncode == 2
    assert 'holds something else' in result.stderr
    assert (tmp_path / 'thesis.tex').exists()


def test_a_failing_or_slow_step_does_not_stop_the_others(monkeypatch, tmp_path):
    codes = {
        'fails': 'print("why"); raise SystemExit(3)',
        'hangs': 'import subprocess; subprocess.run(["sleep", "100"])',
        'works': 'print("done")',
    }
    monkeypatch.setattr(
        processes, 'command', lambda step, place: [sys.executable, '-c', codes[step.name]]
    )
    steps = [Step(name, 2, '') for name in codes]
    steps[1] = steps[1]._replace(seconds=1)
    outcomes = {o.step.name: o for o in processes.Processes(Place('cpu', tmp_path), 1).run(steps)}
    assert {name: o.passed for name, o in outcomes.items()} == {
        'fails': False, 'hangs': False, 'works': True,
    }  # fmt: skip
    assert outcomes['fails'].detail.startswith('status 3, ')
    assert outcomes['fails'].detail.endswith('why')
    assert outcomes['hangs'].detail.startswith('ended after 1 s')
    assert outcomes['hangs'].seconds < 50
    assert outcomes['works'].detail == 'done'


def test_a_failed_step_fails_the_check(run_tool, tmp_path):
    result = run_tool(
        'check_gpu.py', '--device', 'cpu', '--out', 'check', '--steps', 'op', cwd=tmp_path,
        PYTEST_ADDOPTS='--no-such-option',
    )  # fmt: skip
    assert result.returncode == 1
    assert 'op: FAILED' in result.stdout and '--no-such-option' in result.stdout
    assert not json.loads((tmp_path / 'check' / 'summary.json').read_text())['passed']


def test_each_gradient_is_held_to_its_own_scale():
    exact = {
        'large': torch.full((4,), 1e3),
        'small': torch.full((2,), 1e-5),
        'none': torch.zeros(3),
    }
    assert max(error_of_each(exact, exact).values()) == 0
    got = {**exact, 'small': exact['small'] * 1.5}
    assert error_of_each(got, exact) == {'large': 0, 'small': pytest.approx(0.5), 'none': 0}
    got = {**exact, 'large': exact['large'] * math.nan, 'none': torch.ones(3)}
    errors = error_of_each(got, exact)
    assert errors['large'] == math.inf and errors['none'] > 1e6


def test_one_missing_gradient_fails_the_comparison(tmp_path):
    (backbone, *_) = cases('convnext', Place('cpu', tmp_path)).values()
    torch.manual_seed(0)
    model = build(backbone)
    name = 'stages.2.0.depthwise_conv.sampling_offset_predictor.0.weight'
    comparison = Comparison(model, 'cpu')
    # The reference alone is named by the environment.
    model.get_parameter(name).register_hook(
        lambda gradient: gradient if BACKEND_VARIABLE in os.environ else 0 * gradient
    )
    comparison.run()
    for dtype in ('float32', 'bfloat16'):
        assert any(f'{dtype} worst gradient of {name}' in line for line in comparison.wrong)


FALLING = {step: 10.0 - step for step in range(1, 21)}


@pytest.mark.parametrize(
    ('losses', 'wrong'),
    [
        (FALLING, ''),
        ({step: -loss for step, loss in FALLING.items()}, 'does not fall'),
        (dict.fromkeys(range(1, 21), 1.0), 'does not fall'),
        ({**FALLING, 7: math.nan}, 'not finite'),
        ({k: v for k, v in FALLING.items() if k != 11}, 'expected 1 to 20'),
        ({k: v for k, v in FALLING.items() if k < 20}, 'expected 1 to 20'),
    ],
)
def test_losses_that_do_not_fall_are_noticed(losses, wrong):
    found = judge(losses, 20)
    assert wrong in found and bool(found) == bool(wrong)
