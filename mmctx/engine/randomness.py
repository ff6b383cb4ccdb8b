"""Random numbers that depend on where a run stands, not on how it came there.

With them a run that was interrupted can be resumed as if it had not been: no generator's state has
to be saved, and neither the number of data-loading workers nor their prefetching changes a sample.
"""

import hashlib
import random
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch


def derive_seed(*numbers: int) -> int:
    """A seed of 63 bits for a place in a run.

    Args:
        *numbers (int): The run's seed, and what tells the place from all others.

    Returns:
        int: The same for the same numbers, otherwise unrelated.
    """
    digest = hashlib.blake2b(repr(numbers).encode(), digest_size=8).digest()
    return int.from_bytes(digest, 'little') >> 1


def seed_generators(seed: int, devices: bool = True) -> None:
    """Seed the global generators of Python, NumPy and PyTorch.

    Args:
        seed (int): Seed of 63 bits.
        devices (bool): Whether the generators of accelerators are seeded too, for which a worker
            of a data loader has no use. Defaults to True.
    """
    random.seed(seed)
    np.random.seed(seed % 2**32)  # noqa: NPY002 - transforms draw from it
    (torch.manual_seed if devices else torch.default_generator.manual_seed)(seed)


@contextmanager
def randomness_kept() -> Iterator[None]:
    """Leave the global generators as they were, whatever is drawn within."""
    python, numpy = random.getstate(), np.random.get_state()  # noqa: NPY002
    devices = range(torch.cuda.device_count()) if torch.cuda.is_initialized() else []
    with torch.random.fork_rng(devices=devices):
        yield
    random.setstate(python)
    np.random.set_state(numpy)  # noqa: NPY002
