"""What the Triton back end would launch on a GPU, bound and compiled without one."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip('triton')
KERNELS = {
    'prepare_kernel', 'depthwise_kernel', 'columns_kernel', 'sampling_gradient_kernel',
    'kernel_gradient_kernel', 'list_kernel', 'gather_product_kernel',
}  # fmt: skip


def offline(*args):
    environment = {k: v for k, v in os.environ.items() if k != 'TRITON_INTERPRET'}
    done = subprocess.run(
        [sys.executable, '-W', 'ignore', Path(__file__).with_name('offline_kernels.py'), *args],
        capture_output=True,
        text=True,
        timeout=600,
        env=environment,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def test_image_sizes_need_no_kernels_of_their_own():
    """As many variants over six sizes and two strides as over one."""
    assert offline('sizes') == {
        'prepare_kernel': 2,  # depthwise and dense
        'depthwise_kernel': 2,  # images of one column and of several
        'columns_kernel': 2,
        'sampling_gradient_kernel': 4,  # of these, depthwise and dense
        'kernel_gradient_kernel': 2,
        'list_kernel': 4,  # depthwise and dense, counting and filling
        'gather_product_kernel': 2,
    }


def test_every_combination_of_arguments_compiles():
    """Each set of optional arguments, with no gradient, each alone and all."""
    assert {*KERNELS, 'gather_kernel', 'order_kernel'} == offline('combinations').keys()


IN_LAYERS = {
    'hidden_rows_kernel', 'hidden_vectors_kernel', 'norm_relu_vectors_kernel', 'keep_kernel',
    'class_vectors_kernel', 'normed_product_kernel', 'prior_kernel', 'norm_backward_kernel',
    'step_gradients_kernel', 'logits_backward_kernel', 'rows_product_kernel',
    'hidden_backward_kernel', 'pixel_mean_kernel',
    'sample_losses_kernel', 'mean_losses_kernel', 'losses_backward_kernel',
    'unit_kernel', 'unit_backward_kernel', 'batch_norm_relu_kernel',
    'batch_norm_relu_backward_kernel', 'static_dense_kernel', 'static_dense_weight_kernel',
    'batch_statistics_kernel', 'norm_relu_kernel', 'norm_relu_backward_kernel', 'sum_kernel',
    'static_depthwise_kernel', 'static_depthwise_weight_kernel',
}  # fmt: skip


def check_machine_code(mode, capability, *dtypes):
    kernels = offline(mode, capability, *dtypes)
    assert {name.split()[1] for name in kernels} >= KERNELS | IN_LAYERS
    for name, kernel in kernels.items():
        assert kernel['spilled'] <= 32, name  # bytes
        if name.endswith('gather_product_kernel'):
            assert not kernel['transposes'], name


def test_kernels_of_all_shipped_networks_compile_for_hopper():
    """Machine code in the type that most train in; the others take as long again, each."""
    check_machine_code('sample', '90', 'float16')


@pytest.mark.slow
@pytest.mark.parametrize('capability', ['80', '90'])
def test_kernels_of_all_shipped_networks_compile_in_every_type(capability):
    check_machine_code('networks', capability, 'float16', 'bfloat16', 'float32')
