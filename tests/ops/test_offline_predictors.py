"""What the predictors would launch on a GPU, compiled without one."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip('triton')
KERNELS = {
    'norm_relu_kernel',
    'norm_relu_backward_kernel',
    'static_depthwise_kernel',
    'static_depthwise_weight_kernel',
    'static_dense_kernel',
}


def check(capability, dtype):
    environment = {k: v for k, v in os.environ.items() if k != 'TRITON_INTERPRET'}
    done = subprocess.run(
        [sys.executable, Path(__file__).with_name('offline_predictors.py'), capability, dtype],
        capture_output=True,
        text=True,
        timeout=600,
        env=environment,
    )
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert {name.split()[1] for name in report} == KERNELS
    for name, kernel in report.items():
        assert kernel['spilled'] <= 8, name


def test_kernels_compile_for_hopper():
    check('90', 'float16')


@pytest.mark.slow
@pytest.mark.parametrize('capability', ['80', '90'])
@pytest.mark.parametrize('dtype', ['float32', 'bfloat16'])
def test_kernels_compile_for_each_type(capability, dtype):
    check(capability, dtype)
