"""Forward pass of the depthwise contextual convolution."""

import triton
import triton.language as tl

from .coordinates import SIZES, blend, load_corners, row_step, tile_channels
from .prepare import load_samples


@triton.jit(do_not_specialize=SIZES, do_not_specialize_on_alignment=['bias'])
def depthwise_kernel(
    out,  # [B, P, C], P output pixels
    x,  # [B, H·W, C]
    kernels,  # [B or 1, K, C], w + Δw in x's type
    index,  # [B, K, P] int32, the first pixel that each sample reads
    weights,  # of its four corners, as `prepare_kernel` lays them out
    bias,  # [C] or None
    height, width, out_height, out_width, images, blocks, chunks, chunk_tiles,
    CHANNELS: tl.constexpr, TAPS: tl.constexpr, WHOLE: tl.constexpr, WIDE: tl.constexpr,
    OWN_KERNELS: tl.constexpr, INDEX: tl.constexpr, FLOAT: tl.constexpr, BLEND: tl.constexpr,
    HALF: tl.constexpr, GROUPS: tl.constexpr, PIXELS: tl.constexpr, LANES: tl.constexpr,
    UNROLL: tl.constexpr,
):  # fmt: skip
    """A program owns a channel block of an image and walks a chunk of its pixel tiles."""
    program = tl.program_id(0)
    chunk = program % chunks
    block = program // chunks % blocks
    image = (program // chunks // blocks).to(tl.int64)
    channel, exists = tile_channels(block, CHANNELS, GROUPS, LANES, WHOLE)
    pixels = out_height * out_width
    planes = images.to(tl.int64) * TAPS * pixels
    down = row_step(height, width, CHANNELS, INDEX)
    beside: tl.constexpr = CHANNELS * WIDE
    x_at = x + image * height * width * CHANNELS + channel
    if OWN_KERNELS:
        kernels += image * TAPS * CHANNELS
    out += image * pixels * CHANNELS

    for tile in range(chunk * chunk_tiles, tl.minimum((chunk + 1) * chunk_tiles,
                                                      tl.cdiv(pixels, PIXELS))):  # fmt: skip
        lane = tl.arange(0, PIXELS)
        pixel = tile * PIXELS + lane
        valid = pixel < pixels
        total = tl.zeros([PIXELS, GROUPS, LANES], FLOAT)
        if bias is not None:
            total += tl.load(bias + channel, exists).to(FLOAT)
        at = image * TAPS * pixels + tile * PIXELS
        first, corners = load_samples(index + at, weights + at, lane, planes, HALF)
        for tap in tl.range(0, TAPS, loop_unroll_factor=UNROLL):
            # The next tap's samples are loaded while this tap waits for its corners.
            at += pixels
            next_first, next_corners = load_samples(index + at, weights + at, lane, planes, HALF)
            x00, x01, x10, x11 = load_corners(x_at, exists, first, down, beside, CHANNELS, INDEX)
            w00, w01, w10, w11 = corners
            sample = blend(x00, x01, x10, x11, w00, w01, w10, w11, BLEND).to(FLOAT)
            total += sample * tl.load(kernels + tap * CHANNELS + channel, exists, 0).to(FLOAT)
            first, corners = next_first, next_corners
        to = out + (pixel.to(tl.int64) * CHANNELS)[:, None, None] + channel
        tl.store(to, total.to(out.dtype.element_ty), exists & valid[:, None, None])
