"""Mean of a map over its pixels, by one kernel.

PyTorch's own reduction gives a single image to few programs. Sizes: B images of P pixels and C
channels.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from .launching import Launch
from .settings import ENOUGH_PROGRAMS

# Bytes of neighbouring channels that a program reads of a pixel, a whole cache line or for few
# images a fourth of it; and values that it loads at a time.
LINE, PART, VALUES = 128, 32, 4096


@triton.jit(do_not_specialize=['pixels', 'blocks'])
def pixel_mean_kernel(
    out,  # [B, C]
    rows,  # [B, P, C]
    pixels, blocks,
    CHANNELS: tl.constexpr, PIXELS: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """A program owns a block of channels of an image."""
    image, block = (tl.program_id(0) // blocks).to(tl.int64), tl.program_id(0) % blocks
    channel = (block * BLOCK + tl.arange(0, BLOCK))[None, :]
    exists = channel < CHANNELS
    total = tl.zeros([PIXELS, BLOCK], tl.float32)
    # Unrolled, so that loads of several steps are under way at once.
    for start in tl.range(0, pixels, PIXELS, loop_unroll_factor=4):
        pixel = (start + tl.arange(0, PIXELS))[:, None]
        at = rows + (image * pixels + pixel) * CHANNELS + channel
        total += tl.load(at, (pixel < pixels) & exists, 0).to(tl.float32)
    mean = tl.sum(total, 0, keep_dims=True) / pixels
    tl.store(out + image * CHANNELS + channel, mean.to(out.dtype.element_ty), exists)


class PixelMean:
    """Mean over pixels of maps of one shape and type.

    Args:
        shape (tuple): Of the map, (B, C, height, width).
        dtype (torch.dtype): Type of the map.
        of (torch.dtype): Type of the mean.
    """

    def __init__(self, shape, dtype: torch.dtype, of: torch.dtype):
        batch, channels, height, width = shape
        self.shape, self.of = (batch, channels), of
        block = LINE // dtype.itemsize
        while (
            block > PART // dtype.itemsize
            and batch * triton.cdiv(channels, block) < ENOUGH_PROGRAMS
        ):
            block //= 2
        blocks = triton.cdiv(channels, block)
        values = dict(
            pixels=height * width, blocks=blocks, CHANNELS=channels, PIXELS=VALUES // block,
            BLOCK=block,
        )  # fmt: skip
        self.launch = Launch(pixel_mean_kernel, batch * blocks, values)

    def __call__(self, stream: int, x: Tensor) -> Tensor:
        """Mean of a map, (B, C), summed in float32.

        PyTorch computes it of a map that is not channels last in memory and 16-byte aligned.
        """
        if x.data_ptr() % 16 or not x.is_contiguous(memory_format=torch.channels_last):
            return x.mean((2, 3), dtype=torch.float32).to(self.of)
        out = x.new_empty(self.shape, dtype=self.of)
        self.launch(stream, out, x)
        return out
