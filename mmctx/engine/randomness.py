"""Random numbers that depend only on the seed and on the place in the run.

With them a run can be resumed as if it had not been interrupted: no generator's state has to be
saved, and neither the number of data-loading workers nor their prefetching changes a sample.
"""

import hashlib
import random
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch


def derive_seed(*numbers: int) -> int:
    """Derive a seed of 63 bits for a place in a run.

    Args:
        *numbers (int): Seed of the run, and numbers that identify the place.

    Returns:
        int: Seed, the same for the same numbers and unrelated for others.
    """
    digest = hashlib.blake2b(repr(numbers).encode(), digest_size=8).digest()
    return int.from_bytes(digest, 'little') >> 1


def seed_generators(seed: int, devices: bool = True) -> None:
    """Seed the global generators of Python, NumPy and PyTorch.

    Args:
        seed (int): Seed of 63 bits.
        devices (bool): Whether the generators of accelerators are seeded too, which a worker of a
            data loader does not need. Defaults to True.
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
