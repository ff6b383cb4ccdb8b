"""mmengine's training loops, made to resume within an epoch."""

from itertools import repeat

from mmengine.registry import LOOPS
from mmengine.runner import EpochBasedTrainLoop as MMEngineEpochBasedTrainLoop
from mmengine.runner import IterBasedTrainLoop as MMEngineIterBasedTrainLoop

from .batches import NumberedBatchSampler


class EpochBasedTrainLoop(MMEngineEpochBasedTrainLoop):
    """Training by epochs that resumes at the batch where it stopped.

    mmengine's own loop repeats the epoch.

    Attributes:
        batches_done (int): Number of batches of the current epoch that are done.
    """

    batches_done = 0

    def run_epoch(self) -> None:
        """Train the rest of an epoch."""
        self.runner.call_hook('before_train_epoch')
        self.runner.model.train()
        sampler = self.dataloader.batch_sampler
        if isinstance(sampler, NumberedBatchSampler):
            sampler.advance(self._iter, self.batches_done)
        for idx, data_batch in enumerate(self.dataloader, self.batches_done):
            self.run_iter(idx, data_batch)
        self.runner.call_hook('after_train_epoch')
        self._epoch += 1
        self.batches_done = 0

    def run_iter(self, idx, data_batch) -> None:
        """Train one batch."""
        self.batches_done = idx + 1
        super().run_iter(idx, data_batch)


class IterBasedTrainLoop(MMEngineIterBasedTrainLoop):
    """Training by iterations that resumes without reading the batches it has trained on."""

    def run(self):
        """Train."""
        sampler = self.dataloader.batch_sampler
        if self._iter and isinstance(sampler, NumberedBatchSampler):
            self.dataloader_iterator = _advanced(self.dataloader_iterator, sampler, self._iter)
        return super().run()


def _advanced(batches, sampler, done):
    # This runs at the first `next`, after a hook has restored the sampler's seed. Passes over the
    # data are counted, and shuffled, as in an uninterrupted run.
    batches._epoch = sampler.advance(done, done)
    # mmengine discards as many batches when it resumes.
    yield from repeat(None, done)
    yield from batches


RESUMABLE = {
    MMEngineEpochBasedTrainLoop: EpochBasedTrainLoop,
    MMEngineIterBasedTrainLoop: IterBasedTrainLoop,
}


def resumable_loop(config: dict) -> dict:
    """Replace mmengine's own loops in a training loop's config by those of this module."""
    config = dict(config)
    if 'by_epoch' in config:
        by_epoch = config.pop('by_epoch')
        return dict(config, type=EpochBasedTrainLoop if by_epoch else IterBasedTrainLoop)
    kind = config.get('type')
    cls = LOOPS.get(kind) if isinstance(kind, str) else kind
    return dict(config, type=RESUMABLE.get(cls, kind))
