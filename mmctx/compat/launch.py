"""What mmengine's launchers lack, mainly on machines without a GPU.

On every machine, mmengine sets the CUDA device of each process, asks for NCCL, and passes the index
of a GPU to DDP. It reads LOCAL_RANK when it wraps the model, but does not set it for mpi. PyTorch
has SyncBatchNorm for accelerators only.
"""

import contextlib
import logging
import os
import socket
import sys

import torch
from mmengine._strategy import DDPStrategy, FSDPStrategy
from mmengine.device import get_device
from mmengine.dist import init_dist, is_distributed
from mmengine.logging import print_log
from mmengine.model import revert_sync_batchnorm
from mmengine.registry import MODEL_WRAPPERS, STRATEGIES
from mmengine.utils.dl_utils import set_multi_processing
from torch.nn import Parameter, SyncBatchNorm
from torch.nn.parallel import DistributedDataParallel

from mmctx.errors import UserError
from mmctx.registry import class_of

# Environment variable that each launcher sets, and the command that starts the launcher.
STARTED_BY = {
    'pytorch': ('LOCAL_RANK', 'torchrun'),
    'slurm': ('SLURM_PROCID', 'srun'),
    'mpi': ('OMPI_COMM_WORLD_LOCAL_RANK', "Open MPI's mpirun"),
}

# Range below the ports that Linux uses for outgoing connections.
FIRST_PORT, PORTS = 20000, 10000


def prepare_launcher(cfg):
    """Make `cfg.launcher` work on a CPU, and mpi anywhere: call it before `Runner.from_cfg`.

    On a CPU it starts the process group with gloo and tells DDP that there is no device. With an
    accelerator the choice is mmengine's, and with the launcher 'none' nothing is done.

    Args:
        cfg (Config): Config of the runner, changed in place: `env_cfg.dist_cfg.backend` and
            `model_wrapper_cfg`.

    Raises:
        UserError: This process was not started by the launcher, or there is no GPU left for it.
    """
    launcher = cfg.get('launcher', 'none')
    if launcher == 'none':
        return
    if not is_distributed():
        _prepare_environment(launcher)
    if get_device() != 'cpu':
        return
    env_cfg = cfg.setdefault('env_cfg', {})
    env_cfg['dist_cfg'] = {**env_cfg.get('dist_cfg', {}), 'backend': 'gloo'}
    cfg['model_wrapper_cfg'] = _wrapper_without_device(cfg)
    if cfg.get('strategy'):
        _set_strategy_without_device(cfg['strategy'])
    if is_distributed():
        return
    # In the order of the runner: without it `init_dist` would choose another start method.
    set_multi_processing(**env_cfg.get('mp_cfg', {}), distributed=True)
    with _without_cuda_device():
        init_dist(launcher, **env_cfg['dist_cfg'])


def revert_sync_norms(model):
    """Replace SyncBatchNorm by plain batch norm in a distributed run on CPUs, with a warning.

    mmengine does so only without a launcher; with one, training would stop at the first
    SyncBatchNorm.

    Args:
        model (nn.Module): The model, changed in place; it may be wrapped.
    """
    if get_device() != 'cpu' or not is_distributed():
        return
    if any(isinstance(module, SyncBatchNorm) for module in model.modules()):
        print_log(
            'no GPU: SyncBatchNorm becomes a batch norm of each process alone',
            logger='current',
            level=logging.WARNING,
        )
        revert_sync_batchnorm(model)


def prepare_sharding(model, strategy):
    """Give scalar parameters an axis of one element under FSDP, which refuses them.

    Args:
        model (nn.Module): The model, changed in place.
        strategy (BaseStrategy): Strategy of the run; nothing is done under any other.
    """
    if not isinstance(strategy, FSDPStrategy):
        return
    for module in model.modules():
        for name, parameter in list(module.named_parameters(recurse=False)):
            if parameter.ndim == 0:
                vector = Parameter(parameter.detach().reshape(1), parameter.requires_grad)
                setattr(module, name, vector)


def leave_launcher(status=0):
    """End a process of a distributed run on CPUs after its work; do nothing in any other process.

    gloo's threads sometimes abort the interpreter while it shuts down, and the launcher then
    reports a finished run as failed. So all processes synchronize and exit without that shutdown.

    Args:
        status (int): Exit status. Defaults to 0.
    """
    if not is_distributed() or torch.distributed.get_backend() != 'gloo':
        return
    torch.distributed.barrier()
    logging.shutdown()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)


def _prepare_environment(launcher):
    variable, starter = STARTED_BY[launcher]
    if variable not in os.environ:
        raise UserError(
            f'--launcher {launcher}: {starter} did not start this process ({variable} is not set)'
        )
    if launcher == 'slurm':
        _set_local_master()
        # mmengine's default is 29500 for every job, even if two jobs share a node.
        job = int(os.environ.get('SLURM_JOB_ID', 0))
        os.environ.setdefault('MASTER_PORT', str(FIRST_PORT + job % PORTS))
    elif launcher == 'mpi':
        os.environ['LOCAL_RANK'] = os.environ[variable]
        _set_mpi_master()
    if get_device() != 'cuda':
        return
    local_rank = int(os.environ.get('SLURM_LOCALID' if launcher == 'slurm' else 'LOCAL_RANK', 0))
    gpus = torch.cuda.device_count()
    if local_rank >= gpus:
        raise UserError(
            f'process {local_rank + 1} of this machine sees only {gpus} GPU(s): start one process '
            'a GPU and let each see all of them (slurm: --gres instead of --gpus-per-task), or '
            'set CUDA_VISIBLE_DEVICES=-1 to run on the CPU'
        )


@contextlib.contextmanager
def _without_cuda_device():
    set_device = torch.cuda.set_device
    torch.cuda.set_device = lambda device: None
    try:
        yield
    finally:
        torch.cuda.set_device = set_device


def _wrapper_without_device(cfg):
    wrapper = cfg.get('model_wrapper_cfg') or {
        'broadcast_buffers': False,
        'find_unused_parameters': cfg.get('find_unused_parameters', False),
    }
    wrapper = {'type': 'MMDistributedDataParallel', **wrapper}
    cls = class_of(wrapper, MODEL_WRAPPERS, cfg.get('default_scope'))
    if issubclass(cls, DistributedDataParallel):
        # mmengine fills in the local rank for a missing key, but not for an explicit None.
        wrapper['device_ids'] = None
    return wrapper


def _set_strategy_without_device(strategy):
    """Tell the wrapper of a FlexibleRunner's strategy that there is no device, in place."""
    kind = STRATEGIES.get(strategy['type'])
    if issubclass(kind, FSDPStrategy):
        # It takes None for an accelerator, which it then misses.
        wrapper = dict(type='MMFullyShardedDataParallel', device_id=torch.device('cpu'))
    elif issubclass(kind, DDPStrategy):
        wrapper = dict(type='MMDistributedDataParallel', broadcast_buffers=False, device_ids=None)
    else:
        return
    strategy['model_wrapper'] = {**wrapper, **(strategy.get('model_wrapper') or {})}


def _set_local_master():
    nodes = os.environ.get('SLURM_STEP_NUM_NODES') or os.environ.get('SLURM_NNODES')
    if 'MASTER_ADDR' in os.environ or nodes != '1':
        return
    try:
        socket.gethostbyname(os.environ.get('SLURMD_NODENAME') or os.environ['SLURM_NODELIST'])
    except OSError:
        os.environ['MASTER_ADDR'] = '127.0.0.1'


def _set_mpi_master():
    if 'MASTER_ADDR' in os.environ:
        return
    everywhere, here = (os.environ.get(f'OMPI_COMM_WORLD_{part}SIZE') for part in ('', 'LOCAL_'))
    if everywhere != here:
        raise UserError(
            '--launcher mpi: set MASTER_ADDR to the first machine and hand it on with '
            'mpirun -x MASTER_ADDR'
        )
    os.environ['MASTER_ADDR'] = '127.0.0.1'
