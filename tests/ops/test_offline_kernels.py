"""What the Triton back end would launch on a GPU, bound and compiled without one."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip('triton')


def offline(*args):
    environment = {k: v for k, v in os.environ.items() if k != 'TRITON_INTERPRET'}
    done = subprocess.run(
        [sys.executable, Path(__file__).with_name('offline_kernels.py'), *args],
        capture_output=True,
        text=True,
        timeout=600,
        env=environment,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_image_sizes_need_no_kernels_of_their_own():
    """One variant a kernel, for each of depthwise and dense, over six sizes and two strides."""
    assert offline('sizes') == {
        'depthwise_kernel': 1,
        'columns_kernel': 1,
        'sampling_gradient_kernel': 2,
        'scatter_kernel': 2,
        'reach_kernel': 2,
        'gather_kernel': 2,
    }


def check(kernels, spill=0):
    assert len(kernels) == 10
    for name, kernel in kernels.items():
        assert kernel['spilled'] <= spill, name
        if 'reach' not in name:
            assert kernel['widest_load'] == 16, name
        if 'gather' not in name and 'reach' not in name:
            assert kernel['registers'] <= 168, name


def test_kernels_compile_for_hopper():
    check(offline('compile', '90', 'float16'))


@pytest.mark.slow
@pytest.mark.parametrize('capability', ['80', '90'])
@pytest.mark.parametrize('dtype', ['float32', 'float16', 'bfloat16'])
def test_kernels_compile_for_each_type(capability, dtype):
    check(offline('compile', capability, dtype), spill=24 if capability == '80' else 0)
