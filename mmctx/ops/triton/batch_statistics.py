"""Statistics of a batch norm in training, from those of tiles of its rows."""

import triton
import triton.language as tl
from torch import Tensor

from .launching import Launch, mark_as_changed

# Tiles that a program holds at once, and its channels, which it owns alone.
TILES, CHANNELS = 128, 16


@triton.jit
def update_running(running_mean, running_variance, batches, channel, exists, mean, variance,
                   MOMENTUM: tl.constexpr):  # fmt: skip
    """Move running statistics towards those of a batch, of which the variance is unbiased.

    The first program counts the batch.
    """
    first = tl.program_id(0) == 0
    counted = tl.load(batches, first, 0)
    old_mean = tl.load(running_mean + channel, exists, 0).to(tl.float32)
    old_variance = tl.load(running_variance + channel, exists, 0).to(tl.float32)
    # Several threads may have loaded what one of them stores in the same place.
    tl.debug_barrier()
    new_mean = old_mean + (mean - old_mean) * MOMENTUM
    new_variance = old_variance + (variance - old_variance) * MOMENTUM
    tl.store(running_mean + channel, new_mean.to(running_mean.dtype.element_ty), exists)
    tl.store(running_variance + channel, new_variance.to(running_variance.dtype.element_ty), exists)
    tl.store(batches, counted + 1, first)


@triton.jit
def load_part(parts, start, tiles, count, pixels, channel, exists, length, at,
              TILES: tl.constexpr, PIXELS: tl.constexpr):  # fmt: skip
    """Numbers of rows of some tiles, and their values `at` 0, the mean, or 1, squared deviations.

    Both are zero for tiles that do not exist.
    """
    tile = (start + tl.arange(0, TILES))[:, None]
    rows = tl.minimum(pixels - tile % tiles * PIXELS, PIXELS)
    rows = tl.where(tile < count, rows, 0).to(tl.float32)
    index = (tile.to(tl.int64) * 2 + at) * length + channel
    return rows, tl.load(parts + index, (tile < count) & exists, 0)


@triton.jit(
    do_not_specialize=['pixels', 'tiles', 'count', 'length'],
    do_not_specialize_on_alignment=['running_mean', 'running_variance', 'batches'],
)
def batch_statistics_kernel(
    statistics,  # [2, C], mean and biased variance
    running_mean,  # [C]
    running_variance,  # [C]
    batches,  # one int64, the number of batches so far
    parts,  # [count, 2, C], means and sums of squared deviations of the tiles
    pixels, tiles, count, length,
    MOMENTUM: tl.constexpr, PIXELS: tl.constexpr, TILES: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """A program owns some channels. An image of `pixels` rows has `tiles` tiles."""
    channel = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)[None, :]
    exists = channel < length
    all_rows = (count // tiles).to(tl.float32) * pixels
    total = tl.zeros([TILES, BLOCK], tl.float32)
    for start in range(0, count, TILES):
        rows, mean = load_part(parts, start, tiles, count, pixels, channel, exists, length, 0,
                               TILES, PIXELS)  # fmt: skip
        total += rows * mean
    average = tl.sum(total, 0, keep_dims=True) / all_rows
    total = tl.zeros([TILES, BLOCK], tl.float32)
    for start in range(0, count, TILES):
        rows, mean = load_part(parts, start, tiles, count, pixels, channel, exists, length, 0,
                               TILES, PIXELS)  # fmt: skip
        _, squares = load_part(parts, start, tiles, count, pixels, channel, exists, length, 1,
                               TILES, PIXELS)  # fmt: skip
        total += squares + rows * (mean - average) * (mean - average)
    squares = tl.sum(total, 0, keep_dims=True)
    tl.store(statistics + channel, average, exists)
    tl.store(statistics + length + channel, squares / all_rows, exists)
    update_running(running_mean, running_variance, batches, channel, exists, average,
                   squares / (all_rows - 1), MOMENTUM)  # fmt: skip


class BatchStatistics:
    """Launch of `batch_statistics_kernel`.

    Args:
        parts (tuple): Shape of the parts, (B, tiles, 2, C).
        pixels (int): Number of rows of an image.
        tile (int): Number of rows of a tile, but for the last of an image.
        momentum (float): Momentum of the running statistics.
    """

    def __init__(self, parts, pixels: int, tile: int, momentum: float):
        batch, tiles, _, channels = parts
        self.shape = 2, channels
        values = dict(
            pixels=pixels, tiles=tiles, count=batch * tiles, length=channels, MOMENTUM=momentum,
            PIXELS=tile, TILES=TILES, BLOCK=CHANNELS,
        )  # fmt: skip
        programs = triton.cdiv(channels, CHANNELS)
        self.launch = Launch(batch_statistics_kernel, programs, values)

    def __call__(self, stream: int, parts: Tensor, running: tuple) -> Tensor:
        """Mean and biased variance of all rows, (2, C), in float32.

        Args:
            stream (int): Raw stream.
            parts (Tensor): Mean and sum of squared deviations of each tile, (B, tiles, 2, C).
            running (tuple): Running mean, running variance and number of batches, all updated.
        """
        statistics = parts.new_empty(self.shape)
        self.launch(stream, statistics, *running, parts)
        mark_as_changed(running)
        return statistics
