"""Types of PTX: what the bits of a register mean."""

import re

import numpy as np

UNSIGNED = {1: np.dtype('u1'), 2: np.dtype('u2'), 4: np.dtype('u4'), 8: np.dtype('u8')}
# By the letters of its name, the bits of a register.
REGISTERS = {'p': np.dtype(bool), 'rs': UNSIGNED[2], 'r': UNSIGNED[4], 'rd': UNSIGNED[8]}


def registers_of(name: str) -> np.dtype:
    """Type of a register's bits by its name, `%rd7`."""
    return REGISTERS[re.match(r'%([a-z]+)', name)[1]]


class Type:
    """How bits turn into the numbers that they stand for and back.

    Args:
        dtype (str): Numbers in NumPy.
        pair (bool): Whether a register holds two; numbers are [threads, 2] then. Defaults to False.
    """

    def __init__(self, dtype, pair=False):
        self.dtype, self.pair = np.dtype(dtype), pair
        self.raw = self.dtype
        if self.dtype != bool:
            self.raw = UNSIGNED[self.dtype.itemsize * (1 + pair)]

    def numbers(self, bits):
        """Numbers of an array of bits, of registers that may be wider."""
        bits = bits.astype(self.raw, copy=False)
        return bits.view(self.dtype).reshape(-1, 2) if self.pair else bits.view(self.dtype)

    def bits(self, numbers):
        """Bits of numbers."""
        numbers = np.asarray(numbers).astype(self.dtype, copy=False)
        return np.ascontiguousarray(numbers).view(self.raw).reshape(-1)


class Brain(Type):
    """bfloat16, which NumPy lacks; its numbers are of float32."""

    def __init__(self, pair=False):
        super().__init__('u2', pair)

    def numbers(self, bits):
        return (super().numbers(bits).astype('u4') << np.uint32(16)).view('f4')

    def bits(self, numbers):
        numbers = np.ascontiguousarray(numbers, 'f4')
        raw = numbers.view('u4')
        # To the nearest value, and in a tie to the even one.
        is_odd = (raw >> np.uint32(16)) & np.uint32(1)
        rounded = (raw + np.uint32(0x7FFF) + is_odd) >> np.uint32(16)
        return super().bits(np.where(np.isnan(numbers), 0x7FFF, rounded))


TYPES = {
    'pred': Type(bool),
    **{f'{letter}{8 * size}': Type(f'u{size}') for letter in 'bu' for size in (1, 2, 4, 8)},
    **{f's{8 * size}': Type(f'i{size}') for size in (1, 2, 4, 8)},
    **{f'f{8 * size}': Type(f'f{size}') for size in (2, 4, 8)},
    'bf16': Brain(),
    'f16x2': Type('f2', pair=True),
    'f32x2': Type('f4', pair=True),
    'bf16x2': Brain(pair=True),
}


def constant(text: str, type_: Type) -> np.ndarray:
    """Bits of a number as PTX writes it, [1]."""
    number = int(text[2:], 16) if text[:2] in ('0f', '0d') else int(text.rstrip('U'), 0)
    if type_.dtype == bool:
        return np.array([number != 0])
    size = type_.raw.itemsize
    return np.array([number % (1 << 8 * size)], UNSIGNED[8]).astype(type_.raw)
