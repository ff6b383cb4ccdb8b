"""Distributed training on machines without a GPU.

mmengine sets the CUDA device of each process whatever the machine has, asks for NCCL, and hands DDP
a GPU's index.
"""

import contextlib
import logging
import os
import socket
import sys

import torch
from mmengine.device import get_device
from mmengine.dist import init_dist, is_distributed
from mmengine.registry import MODEL_WRAPPERS
from mmengine.utils.dl_utils import set_multi_processing
from torch.nn.parallel import DistributedDataParallel


def prepare_launcher(cfg):
    """Make `cfg.launcher` work on a CPU: call it before `Runner.from_cfg`.

    Starts the process group with gloo and tells DDP that there is no device. Where there is an
    accelerator, or with the launcher 'none', nothing is done and mmengine chooses as ever.

    Args:
        cfg (Config): The runner's config, changed in place: `env_cfg.dist_cfg.backend` and
            `model_wrapper_cfg`.
    """
    launcher = cfg.get('launcher', 'none')
    if launcher == 'none' or get_device() != 'cpu':
        return
    env_cfg = cfg.setdefault('env_cfg', {})
    env_cfg['dist_cfg'] = {**env_cfg.get('dist_cfg', {}), 'backend': 'gloo'}
    cfg['model_wrapper_cfg'] = _wrapper_without_device(cfg)
    if is_distributed():
        return
    if launcher == 'slurm':
        _set_local_master()
    elif launcher == 'mpi':
        # mmengine reads it when it wraps the model and sets it for every launcher but this one.
        os.environ.setdefault('LOCAL_RANK', os.environ['OMPI_COMM_WORLD_LOCAL_RANK'])
    # In the runner's order: `init_dist` would settle on another start method if none were set.
    set_multi_processing(**env_cfg.get('mp_cfg', {}), distributed=True)
    with _without_cuda_device():
        init_dist(launcher, **env_cfg['dist_cfg'])


def leave_launcher():
    """End a process of a distributed CPU run once its work is done; nothing happens in any other.

    gloo's threads sometimes abort the interpreter while it shuts down, and the launcher then
    reports a finished run as failed; so all processes meet and leave without that shutdown.
    """
    if not is_distributed() or torch.distributed.get_backend() != 'gloo':
        return
    torch.distributed.barrier()
    logging.shutdown()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)


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
    if issubclass(MODEL_WRAPPERS.get(wrapper['type']), DistributedDataParallel):
        # An absent key is filled in with the process's local rank, an explicit None is not.
        wrapper['device_ids'] = None
    return wrapper


def _set_local_master():
    nodes = os.environ.get('SLURM_STEP_NUM_NODES') or os.environ.get('SLURM_NNODES')
    if 'MASTER_ADDR' in os.environ or nodes != '1':
        return
    try:
        socket.gethostbyname(os.environ.get('SLURMD_NODENAME') or os.environ['SLURM_NODELIST'])
    except OSError:
        os.environ['MASTER_ADDR'] = '127.0.0.1'
