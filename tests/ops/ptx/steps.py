"""Instructions as functions that a machine calls."""

from .accessing import add_atomically, copy, load, store
from .computing import compare, compute, convert, move
from .operands import condition
from .reading import Unknown
from .warps import (
    load_matrix,
    multiply_by_groups,
    multiply_by_warps,
    reduce_warp,
    shuffle,
    store_matrix,
    wait,
)

# Block of threads that have returned.
RETURNED = 1 << 30
# What orders accesses that are done at once here.
IGNORED = {
    'fence', 'wgmma.fence', 'wgmma.commit_group', 'wgmma.wait_group', 'cp.async.commit_group',
    'cp.async.wait_group',
}  # fmt: skip


def step(instruction, kernel):
    """Function of a machine that does what an instruction says.

    It returns None, or for a branch the threads that take it (None for all) and the block.
    """
    parts = instruction.parts
    if any('.'.join(parts[:n]) in IGNORED for n in (1, 2, 3)):
        return lambda machine: None
    try:
        run = MAKERS.get(parts[0], compute)(instruction, kernel)
    except (LookupError, ValueError) as error:
        raise Unknown(f'{kernel.name}: {instruction}') from error

    def run_and_locate(machine):
        try:
            return run(machine)
        except Exception as error:
            error.args = (f'{kernel.name}: {instruction}: {error}',)
            raise

    return run_and_locate


def branch(instruction, kernel):
    """bra."""
    target, holds = kernel.labels[instruction.operands[0]], condition(instruction)
    if instruction.guard is None:
        return lambda machine: (None, target)
    return lambda machine: (holds(machine), target)


def leave(instruction, kernel):
    """ret."""
    if instruction.guard is not None:
        raise Unknown(instruction)
    return lambda machine: (None, RETURNED)


# All others are arithmetic.
MAKERS = {
    'atom': add_atomically,
    'bar': wait,
    'bra': branch,
    'cp': copy,
    'cvt': convert,
    'ld': load,
    'ldmatrix': load_matrix,
    'mma': multiply_by_warps,
    'mov': move,
    'redux': reduce_warp,
    'ret': leave,
    'setp': compare,
    'shfl': shuffle,
    'st': store,
    'stmatrix': store_matrix,
    'wgmma': multiply_by_groups,
}
