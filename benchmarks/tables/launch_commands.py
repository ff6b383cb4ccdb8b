"""The commands that train a row of the paper's tables, and their cost."""

import shlex
from pathlib import Path

from mmengine.config import Config

from mmctx.compat.config_paths import config_dir

from .figures import config_path
from .paper import Row

GPUS_PER_MACHINE = 8
# Training samples of an epoch; for COCO without the 1,021 images that have no object.
SAMPLES = {'imagenet': 1_281_167, 'kinetics400': 240_436, 'coco': 117_266}
# A multiply-add is two operations, and a backward pass costs as much as two forward passes.
OPERATIONS = 2 * 3
# Sustained on each GPU, far below the data sheets: a round figure for an A100 in mixed precision,
# without data loading and validation.
TERAFLOPS = 20


def launch_commands(row: Row, work_dirs: Path, partition: str) -> list[str]:
    """Make the commands that train a row with the batch size of its recipe; build no model.

    Args:
        row (Row): The row.
        work_dirs (Path): Folder of the work dirs, each named like its config.
        partition (str): Partition of slurm.

    Returns:
        list[str]: Comments, and the commands for one machine, for slurm, and for a batch job of
        slurm that is requeued.
    """
    cfg = Config.fromfile(config_path(row), import_custom_modules=False)
    batch, each = cfg.auto_scale_lr.base_batch_size, cfg.train_dataloader.batch_size
    gpus = batch // each
    local = min(gpus, GPUS_PER_MACHINE)
    rounds = gpus // local
    comment = f'# {row.key}, {row.model}: batch {batch} = {gpus} GPUs × {each}'
    options = []
    if rounds > 1:
        comment += f' or, on one machine, {local} GPUs × {each} × {rounds} accumulated'
        options = ['--cfg-options', f'optim_wrapper.accumulative_counts={rounds}']
        # The averaged weights have to be updated once for each step of the optimizer, as with all
        # GPUs.
        options += [
            f'custom_hooks.{i}.interval={rounds}'
            for i, hook in enumerate(cfg.get('custom_hooks', []))
            if hook.type == 'EMAHook'
        ]
    comments = [comment, _cost(row, cfg)]
    if row.same_as:
        comments.append(f'# the same network as {row.same_as}: a finished run of that serves too')
    if '://' not in (cfg.get('pretrained') or '://'):
        comments.append(f'# starts from {cfg.pretrained}')
    name = Path(row.config).name
    tools = config_dir().resolve().parent / 'tools'
    config, work_dir = _from_here(config_path(row)), str(work_dirs / name)
    dist = [_from_here(tools / 'dist_train.sh'), config, local, '--work-dir', work_dir, *options]
    slurm = [_from_here(tools / 'slurm_train.sh'), partition, name, config, work_dir]
    sbatch = [
        'sbatch', f'--partition={partition}', f'--job-name={name}', f'--nodes={gpus // local}',
        f'--ntasks-per-node={local}', f'--gres=gpu:{local}',
        _from_here(tools / 'slurm_train.sbatch'), config, '--work-dir', work_dir,
    ]  # fmt: skip
    return [
        *comments,
        shlex.join(map(str, dist)),
        f'GPUS={gpus} GPUS_PER_NODE={local} {shlex.join(slurm)}',
        shlex.join(sbatch),
    ]


def node_hours(flops: float, samples: int, epochs: int) -> float:
    """Estimate the node hours of a training.

    Args:
        flops (float): Multiply-adds of a forward pass of one sample.
        samples (int): Number of training samples of an epoch.
        epochs (int): Number of epochs.

    Returns:
        float: Hours of a node of `GPUS_PER_MACHINE` GPUs that sustain `TERAFLOPS` each.
    """
    operations = OPERATIONS * flops * samples * epochs
    return operations / (TERAFLOPS * 1e12 * GPUS_PER_MACHINE * 3600)


def _cost(row: Row, cfg: Config) -> str:
    scope = {'mmdet': 'coco', 'mmaction': 'kinetics400'}.get(cfg.default_scope, 'imagenet')
    samples, epochs = SAMPLES[scope], cfg.train_cfg.max_epochs
    hours = node_hours(float(row.flops.removesuffix('G')) * 1e9, samples, epochs)
    return (
        f'# about {hours:.0f} hours of a node of {GPUS_PER_MACHINE} GPUs, an estimate: '
        f'{OPERATIONS} × {row.flops} FLOPs × {samples:,} samples × {epochs} epochs '
        f'at {TERAFLOPS} TFLOP/s a GPU'
    )


def _from_here(path: Path) -> str:
    here = Path.cwd()
    return str(path.relative_to(here) if path.is_relative_to(here) else path)
