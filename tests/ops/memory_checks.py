"""What a GPU punishes and Triton's interpreter does not: wrong addresses and missing order.

The interpreter runs the programs of a launch one after the other, each step in all its threads at
once, and reads any address. On a GPU programs run in any order, threads of a program are in step
only at barriers, and a stray address ends the process or spoils another tensor. Here each access is
held against the tensors of the launch, and against who accessed the element before.
"""

import numpy as np
import torch
from tensor_spans import TensorSpans

NOBODY, SEVERAL = 0, -1


class WrongAccess(AssertionError):
    """An access that is wrong on a GPU."""


class LaunchMemory:
    """The memory of one launch: which elements there are, and which programs accessed them.

    Args:
        tensors (list[Tensor]): Tensors whose addresses are passed to the kernel.
    """

    def __init__(self, tensors):
        self.spans = TensorSpans(tensors)
        cells = (self.spans.ends - self.spans.starts) // self.spans.items
        self.first = np.concatenate([[0], cells.cumsum()[:-1]]).astype(np.int64)
        size = int(cells.sum())
        # By element: the program that wrote it, read it, added to it, and after which barrier.
        self.writer, self.reader, self.adder = (np.zeros(size, np.int32) for _ in range(3))
        self.written, self.read, self.added = (np.zeros(size, np.int32) for _ in range(3))
        self.program = self.barrier = 0

    def start_program(self):
        """Attribute the accesses that follow to a new program."""
        self.program += 1
        self.barrier += 1

    def pass_barrier(self):
        """Let all threads of the program see what each has done."""
        self.barrier += 1

    def cells(self, addresses, mask):
        """Numbers of the elements that are accessed; raises if there is none at an address."""
        addresses, mask = np.broadcast_arrays(addresses, mask)
        at = addresses[mask.astype(bool)].astype(np.int64).reshape(-1)
        place, outside = self.spans.find(at)
        if outside.any():
            raise WrongAccess(f'{outside.sum()} of {at.size} addresses are in no tensor')
        return self.first[place] + (at - self.spans.starts[place]) // self.spans.items[place]

    def load(self, addresses, mask):
        """Check that nobody may be writing what is read."""
        cells = self.cells(addresses, mask)
        writer, adder = self.writer[cells], self.adder[cells]
        self.refuse('reads what another program writes', _others(writer, self.program))
        self.refuse('reads what another program adds to', _others(adder, self.program))
        unordered = self.unordered(writer, self.written[cells])
        unordered |= self.unordered(adder, self.added[cells])
        self.refuse('reads what another thread may have written since the last barrier', unordered)
        reader = self.reader[cells]
        alone = (reader == NOBODY) | (reader == self.program)
        self.reader[cells] = np.where(alone, self.program, SEVERAL)
        self.read[cells] = self.barrier

    def store(self, addresses, mask, values):
        """Check that nobody may be reading or writing what is written."""
        cells = self.cells(addresses, mask)
        unique, index = np.unique(cells, return_index=True)
        if len(unique) < len(cells):
            values = np.broadcast_arrays(values, mask)[0][mask.astype(bool)].reshape(-1)
            bits = values.view(f'u{values.itemsize}')
            # Threads that write the same value do no harm.
            differs = bits != bits[index][np.searchsorted(unique, cells)]
            self.refuse('writes different values to one element', differs)
        writer, adder, reader = self.writer[cells], self.adder[cells], self.reader[cells]
        self.refuse('writes what another program writes', _others(writer, self.program))
        self.refuse('writes what another program adds to', _others(adder, self.program))
        self.refuse('writes what another program reads', _others(reader, self.program))
        unordered = self.unordered(reader, self.read[cells])
        self.refuse('writes what another thread may read, with no barrier between', unordered)
        unordered = self.unordered(writer, self.written[cells])
        unordered |= self.unordered(adder, self.added[cells])
        self.refuse('writes twice what threads may write in any order', unordered)
        self.writer[cells], self.written[cells] = self.program, self.barrier

    def add(self, addresses, mask):
        """Check that nobody but other atomic operations may be accessing what is added to."""
        cells = self.cells(addresses, mask)
        writer, reader, adder = self.writer[cells], self.reader[cells], self.adder[cells]
        self.refuse('adds to what another program writes', _others(writer, self.program))
        self.refuse('adds to what another program reads', _others(reader, self.program))
        unordered = self.unordered(writer, self.written[cells])
        self.refuse('adds to what another thread may write, with no barrier between', unordered)
        self.adder[cells] = np.where(_others(adder, self.program), SEVERAL, self.program)
        self.added[cells] = self.barrier

    def unordered(self, programs, barriers):
        """Which accesses threads of this program have made since its last barrier."""
        return (programs == self.program) & (barriers == self.barrier)

    def refuse(self, what, where):
        """Raise if any access is wrong."""
        if where.any():
            raise WrongAccess(f'program {self.program - 1} {what}: {where.sum()} of {where.size}')


def _others(programs, program):
    return (programs != NOBODY) & (programs != program)


def check_memory(patch) -> None:
    """Check every access of the kernels that the interpreter runs.

    Args:
        patch (MonkeyPatch): Undoes it.
    """
    from triton.runtime import interpreter

    builder, executor = interpreter.InterpreterBuilder, interpreter.GridExecutor
    memories: list[LaunchMemory] = []
    run, locate = executor.__call__, builder.set_grid_idx
    load, store = builder.create_masked_load, builder.create_masked_store
    add, pass_barrier = builder.create_atomic_rmw, builder.create_barrier

    def checked_run(self, *args, **kwargs):
        tensors = [a for a in (*args, *kwargs.values()) if isinstance(a, torch.Tensor)]
        memories.append(LaunchMemory(tensors))
        try:
            return run(self, *args, **kwargs)
        except interpreter.InterpreterError as error:
            raise AssertionError(f'{self.fn.__name__}: {error}') from error
        finally:
            memories.pop()

    def checked_locate(self, *place):
        locate(self, *place)
        memories[-1].start_program()

    def checked_load(self, pointers, mask, other, *options):
        memories[-1].load(pointers.data, mask.data)
        if other is None:
            # What is not loaded is undefined on a GPU, and zero in the interpreter.
            type_ = pointers.get_element_ty()
            dtype = interpreter._get_np_dtype(type_)
            filler = np.full((*pointers.data.shape, dtype.itemsize), 255, np.uint8)
            other = interpreter.TensorHandle(filler.view(dtype)[..., 0], type_)
        return load(self, pointers, mask, other, *options)

    def checked_store(self, pointers, value, mask, *options):
        memories[-1].store(pointers.data, mask.data, value.data)
        return store(self, pointers, value, mask, *options)

    def checked_add(self, operation, pointers, value, mask, *options):
        memories[-1].add(pointers.data, mask.data)
        return add(self, operation, pointers, value, mask, *options)

    def checked_barrier(self):
        memories[-1].pass_barrier()
        return pass_barrier(self)

    patch.setattr(executor, '__call__', checked_run)
    for name, checked in (
        ('set_grid_idx', checked_locate),
        ('create_masked_load', checked_load),
        ('create_masked_store', checked_store),
        ('create_atomic_rmw', checked_add),
        ('create_barrier', checked_barrier),
    ):
        patch.setattr(builder, name, checked)
