"""Instructions that compute registers from registers."""

import re

import numpy as np

from .arithmetic import COMPARISONS, FUNCTIONS, ROUND, flush, to_tf32, wide
from .operands import reader, writer
from .reading import listed
from .types import TYPES, Type

SHIFTS = 'shl', 'shr'


def compute(instruction, kernel):
    """Arithmetic."""
    parts, (out, *operands) = instruction.parts, instruction.operands
    # The rounding is the only one that is known, to the nearest.
    name = '.'.join(p for p in parts[:-1] if p not in ('rn', 'approx', 'ftz'))
    function, type_ = FUNCTIONS[name], TYPES[parts[-1]]
    types, out_type = [type_] * len(operands), type_
    if parts[0] in SHIFTS:
        types[1] = TYPES['u32']
    elif parts[0] == 'selp':
        types[2] = TYPES['pred']
    elif parts[0] == 'bfe':
        types[1:] = [TYPES['u32']] * 2
        if type_.dtype.itemsize != 4:
            raise ValueError(type_)
    elif 'wide' in parts:
        out_type = Type(wide(np.zeros(1, type_.dtype)).dtype)
        types[2:] = [out_type] * len(types[2:])
    read = [reader(operand, of) for operand, of in zip(operands, types, strict=True)]
    write, flushes = writer(instruction, out, out_type), 'ftz' in parts

    def run(machine):
        numbers = [get(machine) for get in read]
        if flushes:
            numbers = [flush(of_operand) for of_operand in numbers]
        result = function(*numbers)
        write(machine, flush(result) if flushes else result)

    return run


def compare(instruction, kernel):
    """setp."""
    type_ = TYPES[instruction.parts[-1]]
    function = COMPARISONS[instruction.parts[1]]
    out, *operands = instruction.operands
    a, b = (reader(operand, type_) for operand in operands)
    write = writer(instruction, out, TYPES['pred'])
    return lambda machine: write(machine, function(a(machine), b(machine)))


def move(instruction, kernel):
    """mov, which also joins registers to a wider one and takes them apart."""
    out, source = instruction.operands
    # Bits are moved, whatever they mean.
    whole = TYPES[re.sub(r'^[a-z](?=\d)', 'b', instruction.parts[-1])]
    if source.startswith('{'):
        pieces = listed(source)
        part = TYPES[f'b{8 * whole.raw.itemsize // len(pieces)}']
        read = [reader(piece, part) for piece in pieces]
        write = writer(instruction, out, whole)

        def join(machine):
            values = np.broadcast_arrays(*[get(machine) for get in read])
            write(machine, np.stack(values, -1).view(whole.raw).reshape(-1))

        return join
    get = reader(source, whole)
    if not out.startswith('{'):
        write = writer(instruction, out, whole)
        return lambda machine: write(machine, get(machine))
    pieces = listed(out)
    part = TYPES[f'b{8 * whole.raw.itemsize // len(pieces)}']
    writes = [writer(instruction, piece, part) for piece in pieces]

    def take_apart(machine):
        values = get(machine).view(part.raw).reshape(-1, len(pieces))
        for write, value in zip(writes, values.T, strict=True):
            write(machine, value)

    return take_apart


def convert(instruction, kernel):
    """cvt."""
    _, *how, to, from_ = instruction.parts
    out, *operands = instruction.operands
    if unknown := {*how} - {'rn', 'rna', 'ftz', *ROUND}:
        raise ValueError(unknown)
    if to == 'tf32':
        get, write = reader(operands[0], TYPES['b32']), writer(instruction, out, TYPES['b32'])
        return lambda machine: write(machine, to_tf32(get(machine)))
    read = [reader(operand, TYPES[from_]) for operand in reversed(operands)]
    write, result = writer(instruction, out, TYPES[to]), TYPES[to].dtype
    rounding = next((ROUND[part] for part in how if part in ROUND), None)
    flushes = 'ftz' in how

    def run(machine):
        numbers = read[0](machine)
        if len(read) > 1:  # the first operand becomes the upper half
            numbers = np.stack(np.broadcast_arrays(numbers, read[1](machine)), -1)
        if flushes:
            numbers = flush(numbers)
        if rounding is not None:
            numbers = rounding(numbers)
            if result.kind in 'iu':
                limits = np.iinfo(result)
                numbers = np.clip(np.nan_to_num(numbers.astype('f8')), limits.min, limits.max)
        write(machine, numbers)

    return run
