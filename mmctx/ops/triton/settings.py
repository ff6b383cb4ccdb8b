"""Launch settings of the kernels, in one place.

Chosen without a GPU, from what ptxas reports at these tiles: loads of 16 bytes, no spills on sm_90
and at most 24 bytes of them on sm_80, and in half precision registers for 16 warps of all but the
matrix product on a multiprocessor. A benchmark may try others:
`with override(depthwise=Tile(...)): ...`.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass


@dataclass(frozen=True)
class Tile:
    """What a program handles at once: `pixels` × `groups` × `lanes` channels.

    A thread holds 16 bytes of neighbouring lanes and all groups, so that `groups` decides for how
    many channels it uses a position. `pixels` fill the other threads of the warps.

    Attributes:
        pixels, groups, lanes (int): Powers of two.
        warps (int): Of a program.
        registers (int, optional): Most for a thread; None leaves it to the compiler.
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


@dataclass(frozen=True)
class Square:
    """A product of `gather_kernel`: a square of `side`² pixels of x by `channels` channels."""

    channels: int
    side: int = 8
    warps: int = 4
    registers: int | None = None


# 64 channels are one line of 128 bytes of a half-precision pixel. The gradients hold more at once
# than the forward pass, hence their smaller tile.
HALF = {
    # 32 channels for a position: 446 instructions a tap where 2 groups of 32 lanes take 284 for 16.
    'depthwise': Tile(64, 4, 16, registers=128),
    'columns': Tile(32, 2, 32, registers=128),
    'sampling_gradient': Tile(32, 2, 32, registers=128),
    'scatter': Tile(32, 2, 32, registers=128),
}
FULL = {
    'depthwise': Tile(32, 2, 32),
    'columns': Tile(32, 2, 32, registers=128),
    'sampling_gradient': Tile(32, 2, 32, registers=168),
    'scatter': Tile(32, 2, 32),
}
# Enough programs for several on each multiprocessor, and for the last ones to even out.
PROGRAMS_PER_PROCESSOR = 16
# x's gradient is a matrix product up to as many pixels, atomic additions beyond. An estimate, not
# a measurement: at 28², 192 channels and a batch of 128 the product is about 0.6 TFLOP where the
# atomic additions move 15 GB.
GATHER_PIXELS = 1024
INPUT_GRADIENTS = ('gather', 'scatter')

_overrides: dict[str, Tile | Square | str] = {}


@contextmanager
def override(**settings: Tile | Square | str) -> Iterator[None]:
    """Use other settings inside: a `Tile` or `Square` by kernel; `input_gradient` by name."""
    before = dict(_overrides)
    _overrides.update(settings)
    try:
        yield
    finally:
        _overrides.clear()
        _overrides.update(before)


def tile_of(kernel: str, itemsize: int) -> Tile:
    """Tile of a kernel for x's bytes a value."""
    return _overrides.get(kernel) or (HALF if itemsize <= 2 else FULL)[kernel]


def square_of(channels: int, itemsize: int) -> Square:
    """Tile of `gather_kernel` for x's channels and bytes a value."""
    if itemsize > 2:
        # Wider ones spill where there is no wgmma.
        square = Square(32, warps=8)
    else:
        square = Square(128, warps=8) if channels % 128 == 0 else Square(64)
    return _overrides.get('gather') or square


def input_gradient_of(pixels: int, deterministic: bool) -> str:
    """How x's gradient is computed: `gather`, the same every time, or `scatter`."""
    if deterministic:
        return 'gather'
    return _overrides.get('input_gradient') or ('gather' if pixels <= GATHER_PIXELS else 'scatter')
