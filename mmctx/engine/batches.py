"""Numbered batches, of which a run can start at any."""

from collections.abc import Iterator
from typing import NamedTuple

from mmengine.registry import DATA_SAMPLERS
from torch.utils.data import BatchSampler


class NumberedBatch(NamedTuple):
    """A batch for a worker to read.

    Attributes:
        number (int): Number of the batch, counted from the start of training.
        indices (list[int]): Indices of its samples in the data set.
    """

    number: int
    indices: list


class NumberedBatchSampler(BatchSampler):
    """Batch sampler that numbers the batches of another one and can skip those already trained on.

    Args:
        sampler (Sampler): Sampler of single samples.
        batch_size (int): Number of samples in a batch.
        drop_last (bool): Whether an incomplete last batch is left out. Defaults to False.
        inner (dict, optional): Config of the batch sampler whose batches are numbered. Defaults to
            None: PyTorch's `BatchSampler`.
    """

    def __init__(self, sampler, batch_size, drop_last=False, inner=None):
        super().__init__(sampler, batch_size, drop_last)
        if inner is None:
            self.inner = BatchSampler(sampler, batch_size, drop_last)
        else:
            self.inner = DATA_SAMPLERS.build(
                inner, default_args=dict(sampler=sampler, batch_size=batch_size)
            )
        self.number = 0
        self._started = None

    def advance(self, number: int, batches: int) -> int:
        """Skip the first batches of the next pass over the data, and whole passes if need be.

        Args:
            number (int): Number of the next batch.
            batches (int): Number of batches to skip; their samples are not read.

        Returns:
            int: Number of complete passes that were skipped.
        """
        self.number, passes = number, 0
        self._started = iter(self.inner)
        for _ in range(batches):
            while next(self._started, None) is None:
                passes += 1
                self.sampler.set_epoch(passes)
                self._started = iter(self.inner)
        return passes

    def __iter__(self) -> Iterator[NumberedBatch]:  # type: ignore[override]
        batches, self._started = self._started or iter(self.inner), None
        for indices in batches:
            self.number += 1
            yield NumberedBatch(self.number - 1, indices)

    def __len__(self) -> int:
        return len(self.inner)


def numbered(config: dict) -> dict:
    """Put `NumberedBatchSampler` around the batch sampler in a data loader's config."""
    config = dict(config)
    sampler = dict(type=NumberedBatchSampler, inner=config.get('batch_sampler'))
    if 'drop_last' in config:
        sampler['drop_last'] = config.pop('drop_last')
    return {**config, 'batch_sampler': sampler}
