"""Distributed training on a CPU, with each of mmengine's launchers."""

import os
import shutil
import socket
import subprocess
import sys

import pytest
import torch
from mmengine.config import Config

from mmctx.compat import launch

SCRIPT = """
import os
import sys
import torch
from mmengine.config import Config
from mmengine.dist import get_backend
from mmengine.model import BaseModel
from mmengine.registry import DATASETS, MODELS
from mmengine.runner import Runner
from mmctx.compat.launch import leave_launcher, prepare_launcher


@MODELS.register_module()
class Toy(BaseModel):
    def __init__(self):
        super().__init__()
        self.linear = torch.nn.Linear(2, 1)

    def forward(self, inputs, mode='tensor'):
        return {'loss': self.linear(inputs).square().mean()}


@DATASETS.register_module()
class Points(torch.utils.data.Dataset):
    def __len__(self):
        return 8

    def __getitem__(self, index):
        return {'inputs': torch.tensor([index / 8, 1.0])}


cfg = Config({
    'model': {'type': 'Toy'},
    'work_dir': sys.argv[1],
    'launcher': sys.argv[2],
    'train_dataloader': {
        'batch_size': 2,
        'dataset': {'type': 'Points'},
        'sampler': {'type': 'DefaultSampler', 'shuffle': True},
        'collate_fn': {'type': 'default_collate'},
    },
    'train_cfg': {'by_epoch': False, 'max_iters': 2},
    'optim_wrapper': {'optimizer': {'type': 'SGD', 'lr': 0.1}},
    'env_cfg': {'dist_cfg': {'backend': 'nccl', 'timeout': 60}},
    'log_level': 'ERROR',
})
set_device = torch.cuda.set_device
prepare_launcher(cfg)
assert torch.cuda.set_device is set_device
runner = Runner.from_cfg(cfg)
runner.train()
weight = runner.model.module.linear.weight.detach()
gathered = [torch.zeros_like(weight) for _ in range(2)]
torch.distributed.all_gather(gathered, weight)
assert torch.equal(*gathered)
print(f'\\nrank {runner.rank} of {runner.world_size} on {get_backend()}: {runner.iter}', flush=True)
leave_launcher()
"""


def free_port():
    with socket.socket() as server:
        server.bind(('127.0.0.1', 0))
        return str(server.getsockname()[1])


def cpu_environment(**env):
    cleared = ('SLURM_', 'OMPI_', 'MASTER_', 'RANK', 'WORLD_SIZE', 'LOCAL_RANK')
    inherited = {k: v for k, v in os.environ.items() if not k.startswith(cleared)}
    return {**inherited, 'CUDA_VISIBLE_DEVICES': '-1', 'OMP_NUM_THREADS': '1', **env}


def start(command, env):
    return subprocess.Popen(
        [sys.executable, *command],
        env=env,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def environment_of_task(launcher, rank, port):
    if launcher == 'slurm':
        return cpu_environment(
            MASTER_PORT=port,
            SLURM_PROCID=str(rank),
            SLURM_LOCALID=str(rank),
            SLURM_NTASKS='2',
            SLURM_NNODES='1',
            SLURM_NODELIST='name-of-no-host.invalid',
        )
    return cpu_environment(
        MASTER_ADDR='127.0.0.1',
        MASTER_PORT=port,
        OMPI_COMM_WORLD_RANK=str(rank),
        OMPI_COMM_WORLD_LOCAL_RANK=str(rank),
        OMPI_COMM_WORLD_SIZE='2',
    )


@pytest.mark.parametrize('launcher', ['pytorch', 'slurm', 'mpi'])
def test_two_processes_train_on_a_cpu(launcher, tmp_path):
    script = tmp_path / 'train.py'
    script.write_text(SCRIPT)
    command = [str(script), str(tmp_path / 'work'), launcher]
    port = free_port()
    if launcher == 'pytorch':
        torchrun = ['-m', 'torch.distributed.run', '--nproc_per_node=2', f'--master_port={port}']
        processes = [start(torchrun + command, cpu_environment())]
    else:
        processes = [start(command, environment_of_task(launcher, r, port)) for r in range(2)]
    try:
        outputs = [process.communicate(timeout=120)[0] for process in processes]
    finally:
        for process in processes:
            process.kill()
    assert all(process.returncode == 0 for process in processes), '\n'.join(outputs)
    for rank in range(2):
        assert f'rank {rank} of 2 on gloo: 2' in '\n'.join(outputs)


def is_open_mpi():
    if shutil.which('mpirun') is None:
        return False
    version = subprocess.run(['mpirun', '--version'], capture_output=True, text=True).stdout
    return 'Open MPI' in version


@pytest.mark.skipif(not is_open_mpi(), reason="no Open MPI: install Debian's openmpi-bin")
def test_mpirun_starts_two_processes(tmp_path):
    script = tmp_path / 'train.py'
    script.write_text(SCRIPT)
    mpirun = ['mpirun', '--allow-run-as-root', '--oversubscribe', '-n', '2', sys.executable]
    done = subprocess.run(
        [*mpirun, script, tmp_path / 'work', 'mpi'],
        env=cpu_environment(MASTER_PORT=free_port()),
        capture_output=True,
        text=True,
        timeout=180,
    )
    assert done.returncode == 0, done.stderr
    for rank in range(2):
        assert f'rank {rank} of 2 on gloo: 2' in done.stdout


@pytest.fixture
def bare(monkeypatch):
    """An environment that no launcher has set anything in, restored after the test."""
    prefixes = ('SLURM', 'MASTER_', 'OMPI_', 'RANK', 'WORLD_SIZE', 'LOCAL_RANK')
    monkeypatch.setattr(os, 'environ', {
        name: value for name, value in os.environ.items() if not name.startswith(prefixes)
    })  # fmt: skip
    return os.environ


@pytest.fixture
def two_gpus(monkeypatch):
    monkeypatch.setattr(launch, 'get_device', lambda: 'cuda')
    monkeypatch.setattr(torch.cuda, 'device_count', lambda: 2)


@pytest.mark.parametrize('launcher', ['none', 'pytorch'])
def test_nothing_changes_where_it_is_not_needed(launcher, two_gpus, bare):
    bare['LOCAL_RANK'] = '1'
    cfg = Config({'launcher': launcher, 'env_cfg': {'dist_cfg': {'backend': 'nccl'}}})
    expected, environment = cfg.to_dict(), dict(bare)
    launch.prepare_launcher(cfg)
    assert (cfg.to_dict(), bare) == (expected, environment)
    assert not torch.distributed.is_initialized()


def test_mpi_on_gpus_gets_what_mmengine_reads_and_does_not_set(two_gpus, bare):
    bare.update(OMPI_COMM_WORLD_LOCAL_RANK='1', OMPI_COMM_WORLD_SIZE='2')
    bare.update(OMPI_COMM_WORLD_LOCAL_SIZE='2')
    launch.prepare_launcher(Config({'launcher': 'mpi'}))
    assert (bare['LOCAL_RANK'], bare['MASTER_ADDR']) == ('1', '127.0.0.1')


def test_mpi_on_several_machines_needs_an_address(two_gpus, bare):
    bare.update(OMPI_COMM_WORLD_LOCAL_RANK='0', OMPI_COMM_WORLD_SIZE='4')
    bare.update(OMPI_COMM_WORLD_LOCAL_SIZE='2')
    with pytest.raises(ValueError, match='mpirun -x MASTER_ADDR'):
        launch.prepare_launcher(Config({'launcher': 'mpi'}))


@pytest.mark.parametrize('launcher', ['pytorch', 'slurm', 'mpi'])
def test_a_process_that_its_launcher_did_not_start_is_refused(launcher, bare):
    with pytest.raises(ValueError, match=f'--launcher {launcher}: .* did not start this process'):
        launch.prepare_launcher(Config({'launcher': launcher}))


@pytest.mark.parametrize(
    ('launcher', 'environment'),
    [('pytorch', {'LOCAL_RANK': '2'}), ('slurm', {'SLURM_PROCID': '2', 'SLURM_LOCALID': '2'})],
)
def test_more_processes_than_gpus_are_refused(launcher, environment, two_gpus, bare):
    bare.update(environment)
    with pytest.raises(ValueError, match=r'process 3 of this machine sees only 2 GPU\(s\)'):
        launch.prepare_launcher(Config({'launcher': launcher}))


def test_jobs_of_slurm_have_ports_of_their_own(two_gpus, bare):
    bare.update(SLURM_PROCID='0', SLURM_LOCALID='0', SLURM_NNODES='2', SLURM_JOB_ID='61234')
    launch.prepare_launcher(Config({'launcher': 'slurm'}))
    assert bare['MASTER_PORT'] == '21234'
    bare.update(MASTER_PORT='29400')
    launch.prepare_launcher(Config({'launcher': 'slurm'}))
    assert bare['MASTER_PORT'] == '29400'


def test_sync_norms_become_plain_ones_on_a_cpu(on_cpu, monkeypatch):
    logged = []
    monkeypatch.setattr(launch, 'print_log', lambda message, **_: logged.append(message))
    norms = [torch.nn.SyncBatchNorm(3), torch.nn.SyncBatchNorm(3)]
    model = torch.nn.Sequential(torch.nn.Conv2d(3, 3, 1), norms[0], torch.nn.Sequential(norms[1]))
    plain = torch.nn.BatchNorm2d(3)
    launch.revert_sync_norms(model)
    assert not any(isinstance(module, torch.nn.SyncBatchNorm) for module in model.modules())
    assert model[1].weight is norms[0].weight
    assert len(logged) == 1
    assert 'batch norm of each process alone' in logged[0]
    x = torch.randn(2, 3, 4, 4)
    torch.testing.assert_close(model[1](x), plain(x))


def test_sync_norms_stay_on_gpus(two_gpus, monkeypatch):
    monkeypatch.setattr(launch, 'is_distributed', lambda: True)
    model = torch.nn.Sequential(torch.nn.SyncBatchNorm(3))
    launch.revert_sync_norms(model)
    assert isinstance(model[0], torch.nn.SyncBatchNorm)


@pytest.fixture
def on_cpu(monkeypatch):
    """A machine without a GPU whose process group, as far as mmctx can see, runs already."""
    monkeypatch.setattr(launch, 'get_device', lambda: 'cpu')
    monkeypatch.setattr(launch, 'is_distributed', lambda: True)


def test_options_of_the_user_are_kept(on_cpu):
    cfg = Config(
        {
            'launcher': 'pytorch',
            'env_cfg': {'cudnn_benchmark': False, 'dist_cfg': {'backend': 'nccl', 'timeout': 9}},
            'model_wrapper_cfg': {'static_graph': True},
        }
    )
    launch.prepare_launcher(cfg)
    assert cfg.env_cfg == {'cudnn_benchmark': False, 'dist_cfg': {'backend': 'gloo', 'timeout': 9}}
    assert cfg.model_wrapper_cfg == {
        'type': 'MMDistributedDataParallel',
        'static_graph': True,
        'device_ids': None,
    }


def test_find_unused_parameters_is_passed_on(on_cpu):
    cfg = Config({'launcher': 'pytorch', 'find_unused_parameters': True})
    launch.prepare_launcher(cfg)
    assert cfg.model_wrapper_cfg.find_unused_parameters
    assert not cfg.model_wrapper_cfg.broadcast_buffers


@pytest.mark.parametrize(
    ('node', 'nodes', 'address', 'expected'),
    [
        ('name-of-no-host.invalid', '1', None, '127.0.0.1'),
        ('name-of-no-host.invalid', '2', None, None),
        ('name-of-no-host.invalid', '1', '10.0.0.1', '10.0.0.1'),
        ('localhost', '1', None, None),
    ],
)
def test_slurm_master_is_local_only_for_one_nameless_node(
    node, nodes, address, expected, monkeypatch
):
    for name in [name for name in os.environ if name.startswith(('SLURM', 'MASTER_'))]:
        monkeypatch.delenv(name)
    monkeypatch.setenv('SLURM_NODELIST', node)
    monkeypatch.setenv('SLURM_NNODES', nodes)
    if address is not None:
        monkeypatch.setenv('MASTER_ADDR', address)
    else:
        monkeypatch.setenv('MASTER_ADDR', 'restored after the test')
        monkeypatch.delenv('MASTER_ADDR')
    launch._set_local_master()
    assert os.environ.get('MASTER_ADDR') == expected
