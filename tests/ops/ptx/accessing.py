"""Instructions that load from memory and store to it."""

import re

import numpy as np

from .operands import condition, reader, writer
from .reading import Unknown, listed
from .types import TYPES


class Place:
    """Where an instruction reads or writes.

    Args:
        operand (str): Address in brackets, a register or `global_smem` and a number of bytes.
        space (str): `global` or `shared`.
        size (int): Bytes of the access of a thread, by which its address must be divisible.
    """

    def __init__(self, operand, space, size):
        if space not in ('global', 'shared'):
            raise ValueError(space)
        base, plus = re.fullmatch(r'\[\s*(%?\w+)\s*(?:\+\s*(-?\d+)\s*)?\]', operand).groups()
        self.space, self.size, self.plus = space, size, int(plus or 0)
        self.base = reader(base, TYPES['b64' if space == 'global' else 'b32'])

    def memory(self, machine):
        """Memory of the instruction."""
        return machine.memory if self.space == 'global' else machine.shared

    def addresses(self, machine, allowed, checked=True):
        """Addresses of the threads that are allowed (None: all), [accesses]."""
        at = np.broadcast_to(self.base(machine).astype('i8') + self.plus, machine.threads)
        at = at if allowed is None else at[allowed]
        if checked:
            self.memory(machine).check(at, self.size)
        if self.space == 'shared':
            at = at + machine.shared_base(allowed)
        return at


def only(values, allowed, threads):
    """Values [threads] or [1] of the threads that are allowed."""
    values = np.broadcast_to(values, threads)
    return values if allowed is None else values[allowed]


def spread(values, allowed, threads):
    """Values of the threads that are allowed in an array of all."""
    if allowed is None:
        return values
    out = np.zeros(threads, values.dtype)
    out[allowed] = values
    return out


def load(instruction, kernel):
    """ld of a parameter, or of one or more values from memory."""
    space, type_ = instruction.parts[1], TYPES[instruction.parts[-1]]
    out, source = instruction.operands
    if space == 'param':
        index = [name for name, _ in kernel.parameters].index(source.strip('[] '))
        write = writer(instruction, out, type_)
        return lambda machine: write(machine, type_.numbers(machine.parameters[index]))
    writes = [writer(instruction, register, type_) for register in listed(out)]
    size, allowed_of = type_.raw.itemsize, condition(instruction)
    place = Place(source, space, size * len(writes))

    def run(machine):
        allowed = allowed_of(machine)
        at = place.addresses(machine, allowed)
        values = place.memory(machine).load(at, size, len(writes))
        for write, value in zip(writes, values, strict=True):
            write(machine, type_.numbers(spread(value, allowed, machine.threads)))

    return run


def store(instruction, kernel):
    """st of one or more values."""
    type_ = TYPES[instruction.parts[-1]]
    target, source = instruction.operands
    read = [reader(register, type_) for register in listed(source)]
    size, allowed_of = type_.raw.itemsize, condition(instruction)
    place = Place(target, instruction.parts[1], size * len(read))

    def run(machine):
        allowed = allowed_of(machine)
        at = place.addresses(machine, allowed)
        values = [only(get(machine), allowed, machine.threads) for get in read]
        place.memory(machine).store(at, size, values)

    return run


def copy(instruction, kernel):
    """cp.async from global to shared memory; bytes that are not to be read become zero."""
    target, source, size, *read = instruction.operands
    size, allowed_of = int(size, 0), condition(instruction)
    to, from_ = Place(target, 'shared', size), Place(source, 'global', size)
    wanted_of = reader(read[0] if read else str(size), TYPES['u32'])

    def run(machine):
        allowed = allowed_of(machine)
        wanted = only(wanted_of(machine), allowed, machine.threads)
        if not np.isin(wanted, (0, size)).all():
            raise Unknown('cp.async of a part')
        at = from_.addresses(machine, allowed, checked=False)
        machine.memory.check(at[wanted > 0], size)
        words = np.zeros((size // 4, len(at)), 'u4')
        words[:, wanted > 0] = machine.memory.load(at[wanted > 0], 4, size // 4)
        machine.shared.store(to.addresses(machine, allowed), 4, words)

    return run


def add_atomically(instruction, kernel):
    """atom.add."""
    out, target, value = instruction.operands
    type_ = TYPES[instruction.parts[-1]]
    if instruction.parts[-2] != 'add' or type_.dtype.itemsize != 4:
        raise ValueError(instruction)
    place, get = Place(target, instruction.parts[1], 4), reader(value, type_)
    write, allowed_of = writer(instruction, out, type_), condition(instruction)

    def run(machine):
        allowed = allowed_of(machine)
        at = place.addresses(machine, allowed)
        before = place.memory(machine).add(at, only(get(machine), allowed, machine.threads))
        write(machine, spread(before, allowed, machine.threads))

    return run
