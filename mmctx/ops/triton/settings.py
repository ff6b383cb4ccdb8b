"""Launch settings of the kernels, in one place.

A benchmark may try others: `with override(depthwise=Tile(...)): ...`.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class Tile:
    """What a program handles at once: `pixels` × `groups` × `lanes` channels.

    A thread holds 16 bytes of neighbouring lanes and all groups, so that `groups` decides for how
    many channels it uses a position. `pixels` fill the other threads of the warps.

    Attributes:
        pixels, groups, lanes (int): Powers of two.
        warps (int): Warps of a program.
        registers (int, optional): Most registers for a thread; None leaves it to the compiler.
    """

    pixels: int
    groups: int
    lanes: int
    warps: int = 4
    registers: int | None = None

    @property
    def channels(self) -> int:
        """Channels of a block."""
        return self.groups * self.lanes


# Each the best of some dozen on an H200, in float16 and at the shapes of ConvNeXt-T and ResNet50 at
# 224² and a batch of 128. 64 channels are one line of 128 bytes of a half-precision pixel.
HALF = {
    'depthwise': Tile(32, 1, 64, registers=64),
    'columns': Tile(32, 1, 64),
    'sampling_gradient': Tile(16, 2, 32, warps=2, registers=128),
    'gather': Tile(16, 1, 64),
}
# Blended in float32, which takes more registers.
BFLOAT16 = {'depthwise': Tile(32, 1, 64)}
# Where channels are a multiple of 128.
HALF_WIDE = {
    'sampling_gradient': Tile(8, 2, 64, warps=2, registers=128),
    'gather': Tile(4, 2, 64, warps=1),
}
FULL = {
    'depthwise': Tile(32, 1, 32),
    'columns': Tile(32, 1, 32),
    'sampling_gradient': Tile(16, 2, 32, warps=2),
    'gather': Tile(8, 1, 32, warps=1),
}
# Enough programs for several on each multiprocessor, and for the last ones to even out.
PROGRAMS_PER_PROCESSOR = 16
# Of the kernels that work on positions alone, on w + Δw, and on one pixel's list.
SAMPLE_PIXELS = 128
KERNEL_CHANNELS = 32
KERNEL_ROWS = 32
ORDERED_AT_ONCE = 64
# Entries of a list whose loads are under way together.
GATHERED_AT_ONCE = 2
# Problems whose launches are kept: images of many sizes, in some ten layers.
REMEMBERED = 4096


class Settings:
    """Tiles of the kernels; hashed by identity, so that launches are remembered for each.

    Args:
        tiles (dict[str, Tile]): Tiles by kernel, in the place of the usual ones.
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
    """Use other tiles inside, named by kernel."""
    global _current
    before, _current = _current, Settings({**_current.tiles, **tiles})
    try:
        yield
    finally:
        _current = before
