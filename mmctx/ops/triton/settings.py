"""Launch settings of all kernels.

A benchmark can try others: `with override(depthwise=Tile(...)): ...`.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
import triton
import triton.language as tl


@dataclass(frozen=True)
class Tile:
    """Block of `pixels` × (`groups` × `lanes`) channels that a program handles at once.

    A thread holds 16 bytes of neighbouring lanes in all groups, so `groups` determines for how many
    channels it uses a position. The other threads of the warps hold other `pixels`.

    Attributes:
        pixels, groups, lanes (int): Sizes of the block, powers of two.
        warps (int): Number of warps of a program.
        registers (int, optional): Largest number of registers of a thread; None leaves it to the
            compiler.
    """

    pixels: int
    groups: int
    lanes: int
    warps: int = 4
    registers: int | None = None

    @property
    def channels(self) -> int:
        """Number of channels of a block."""
        return self.groups * self.lanes


# Each was chosen from 5 to 12 on an H200, in float16, over the shapes of ConvNeXt-T and ResNet50 at
# 224² and a batch of 128. They were chosen for earlier kernels, and are not the fastest at every
# shape. In half precision 64 channels fill a cache line of 128 bytes. No GPU has timed those of
# `gather_product`; its layout needs one warp and 64 lanes, and its registers are just enough that
# at most 16 bytes are spilled on sm_90.
HALF = {
    'depthwise': Tile(32, 1, 64, registers=64),
    'columns': Tile(32, 1, 64),
    'sampling_gradient': Tile(16, 2, 32, warps=2, registers=128),
    'gather': Tile(16, 1, 64),
    'gather_product': Tile(16, 1, 64, warps=1, registers=144),
}
# bfloat16 is blended in float32, which takes more registers.
BFLOAT16 = {'depthwise': Tile(32, 1, 64)}
# For channels that are a multiple of 128.
HALF_WIDE = {
    'sampling_gradient': Tile(8, 2, 64, warps=2, registers=128),
    'gather': Tile(4, 2, 64, warps=1),
    'gather_product': Tile(16, 2, 64, warps=1, registers=200),
}
FULL = {
    'depthwise': Tile(32, 1, 32),
    'columns': Tile(32, 1, 32),
    'sampling_gradient': Tile(16, 2, 32, warps=2),
    'gather': Tile(8, 1, 32, warps=1),
}
# Several programs run on each multiprocessor at once; more of them balance the load at the end.
PROGRAMS_PER_PROCESSOR = 16
# Number of programs that is enough for a large GPU, two on each of its multiprocessors.
ENOUGH_PROGRAMS = 264
# Sizes for the kernels that handle positions only, w + Δw, and the list of one pixel.
SAMPLE_PIXELS = 128
KERNEL_CHANNELS = 32
KERNEL_ROWS = 32
MATRIX_VALUES = 1024
# Columns for Δw beside those of the samples, two for each group of taps. They are as many as keep
# rows of halves at multiples of 32 bytes, in which memory is written.
ONES = 16
ORDERED_AT_ONCE = 64
# Values of a tensor that a program holds where it owns rows, 16 in each thread of 4 warps.
ROW_VALUES = 2048
# Steps of a loop whose loads are under way at once, where shared memory holds them.
STAGES = 3
# Number of entries of lists that are loaded together: in sums for each pixel, and in products.
GATHERED_AT_ONCE = 2
MULTIPLIED_AT_ONCE = 16
# Smallest number of rows and columns that `tl.dot` takes.
SMALLEST_SIDE = 16
# Number of problems whose launches are cached: images of many sizes, in about ten layers.
REMEMBERED = 4096


def row_tile(length: int) -> tuple[int, int]:
    """Length of a row, padded to a power of two, and number of rows that a program owns."""
    block = triton.next_power_of_2(length)
    return block, max(ROW_VALUES // block, 1)


def precision(tf32: bool) -> str:
    """Precision of `tl.dot` for float32, with TF32 or without.

    Without it, three products of TF32 are as precise as one of float32, but for numbers close to
    the largest and smallest. That one would take more registers than there are, and its lanes would
    read from one bank of shared memory.
    """
    if torch.version.hip is not None:
        return 'ieee'
    return 'tf32' if tf32 else 'tf32x3'


# Precision of products of vectors in float32, whatever PyTorch's switch for TF32 says.
PRECISE = tl.constexpr(precision(tf32=False))


def split_evenly(items: int, pieces: int) -> tuple[int, int]:
    """Number of pieces, at most as many as are asked for, and of items in each but the last."""
    size = triton.cdiv(items, min(pieces, items))
    return triton.cdiv(items, size), size


class Settings:
    """Tiles of the kernels; hashed by identity, so that launches are cached for each instance.

    Args:
        tiles (dict[str, Tile]): Tiles by kernel that replace the usual ones.
    """

    def __init__(self, tiles: dict[str, Tile]):
        self.tiles = tiles

    def tile(self, kernel: str, dtype: torch.dtype, channels: int) -> Tile:
        """Tile of a kernel for x's type and channels."""
        if dtype.itemsize > 2:
            usual = FULL[kernel]
        elif dtype == torch.bfloat16 and kernel in BFLOAT16:
            usual = BFLOAT16[kernel]
        elif channels % 128 == 0 and kernel in HALF_WIDE:
            usual = HALF_WIDE[kernel]
        else:
            usual = HALF[kernel]
        return self.tiles.get(kernel, usual)


_current = Settings({})


def current() -> Settings:
    """The settings in force."""
    return _current


@contextmanager
def override(**tiles: Tile) -> Iterator[None]:
    """Context in which other tiles, given by kernel, are used."""
    global _current
    before, _current = _current, Settings({**_current.tiles, **tiles})
    try:
        yield
    finally:
        _current = before
