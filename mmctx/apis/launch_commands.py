"""The commands that train a row of the paper's tables, on one machine and on slurm."""

import shlex
from pathlib import Path

from mmengine.config import Config

from mmctx.compat.config_paths import config_dir

from .paper_tables import Row
from .tables import config_path

GPUS_PER_MACHINE = 8


def launch_commands(row: Row, work_dirs: Path, partition: str) -> list[str]:
    """How to train a row with the batch size of its recipe; no model is built.

    Args:
        row (Row): The row.
        work_dirs (Path): Folder of the work dirs, each named like its config.
        partition (str): Slurm's partition.

    Returns:
        list[str]: Comments, and the commands for one machine and for slurm.
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
        # The averaged weights have to move once for each step of the optimizer, as with all GPUs.
        options += [
            f'custom_hooks.{i}.interval={rounds}'
            for i, hook in enumerate(cfg.get('custom_hooks', []))
            if hook.type == 'EMAHook'
        ]
    comments = [comment]
    if row.same_as:
        comments.append(f'# the same network as {row.same_as}: a finished run of that serves too')
    if '://' not in (cfg.get('pretrained') or '://'):
        comments.append(f'# starts from {cfg.pretrained}')
    name = Path(row.config).name
    tools = config_dir().resolve().parent / 'tools'
    config, work_dir = _from_here(config_path(row)), str(work_dirs / name)
    dist = [_from_here(tools / 'dist_train.sh'), config, local, '--work-dir', work_dir, *options]
    slurm = [_from_here(tools / 'slurm_train.sh'), partition, name, config, work_dir]
    return [
        *comments,
        shlex.join(map(str, dist)),
        f'GPUS={gpus} GPUS_PER_NODE={local} {shlex.join(slurm)}',
    ]


def _from_here(path: Path) -> str:
    here = Path.cwd()
    return str(path.relative_to(here) if path.is_relative_to(here) else path)
