"""Data of the study, prepared and counted before a training starts."""

import json
from pathlib import Path

from mmengine.config import Config

from mmctx.cli.preflight import check_contents, preflight

from .jobs import Job


def prepare_data(jobs: list[Job]) -> dict[str, tuple[int, int]]:
    """Decode or render the data that the jobs read, unless that has been done, and check it.

    Args:
        jobs (list[Job]): Jobs of any parts.

    Returns:
        dict[str, tuple[int, int]]: Numbers of training and of validation images of each part.

    Raises:
        UserError: Data is missing.
    """
    prepare = {'classification': _decode, 'detection': _render}
    by_part = {job.run.part: job.cfg for job in jobs}
    return {part: prepare[part](cfg) for part, cfg in by_part.items()}


def _decode(cfg: Config) -> tuple[int, int]:
    from mmctx.datasets.packed import PackedTinyImageNet

    check_contents(preflight(cfg, 'train'))
    loaders = cfg.train_dataloader, cfg.val_dataloader
    settings = [{k: v for k, v in loader.dataset.items() if k != 'type'} for loader in loaders]
    training, validation = (len(PackedTinyImageNet(**split)) for split in settings)
    return training, validation


def _render(cfg: Config) -> tuple[int, int]:
    from mmctx.datasets.shapes import render_dataset

    render_dataset(cfg.data_root)
    check_contents(preflight(cfg, 'train'))
    training, validation = (
        len(json.loads(Path(cfg.data_root, loader.dataset.ann_file).read_text())['images'])
        for loader in (cfg.train_dataloader, cfg.val_dataloader)
    )
    return training, validation
