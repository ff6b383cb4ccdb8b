"""Programs of a launch, all threads of which run in step."""

import numpy as np

from .memory import GlobalMemory, SharedMemory
from .reading import PTX
from .steps import RETURNED, step
from .types import REGISTERS, UNSIGNED

# Enough for NumPy to be busy with numbers, and few enough for them to stay in the cache.
THREADS = 8192


class Machine:
    """Some programs of a launch.

    Args:
        kernel (PTX): Kernel.
        memory (GlobalMemory): Memory of its tensors.
        parameters (list[ndarray]): Bits of its parameters, [1] each.
        programs (range): Numbers of the programs.
    """

    def __init__(self, kernel, memory, parameters, programs):
        self.kernel, self.parameters = kernel, parameters
        self.memory, self.shared = memory, SharedMemory(len(programs), kernel.shared)
        self.threads = len(programs) * kernel.threads
        thread = np.arange(self.threads, dtype='u4')
        self.program = thread // kernel.threads
        self.special = {
            '%tid.x': thread % kernel.threads,
            '%ctaid.x': self.program + np.uint32(programs.start),
        }
        self.registers = {}
        for kind, count in kernel.registers.items():
            unset = np.full(self.threads, -1).astype(REGISTERS[kind])
            self.registers |= {f'%{kind}{i}': unset for i in range(count)}
        # Which threads run the present block; None if all do.
        self.active = None

    def write(self, name, bits, threads):
        """Set a register of some threads (None: all)."""
        if name == '_':
            return
        before = self.registers[name]
        bits = bits.astype(before.dtype, copy=False)
        if threads is not None:
            bits = np.where(threads, bits, before)
        elif len(bits) < self.threads:
            bits = np.repeat(bits, self.threads)
        self.registers[name] = bits

    def shared_base(self, threads):
        """Where the shared memory of the programs of some threads begins (None: all threads)."""
        program = self.program if threads is None else self.program[threads]
        return program.astype('i8') * self.shared.step

    def run(self, blocks):
        """Run from the first block on until all threads have returned."""
        # The first block that any thread has come to is run by all that wait there, so that those
        # that took different branches meet again.
        block, waiting = 0, np.zeros(self.threads, np.int64)
        while block < RETURNED:
            taken, target = None, block + 1
            for run in blocks[block]:
                branch = run(self)
                if branch is not None:
                    taken, target = branch
            if self.active is None and (taken is None or taken.all()):
                block = target
                continue
            if self.active is None:
                waiting[:] = block
            after = target if taken is None else np.where(taken, target, block + 1)
            waiting = np.where(waiting == block, after, waiting)
            block = int(waiting.min())
            active = waiting == block
            self.active = None if active.all() else active


def run_programs(kernel: PTX, tensors, values, programs: int) -> None:
    """Run all programs of a launch.

    Args:
        kernel (PTX): Kernel.
        tensors (list[Tensor]): Tensors on the CPU that it may read and write.
        values (list[int]): Bits of its parameters, addresses among them.
        programs (int): Number of programs.
    """
    if kernel.steps is None:
        kernel.steps = [[step(i, kernel) for i in block] for block in kernel.blocks]
    memory = GlobalMemory(tensors)
    sizes = [size for _, size in kernel.parameters]
    parameters = [
        np.array([value % (1 << 8 * size)], 'u8').astype(UNSIGNED[size])
        for value, size in zip(values, sizes, strict=True)
    ]
    at_once = max(1, THREADS // kernel.threads)
    with np.errstate(all='ignore'):
        for first in range(0, programs, at_once):
            some = range(first, min(first + at_once, programs))
            Machine(kernel, memory, parameters, some).run(kernel.steps)
