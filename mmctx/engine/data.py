"""Data loading whose random numbers depend on the place in the run, and that names bad samples."""

import os
import re
import signal
from functools import partial
from numbers import Integral

import torch
from mmengine.dist import get_dist_info
from torch.utils.data import DataLoader, get_worker_info

from mmctx.errors import UserError, recognise

from .batches import NumberedBatch
from .randomness import derive_seed, seed_generators

# Packages whose errors are about the contents of a file.
DECODERS = ('cv2', 'PIL')
WORKER_DIED = re.compile(
    r'DataLoader worker \(pid(?:\(s\))? (?P<pids>[\d, ]+)\) '
    r'(?:is )?(?P<how>killed by signal: \w+|exited unexpectedly)'
)
# Slurm's preemption sends SIGTERM to workers too, which the training process needs until its
# iteration is over.
SECONDS_AFTER_SIGTERM = 60
PATHS = ('img_path', 'filename', 'video_path', 'frame_dir')


class SampleError(RuntimeError):
    """A bug made reading a sample fail; the message names the sample, the cause is chained."""


class UnreadableSample(UserError):
    """A sample's file is broken; only the process that reads it knows."""

    def __init__(self, message: str):
        super().__init__(message, one_rank=True)


def is_of_decoder(error: Exception) -> bool:
    """Whether an error is about the contents of a file that was decoded, or what became of them."""
    return type(error).__module__.partition('.')[0] in DECODERS


class BatchReader:
    """Reader of the samples of a numbered batch, each with its own random numbers.

    It replaces a data set's `__getitems__`, which PyTorch calls to read whole batches. The seed of
    a sample depends on the seed of the run, the number of its batch and its place among the samples
    of all processes, so it does not matter which process or worker reads it. Only the numbers that
    a data set draws on an accelerator depend on the process.

    Args:
        dataset (Dataset): Data set of the samples.
        seed (int): Seed of the run.
        num_workers (int): Number of workers of the data loader.
    """

    def __init__(self, dataset, seed: int, num_workers: int):
        self.dataset = dataset
        self.seed = seed
        self.rank, self.world_size = get_dist_info()
        # Process ID and current sample of each worker, in memory that outlives the worker.
        self.reading = torch.full((num_workers, 2), -1).share_memory_()
        self.worker = None

    def __call__(self, batch: NumberedBatch) -> list:
        if self.worker is None:
            # Accelerators are seeded once a batch only, as it takes longer than reading a small
            # image.
            seed_generators(derive_seed(self.seed, batch.number, self.rank))
        samples = [self._read(index, batch.number, i) for i, index in enumerate(batch.indices)]
        if self.worker is not None:
            self.reading[self.worker, 1] = -1
        return samples

    def _read(self, index, number, i):
        if self.worker is not None:
            self.reading[self.worker, 1] = index if isinstance(index, Integral) else -1
        place = i * self.world_size + self.rank
        seed_generators(derive_seed(self.seed, number, place), devices=False)
        try:
            return self.dataset[index]
        except Exception as error:
            refusal = recognise(error)
            if refusal is not None:
                raise UnreadableSample(str(refusal)) from error
            kind = UnreadableSample if is_of_decoder(error) else SampleError
            raise kind(
                f'{self.name(index)} cannot be read: {type(error).__name__}: {error}'
            ) from error

    def name(self, index) -> str:
        """Name of a sample for a message, with the path of its file if the data set knows it."""
        try:
            info = self.dataset.get_data_info(index)
            path = next((str(info[key]) for key in PATHS if info.get(key)), None)
        except Exception:
            # Not every data set has this method, and another error is being reported already.
            path = None
        return f'sample {index}' + (f' ({path})' if path else '')

    def describe_dead_workers(self, message: str) -> str | None:
        """Say which samples the workers that died were reading.

        Args:
            message (str): Message of the exception that PyTorch raised.

        Returns:
            str | None: One line; None if the message is not about a dead worker of this data
            loader.
        """
        died = WORKER_DIED.search(message)
        if died is None:
            return None
        pids = [int(pid) for pid in died['pids'].split(',')]
        samples = [index for pid, index in self.reading.tolist() if pid in pids]
        if not samples:
            return None
        names = [self.name(index) for index in samples if index >= 0]
        where = f'while reading {", ".join(names)}' if names else 'between two batches'
        return f'worker process {died["pids"]} of the data loader died ({died["how"]}) {where}'


def start_worker(worker_id: int, init=None) -> None:
    """Prepare a worker process, in that process; `init` is the loader's own `worker_init_fn`."""
    if init is not None:
        init(worker_id)
    reader = get_worker_info().dataset.__getitems__
    reader.worker = worker_id
    reader.reading[worker_id, 0] = os.getpid()
    if hasattr(signal, 'SIGUSR1'):  # not on Windows
        signal.signal(signal.SIGUSR1, signal.SIG_IGN)
        signal.signal(signal.SIGTERM, _end_later)


def _end_later(signum, frame):
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    signal.alarm(SECONDS_AFTER_SIGTERM)


def end_workers(loader: DataLoader | None) -> None:
    """End workers that persist, or that read for a loop which has ended, as Python waits for them.

    If the garbage collector did this, they would not learn that the loop has ended.

    Args:
        loader (DataLoader, optional): Data loader of the workers, which can be used again.
    """
    for name in ('_iterator', 'batches'):
        batches = getattr(loader, name, None)
        if batches is not None:
            setattr(loader, name, None)
            if loader.num_workers:
                batches._shutdown_workers()


class LazyDataLoader(DataLoader):
    """Data loader whose workers start when the first batch is requested.

    mmengine's iteration-based loop asks for an iterator before it knows where to resume.

    Attributes:
        batches (Iterator, optional): Batches that are being read, until all have been.
    """

    batches = None

    @property
    def batch_size(self):  # type: ignore[override]
        """Samples of a batch, which PyTorch forgets for batches that a sampler makes."""
        return getattr(self.batch_sampler, 'batch_size', None)

    def __iter__(self):
        self.batches = super().__iter__()
        yield from self.batches
        self.batches = None


def instrument(loader: DataLoader, seed: int) -> DataLoader:
    """Make a data loader with numbered batches read through `BatchReader`.

    Args:
        loader (DataLoader): Data loader of a map-style data set, changed in place.
        seed (int): Seed of the run.

    Returns:
        DataLoader: The same data loader.
    """
    reader = BatchReader(loader.dataset, seed, loader.num_workers)
    loader.dataset.__getitems__ = reader  # type: ignore[attr-defined]
    loader.worker_init_fn = partial(start_worker, init=loader.worker_init_fn)
    loader.__class__ = LazyDataLoader
    return loader


def image_paths(batch) -> list[str]:
    """Paths of a batch's images, of those samples that have one."""
    samples = batch.get('data_samples', ()) if isinstance(batch, dict) else ()
    paths = (getattr(sample, 'img_path', None) for sample in samples)
    return [str(path) for path in paths if path]
