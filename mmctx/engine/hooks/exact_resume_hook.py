"""Resuming a run as if it had not been interrupted."""

import logging

from mmengine.dist import get_world_size
from mmengine.hooks import Hook
from mmengine.logging import print_log

from mmctx.engine.batches import NumberedBatchSampler
from mmctx.engine.data import BatchReader
from mmctx.engine.randomness import derive_seed, seed_generators
from mmctx.registry import HOOKS

KEY = 'data_position'


@HOOKS.register_module()
class ExactResumeHook(Hook):
    """Seed the model's random numbers by iteration, and save and restore the place in the data.

    mmengine saves the rest of a run's state, from weights and their averages to schedules and the
    loss scale. Two things are not restored: what modules, transforms and samplers keep outside of
    that state, such as images cached for mosaics, and partly accumulated gradients.
    """

    priority = 'VERY_HIGH'

    def __init__(self):
        self.position = None

    def before_train_iter(self, runner, batch_idx, data_batch=None):
        """Seed the generators that the model draws from."""
        seed_generators(derive_seed(runner.seed, runner.iter))

    def before_val_epoch(self, runner):
        """Make every validation of a process draw the same random numbers."""
        sampler = runner.val_dataloader.batch_sampler
        if isinstance(sampler, NumberedBatchSampler):
            sampler.number = 0

    def before_save_checkpoint(self, runner, checkpoint):
        """Save the place in the data."""
        loop, meta = runner.train_loop, checkpoint['meta']
        within = meta['epoch'] == runner.epoch
        meta[KEY] = dict(
            sampler_seed=getattr(_sampler(loop.dataloader), 'seed', None),
            batches_done=getattr(loop, 'batches_done', 0) if within else 0,
            batches_per_epoch=len(loop.dataloader),
            processes=get_world_size(),
        )

    def after_load_checkpoint(self, runner, checkpoint):
        """Remember the place until the loop starts."""
        if runner._resume:
            self.position = checkpoint.get('meta', {}).get(KEY)

    def before_train(self, runner):
        """Move to the place in the data where the checkpoint was saved."""
        if self.position is None:
            return
        loop, position = runner.train_loop, self.position
        loader, sampler = loop.dataloader, _sampler(loop.dataloader)
        if position['sampler_seed'] is not None and hasattr(sampler, 'seed'):
            sampler.seed = position['sampler_seed']
        reader = getattr(loader.dataset, '__getitems__', None)
        if isinstance(reader, BatchReader):
            reader.seed = runner.seed
        done, before, now = position['batches_done'], position['batches_per_epoch'], len(loader)
        if (before, position['processes']) != (now, get_world_size()):
            print_log(
                f'the checkpoint is from {position["processes"]} processes with {before} batches '
                f'an epoch and this run has {get_world_size()} with {now}: it resumes with other '
                'samples than an uninterrupted run',
                logger='current',
                level=logging.WARNING,
            )
            done = done * now // before
        if hasattr(loop, 'batches_done'):
            loop.batches_done = done


def _sampler(loader):
    return getattr(loader.batch_sampler, 'sampler', loader.sampler)
