"""Matrices that the threads of a warp hold together, and their products by tensor cores.

Figures of the PTX manual: "Matrix fragments for mma", "Register fragments and shared memory matrix
layouts" of wgmma. The 32 lanes of a warp are eight groups of four.
"""

import re

import numpy as np

from .arithmetic import to_tf32
from .reading import Unknown
from .types import TYPES

LANES = np.arange(32)
GROUP, IN_GROUP = LANES // 4, LANES % 4


def eight_by_eight(registers):
    """Matrices of 16-bit elements, two in each lane, from registers [warps, 32]."""
    out = np.empty((len(registers), 8, 8), 'u2')
    out[:, GROUP, 2 * IN_GROUP] = registers & np.uint32(0xFFFF)
    out[:, GROUP, 2 * IN_GROUP + 1] = registers >> np.uint32(16)
    return out


def from_eight_by_eight(matrices):
    """Registers [warps, 32] of matrices [warps, 8, 8] of 16-bit elements."""
    low = matrices[:, GROUP, 2 * IN_GROUP].astype('u4')
    return low | (matrices[:, GROUP, 2 * IN_GROUP + 1].astype('u4') << np.uint32(16))


def numbers(bits, kind):
    """Numbers of tensor cores, of 16 bits each or float32 of which they read 19 bits."""
    if kind == 'tf32':
        return to_tf32(bits, half=0).view('f4')
    return TYPES[kind].numbers(bits.reshape(-1)).reshape(bits.shape).astype('f4')


def quarters(registers, kind):
    """The parts of an operand in registers [warps, 32], each [warps, 8, 8 (tf32: 4)]."""
    if kind == 'tf32':
        return [numbers(np.ascontiguousarray(r), kind).reshape(-1, 8, 4) for r in registers]
    return [numbers(eight_by_eight(r), kind) for r in registers]


def rows_operand(registers, kind):
    """The first operand, [warps, 16, 16 (tf32: 8)], from four registers."""
    top_left, bottom_left, top_right, bottom_right = quarters(registers, kind)
    left = np.concatenate([top_left, bottom_left], 1)
    return np.concatenate([left, np.concatenate([top_right, bottom_right], 1)], 2)


def columns_operand(registers, kind):
    """The second operand transposed, [warps, 8, 16 (tf32: 8)], from two registers."""
    return np.concatenate(quarters(registers, kind), 2)


def accumulators(product, count):
    """Where lanes hold a product [warps, 16, columns], `count` registers of [warps, 32]."""
    return [
        product[:, GROUP + 8 * (i // 2 % 2), 8 * (i // 4) + 2 * IN_GROUP + i % 2]
        for i in range(count)
    ]


def multiply(rows, columns, totals):
    """rows · columnsᵀ + totals, as registers of float32."""
    product = rows.astype('f8') @ columns.astype('f8').swapaxes(1, 2)
    parts = accumulators(product, len(totals))
    return [(p + t.view('f4')).astype('f4').view('u4') for p, t in zip(parts, totals, strict=True)]


def described(descriptor, rows, depth, kind, is_transposed):
    """Addresses of an operand that wgmma reads from shared memory, [groups, rows, depth].

    Args:
        descriptor (ndarray): [groups], one for each four warps.
        rows (int): Length of the side that the product keeps.
        depth (int): Length of the side that it sums over.
        kind (str): Type of the elements.
        is_transposed (bool): Whether neighbours along the rows are neighbours in memory.
    """

    def bytes_from(bit):
        return ((descriptor >> np.uint64(bit)) & np.uint64(0x3FFF)).astype('i8')[:, None, None] * 16

    start, leading, stride = bytes_from(0), bytes_from(16), bytes_from(32)
    swizzle = int(descriptor[0] >> np.uint64(62))
    if swizzle == 0 or (descriptor >> np.uint64(49) & np.uint64(7)).any():
        raise Unknown('wgmma with a matrix that is not swizzled or does not start a pattern')
    item = 4 if kind == 'tf32' else 2
    width = {1: 128, 2: 64, 3: 32}[swizzle]  # bytes
    row, inner = np.arange(rows)[:, None], np.arange(depth)[None, :]
    if is_transposed:
        across = width // item
        at = row // across * leading + row % across * item
        at = at + inner // 8 * stride + inner % 8 * width
    else:
        at = row // 8 * stride + row % 8 * width + inner * item
    at = start + at
    return at ^ ((at >> 7 & width // 16 - 1) << 4)


def shape_of(name):
    """Sizes in a name such as m16n8k16."""
    return tuple(map(int, re.fullmatch(r'm(\d+)n(\d+)k(\d+)', name).groups()))
