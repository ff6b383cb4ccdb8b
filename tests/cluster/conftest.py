"""A slurm for the session, and the demo made small enough to train in it."""

import os
import subprocess
import sys

import pytest
from local_slurm import LocalSlurm, NoSlurm, install


@pytest.fixture(scope='session')
def slurm():
    """A slurm of two nodes; the session ends with status 1 where there cannot be one."""
    try:
        install()
    except NoSlurm as error:
        pytest.exit(f'no slurm on this machine: {error}', returncode=1)
    with LocalSlurm() as cluster:
        cluster.env.update(PYTHON=sys.executable, OMP_NUM_THREADS='1', CUDA_VISIBLE_DEVICES='-1')
        yield cluster


@pytest.fixture(scope='session')
def shapes(tmp_path_factory, repo):
    """Folder of eight rendered training images and four for validation."""
    root = tmp_path_factory.mktemp('data') / 'shapes'
    command = [sys.executable, repo / 'tools' / 'dataset_converters' / 'render_shapes.py', root]
    env = {**os.environ, 'PYTHONPATH': str(repo)}
    subprocess.run([*command, '--num-train', '8', '--num-val', '4'], check=True, env=env)
    return root
