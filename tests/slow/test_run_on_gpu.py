"""`tools/analysis/run_on_gpu.sh` from end to end, at small sizes on whatever device there is."""

import os
import subprocess
import sys

import pytest


@pytest.mark.slow
def test_every_step_leaves_its_files(repo, tmp_path):
    result = subprocess.run(
        [str(repo / 'tools' / 'analysis' / 'run_on_gpu.sh')],
        env={**os.environ, 'QUICK': '1', 'OUT': str(tmp_path), 'PYTHON': sys.executable},
        capture_output=True,
        text=True,
    )
    assert result.returncode == 0, result.stdout + result.stderr
    (folder,) = tmp_path.iterdir()
    networks = ('resnet50', 'convnext_t')
    steps = ('op-float16', 'op-bfloat16', 'op-float32', *networks)
    expected = {f'{step}.{kind}' for step in steps for kind in ('json', 'md', 'log')}
    expected |= {'tests.log', 'traces', *(f'{network}.png' for network in networks)}
    assert {path.name for path in folder.iterdir()} == expected
    assert f'results in {folder}' in result.stdout


def test_an_unknown_step_is_named(repo):
    result = subprocess.run(
        [str(repo / 'tools' / 'analysis' / 'run_on_gpu.sh'), 'op-float8'],
        env={**os.environ, 'PYTHON': sys.executable},
        capture_output=True,
        text=True,
    )
    assert result.returncode == 2
    assert "no step 'op-float8': choose from tests resnet50" in result.stderr
