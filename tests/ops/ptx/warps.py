"""Instructions that the threads of a warp, or of four, carry out together."""

import numpy as np

from .accessing import Place
from .matrices import (
    LANES,
    columns_operand,
    described,
    eight_by_eight,
    from_eight_by_eight,
    multiply,
    numbers,
    rows_operand,
    shape_of,
)
from .operands import condition, reader, writer
from .reading import Unknown, listed
from .types import TYPES

BITS = TYPES['b32']


class PartOfAGroup(AssertionError):
    """Some threads do not come to where they are expected together."""


def groups_of(machine, allowed, size):
    """Which groups of threads are allowed, [groups], of whose threads all are or none."""
    if allowed is None:
        return np.ones(machine.threads // size, bool)
    allowed = allowed.reshape(-1, size)
    if (allowed.any(1) != allowed.all(1)).any():
        raise PartOfAGroup(f'not all of {size} threads')
    return allowed.all(1)


def grouped(values, which, size=32):
    """Values [threads] or [1] of the groups that are allowed, [groups, size]."""
    return np.broadcast_to(values, len(which) * size).reshape(-1, size)[which]


def scattered(values, which):
    """Values [groups, size] of the groups that are allowed in an array of all threads."""
    out = np.zeros((len(which), values.shape[1]), values.dtype)
    out[which] = values
    return out.reshape(-1)


def wait(instruction, kernel):
    """bar, for all threads of a program or of a warp."""
    size = {'warp': 32, 'sync': kernel.threads}[instruction.parts[1]]
    allowed = condition(instruction)

    def run(machine):
        groups_of(machine, allowed(machine), size)

    return run


def shuffle(instruction, kernel):
    """shfl: values of other lanes."""
    kind = instruction.parts[2]
    out, *operands = instruction.operands
    value, by, limits = (reader(operand, BITS) for operand in operands[:3])
    write, allowed = writer(instruction, out, BITS), condition(instruction)

    def run(machine):
        which = groups_of(machine, allowed(machine), 32)
        values = grouped(value(machine), which)
        distance = grouped(by(machine), which).astype('i8') & 31
        clamp, segment = (limits(machine)[0] >> np.uint32(bit) & np.uint32(31) for bit in (0, 8))
        lowest = LANES & segment
        last = lowest | (clamp & ~segment & 31)
        lane = {
            'bfly': LANES ^ distance,
            'up': LANES - distance,
            'down': LANES + distance,
            'idx': lowest | (distance & ~segment & 31),
        }[kind]
        # Lanes of another segment keep their own value; of `up`, the limit is the first lane.
        exists = lane >= last if kind == 'up' else lane <= last
        lane = np.where(exists, lane, LANES)
        write(machine, scattered(np.take_along_axis(values, lane, 1), which))

    return run


def reduce_warp(instruction, kernel):
    """redux: sum, smallest or largest of the integers of a warp."""
    function = {'add': np.add, 'min': np.minimum, 'max': np.maximum}[instruction.parts[2]]
    type_ = TYPES[instruction.parts[-1]]
    out, value, _ = instruction.operands
    get, write = reader(value, type_), writer(instruction, out, type_)
    allowed = condition(instruction)

    def run(machine):
        which = groups_of(machine, allowed(machine), 32)
        values = grouped(get(machine), which)
        result = function.reduce(values, 1, dtype=values.dtype, keepdims=True)
        write(machine, scattered(np.repeat(result, 32, 1), which))

    return run


class Rows:
    """Addresses of the rows of 8×8 matrices that a warp reads or writes together."""

    def __init__(self, instruction, operand, count):
        self.count, self.allowed = count, condition(instruction)
        self.place, self.flips = Place(operand, 'shared', 16), 'trans' in instruction.parts

    def find(self, machine):
        """Which warps are allowed, and addresses [warps, matrices, 8 rows, 8 elements]."""
        which = groups_of(machine, self.allowed(machine), 32)
        # The first eight lanes tell the rows of the first matrix, and so on.
        lanes = np.zeros((len(which), 32), bool)
        lanes[which, : 8 * self.count] = True
        at = self.place.addresses(machine, lanes.reshape(-1))
        return which, at.reshape(-1, self.count, 8, 1) + 2 * np.arange(8)

    def flipped(self, matrices):
        """Matrices with rows and columns changed, if they are."""
        return matrices.swapaxes(-1, -2) if self.flips else matrices


def load_matrix(instruction, kernel):
    """ldmatrix."""
    out, source = instruction.operands
    writes = [writer(instruction, register, BITS) for register in listed(out)]
    rows = Rows(instruction, source, len(writes))

    def run(machine):
        which, at = rows.find(machine)
        matrices = rows.flipped(machine.shared.load(at, 2, 1)[0])
        for i, write in enumerate(writes):
            write(machine, scattered(from_eight_by_eight(matrices[:, i]), which))

    return run


def store_matrix(instruction, kernel):
    """stmatrix."""
    target, source = instruction.operands
    read = [reader(register, BITS) for register in listed(source)]
    rows = Rows(instruction, target, len(read))

    def run(machine):
        which, at = rows.find(machine)
        matrices = [eight_by_eight(grouped(get(machine), which)) for get in read]
        machine.shared.store(at, 2, [rows.flipped(np.stack(matrices, 1))])

    return run


def multiply_by_warps(instruction, kernel):
    """mma of 16×8 totals."""
    kind = instruction.parts[-3]
    if shape_of(instruction.parts[3])[:2] != (16, 8) or instruction.parts[-1] != 'f32':
        raise Unknown(instruction)
    out, *operands = instruction.operands
    read = [[reader(register, BITS) for register in listed(operand)] for operand in operands]
    writes = [writer(instruction, register, BITS) for register in listed(out)]
    allowed = condition(instruction)

    def run(machine):
        which = groups_of(machine, allowed(machine), 32)
        a, b, totals = ([grouped(get(machine), which) for get in gets] for gets in read)
        results = multiply(rows_operand(a, kind), columns_operand(b, kind), totals)
        for write, result in zip(writes, results, strict=True):
            write(machine, scattered(result, which))

    return run


def multiply_by_groups(instruction, kernel):
    """wgmma.mma_async of 64 rows, 16 for each of four warps."""
    kind = instruction.parts[-1]
    _, columns, depth = shape_of(instruction.parts[4])
    out, a, b, adds, *signs_and_order = instruction.operands
    in_registers = a.startswith('{')
    if signs_and_order[:2] != ['1', '1'] or instruction.parts[-3] != 'f32':
        raise Unknown(instruction)
    order = [int(flag) for flag in signs_and_order[2:]] or [0, 0]
    registers = listed(out)
    totals_of = [reader(register, BITS) for register in registers]
    writes = [writer(instruction, register, BITS) for register in registers]
    rows_of = [reader(part, BITS if in_registers else TYPES['b64']) for part in listed(a)]
    columns_of, adds_of = reader(b, TYPES['b64']), reader(adds, TYPES['pred'])
    allowed = condition(instruction)

    def read_shared(machine, descriptor, which, rows, is_transposed):
        at = described(grouped(descriptor, which, 128)[:, 0], rows, depth, kind, is_transposed)
        item = 4 if kind == 'tf32' else 2
        machine.shared.check(at, item)
        first = np.flatnonzero(which)[:, None, None] * 128
        at = at + machine.shared_base(first)
        return numbers(machine.shared.load(at, item, 1)[0], kind)

    def run(machine):
        which = groups_of(machine, allowed(machine), 128)
        warps = np.repeat(which, 4)
        if in_registers:
            rows = rows_operand([grouped(get(machine), warps) for get in rows_of], kind)
        else:
            rows = read_shared(machine, rows_of[0](machine), which, 64, order[0])
            rows = rows.reshape(-1, 16, depth)
        others = read_shared(machine, columns_of(machine), which, columns, order[-1])
        keep = grouped(adds_of(machine), warps)
        totals = [np.where(keep, grouped(get(machine), warps), 0) for get in totals_of]
        results = multiply(rows, np.repeat(others, 4, 0), totals)
        for write, result in zip(writes, results, strict=True):
            write(machine, scattered(result, warps))

    return run
