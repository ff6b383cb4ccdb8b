"""Memory that a launch reads and writes, in which every address is checked."""

import ctypes

import numpy as np
from tensor_spans import TensorSpans

from .types import UNSIGNED


class WrongAddress(AssertionError):
    """An access at an address that is in no tensor, or not divisible by its size."""


class Memory:
    """Bytes as integers of each size.

    Args:
        bytes_ (ndarray): Memory, at an address that is divisible by 16.
        base (int): Address of its first byte. Defaults to 0.
    """

    def __init__(self, bytes_, base=0):
        self.base = base
        self.views = {
            size: bytes_[: len(bytes_) // size * size].view(UNSIGNED[size]) for size in UNSIGNED
        }

    def load(self, at, size, count):
        """`count` integers of `size` bytes from each address, a list of [accesses]."""
        first = (at - self.base) // size
        return [self.views[size][first + i] for i in range(count)]

    def store(self, at, size, values):
        """Write integers of `size` bytes at each address, a list of [accesses]."""
        first = (at - self.base) // size
        for i, value in enumerate(values):
            self.views[size][first + i] = value.astype(UNSIGNED[size])

    def add(self, at, values):
        """Add to the numbers at each address, one after the other; what was there before."""
        before = []
        numbers = self.views[4].view(values.dtype)
        for place, value in zip((at - self.base) // 4, values, strict=True):
            before.append(numbers[place])
            numbers[place] += value
        return np.array(before, values.dtype)


class GlobalMemory(Memory):
    """The memory of the tensors of a launch, in place.

    Args:
        tensors (list[Tensor]): Tensors on the CPU whose addresses are passed to the kernel.
    """

    def __init__(self, tensors):
        self.spans = TensorSpans(tensors)
        base = int(self.spans.starts.min(initial=2**62)) & ~15
        length = max(0, int(self.spans.ends.max(initial=0)) - base)
        # It spans what lies between the tensors, where nothing is read or written.
        between = (ctypes.c_uint8 * (-(-length // 16) * 16)).from_address(base)
        super().__init__(np.frombuffer(between, np.uint8), base)

    def check(self, at, size):
        """Raise unless all addresses are in a tensor and divisible by the size of the access."""
        _refuse(self.spans.find(at, size)[1], 'is in no tensor')
        _refuse(at % size != 0, f'is not divisible by {size}')


class SharedMemory(Memory):
    """Shared memory of some programs; its numbers are NaN before they are set.

    Args:
        programs (int): Number of programs.
        size (int): Bytes of a program.
    """

    def __init__(self, programs, size):
        self.size, self.step = size, (size // 1024 + 1) * 1024
        super().__init__(np.full(self.step * programs, 255, np.uint8))

    def check(self, at, size):
        """Raise unless all addresses of a program are in its memory and divisible by the size."""
        _refuse((at < 0) | (at + size > self.size), f'is not in {self.size} bytes of shared memory')
        _refuse(at % size != 0, f'is not divisible by {size}')


def _refuse(wrong, what):
    if wrong.any():
        raise WrongAddress(f'{what}: {wrong.sum()} of {wrong.size} addresses')
