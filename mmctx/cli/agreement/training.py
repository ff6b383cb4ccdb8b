"""Checks of the length of a training, its schedules, and the last batch of an epoch."""

import logging
from collections.abc import Iterator

import torch.nn as nn
from mmengine.logging import print_log
from mmengine.runner import EpochBasedTrainLoop, IterBasedTrainLoop

from mmctx.errors import UserError
from mmctx.models.eval_mode import modes_kept
from mmctx.models.layers.vector_step import names_of_training_norms

from .datasets import leaves
from .inputs import prepare


def check_lengths(runner) -> None:
    """Check that a training has iterations, and that its schedules fit its length.

    If a schedule would act after the end of the training, a warning is logged.
    """
    loop = runner._train_loop
    for name in ('max_epochs', 'max_iters'):
        length = getattr(loop, f'_{name}', None)
        if name in (runner.cfg.get('train_cfg') or {}) and type(length) is int and length < 1:
            raise UserError(f'train_cfg.{name} is {length}: there would be nothing to train')
    interval = getattr(loop, 'val_interval', 1)
    if runner._val_loop is not None and type(interval) is int and interval < 1:
        raise UserError(f'train_cfg.val_interval is {interval}, but should be at least 1')
    if not len(loop.dataloader):
        raise UserError(
            f'train_dataloader gives no batch of its {len(loop.dataloader.dataset)} samples: '
            'lower its batch_size, or set drop_last=False'
        )
    for where, schedule in named_schedules(runner.param_schedulers):
        for doubt in doubts(schedule, loop):
            print_log(f'{where} ({schedule["type"]}) {doubt}', 'current', logging.WARNING)


def named_schedules(schedules, where: str = 'param_scheduler') -> Iterator[tuple[str, dict]]:
    """List the configs of schedules, each with its dotted key."""
    if isinstance(schedules, dict) and 'type' in schedules:
        yield where, schedules
        return
    parts = schedules.items() if isinstance(schedules, dict) else enumerate(schedules or ())
    for key, part in parts:
        if isinstance(part, (dict, list, tuple)):
            yield from named_schedules(part, f'{where}.{key}')


def doubts(schedule: dict, loop) -> Iterator[str]:
    """Describe what a schedule would do after the end of a training; refuse one that never acts."""
    by_epoch = schedule.get('by_epoch', True)
    counts_epochs = by_epoch and not schedule.get('convert_to_iter_based')
    if counts_epochs and isinstance(loop, IterBasedTrainLoop):
        raise UserError(
            f'{schedule["type"]} of param_scheduler counts epochs, and this training has '
            'iterations alone, so that it would never act: set by_epoch=False'
        )
    unit = 'epoch' if by_epoch else 'iteration'
    total = getattr(loop, '_max_epochs' if by_epoch else '_max_iters', None)
    if type(total) is not int:
        return
    end = f'but the training ends after {unit} {total}'
    begin = schedule.get('begin', 0)
    if begin >= total:
        yield f'begins at {unit} {begin}, {end}'
        return
    late = [step for step in schedule.get('milestones') or () if step >= total]
    if late:
        yield f'has milestones {late}, {end}'
    period = schedule.get('T_max')
    last = begin + period if type(period) is int else schedule.get('end')
    if type(last) is int and last > total:
        yield f'continues to {unit} {last}, {end}'


def check_batches(loop, model: nn.Module) -> None:
    """Check that no training batch has a single sample if a batch norm over vectors trains."""
    loader = loop.dataloader
    size = getattr(loader, 'batch_size', None) or getattr(loader.batch_sampler, 'batch_size', None)
    layer = norm_of_vectors(model)
    if layer is None or type(size) is not int or images_of_one_sample(loader.dataset) > 1:
        return
    if size == 1:
        raise UserError(
            f'train_dataloader.batch_size is 1, and batch norm ({layer}) cannot train on one '
            "image: take larger batches, or pass norm='LN' to the backbone"
        )
    drops = getattr(loader.batch_sampler, 'drop_last', False)
    sampler = getattr(loader.batch_sampler, 'sampler', None)
    finite = isinstance(loop, EpochBasedTrainLoop) or type(sampler).__name__ == 'DefaultSampler'
    if finite and not drops and sampler is not None and len(sampler) % size == 1:
        raise UserError(
            f'the last batch of an epoch would have one image ({len(sampler)} samples in batches '
            f'of {size}), and batch norm ({layer}) cannot train on one image: leave it out by '
            '--cfg-options train_dataloader.drop_last=True, or take another batch_size'
        )


def images_of_one_sample(dataset) -> int:
    """How many images a sample gives the network, as a video gives it frames."""
    first = leaves(dataset)[0]
    sample = prepare(first, 0, 'train') if len(first) else None
    inputs = sample.get('inputs') if isinstance(sample, dict) else None
    shape: tuple[int, ...] = getattr(inputs, 'shape', ())
    return shape[0] if len(shape) == 4 else 1


def norm_of_vectors(model: nn.Module) -> str | None:
    """Find a batch norm that trains on one vector for each image; return its name or None."""
    with modes_kept(model):
        model.train()
        return next(names_of_training_norms(model), None)
