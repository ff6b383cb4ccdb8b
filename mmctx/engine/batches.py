"""Batches that bear their number in the run, and can start at any of them."""

from collections.abc import Iterator
from typing import NamedTuple

from mmengine.registry import DATA_SAMPLERS
from torch.utils.data import BatchSampler


class NumberedBatch(NamedTuple):
    """What a worker is asked for.

    Attributes:
        number (int): Number of the batch, counted from the start of training.
        indices (list[int]): Samples of the data set.
    """

    number: int
    indices: list


class NumberedBatchSampler(BatchSampler):
    """Number the batches of another batch sampler, and leave out those that were trained on.

    Args:
        sampler (Sampler): Sampler of single samples.
        batch_size (int): Samples in a batch.
        drop_last (bool): Whether an incomplete last batch is left out. Defaults to False.
        inner (dict | None): Config of a batch sampler. Defaults to None: batches in turn.
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
        """Leave out the first batches of the next pass, and further passes if there are more.

        Args:
            number (int): Number that the next batch shall have.
            batches (int): Number of batches to leave out; nothing of them is read.

        Returns:
            int: Complete passes that were left out.
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
    """A data loader's config with `NumberedBatchSampler` around its batch sampler."""
    config = dict(config)
    sampler = dict(type=NumberedBatchSampler, inner=config.get('batch_sampler'))
    if 'drop_last' in config:
        sampler['drop_last'] = config.pop('drop_last')
    return {**config, 'batch_sampler': sampler}
