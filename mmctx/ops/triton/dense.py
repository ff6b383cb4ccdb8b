"""Samples of the dense contextual convolution, arranged as columns for one matrix product.

Δw, which all output channels share, adds the same number to all of them at a pixel. More columns
hold its parts, two for each group of taps, which the product multiplies by ones.
"""

import triton
import triton.language as tl

from .coordinates import (
    SIZES,
    blend,
    load_corners,
    per_pixel,
    row_step,
    sum_channels,
    tile_channels,
)
from .prepare import load_samples


@triton.jit(do_not_specialize=SIZES)
def columns_kernel(
    columns,  # [B, P, K·C + ONES], P output pixels; the last are Δw · samples
    x,  # [B, H·W, C]
    kernels,  # [B, K, C], Δw, or None
    index,  # [B, K, P] int32, the first pixel that each sample reads
    weights,  # of its four corners, as `prepare_kernel` lays them out
    height, width, out_height, out_width, images, chunks, tap_groups, group_taps,
    CHANNELS: tl.constexpr, TAPS: tl.constexpr, WHOLE: tl.constexpr, WIDE: tl.constexpr,
    INDEX: tl.constexpr, FLOAT: tl.constexpr, BLEND: tl.constexpr, HALF: tl.constexpr,
    ONES: tl.constexpr, BLOCKS: tl.constexpr, GROUPS: tl.constexpr, PIXELS: tl.constexpr,
    LANES: tl.constexpr,
):  # fmt: skip
    """A program owns a pixel tile of an image, all its channels and a group of taps."""
    program = tl.program_id(0)
    tap_group = program % tap_groups
    tile = program // tap_groups % chunks
    image = (program // tap_groups // chunks).to(tl.int64)
    pixels = out_height * out_width
    planes = images.to(tl.int64) * TAPS * pixels
    lane = tl.arange(0, PIXELS)
    pixel = tile * PIXELS + lane
    valid = pixel < pixels
    x += image * height * width * CHANNELS
    down = row_step(height, width, CHANNELS, INDEX)
    beside: tl.constexpr = CHANNELS * WIDE
    columns += (image * pixels + pixel) * (TAPS * CHANNELS + ONES)

    total = tl.zeros([PIXELS, GROUPS, LANES], FLOAT)
    first_tap = tap_group * group_taps
    at = (image * TAPS + first_tap) * pixels + tile * PIXELS
    first, corners = load_samples(index + at, weights + at, lane, planes, HALF)
    for tap in range(first_tap, tl.minimum(first_tap + group_taps, TAPS)):
        # The next tap's samples are loaded while this tap waits for its corners.
        at += pixels
        next_first, next_corners = load_samples(index + at, weights + at, lane, planes, HALF)
        w00, w01, w10, w11 = corners
        for block in tl.static_range(BLOCKS):
            channel, exists = tile_channels(block, CHANNELS, GROUPS, LANES, WHOLE)
            x00, x01, x10, x11 = load_corners(x + channel, exists, first, down, beside, CHANNELS,
                                              INDEX)  # fmt: skip
            sample = blend(x00, x01, x10, x11, w00, w01, w10, w11, BLEND)
            to = columns[:, None, None] + tap * CHANNELS + channel
            tl.store(to, sample.to(columns.dtype.element_ty), exists & valid[:, None, None])
            if kernels is not None:
                kernel_at = kernels + (image * TAPS + tap) * CHANNELS + channel
                kernel = tl.load(kernel_at, exists, 0).to(FLOAT)
                total += sample.to(FLOAT) * kernel
        first, corners = next_first, next_corners
    if kernels is not None:
        # A sum and what its type cannot hold of it; zeros in the columns of groups without taps.
        one = tl.arange(0, ONES)[None, :]
        group = one // 2
        owned = (group == tap_group) | ((tap_group == 0) & (group >= tap_groups))
        shared = per_pixel(sum_channels(total))[:, None]
        rest = shared - shared.to(columns.dtype.element_ty).to(FLOAT)
        shared = tl.where(group == tap_group, tl.where(one % 2 == 0, shared, rest), 0)
        to = columns[:, None] + TAPS * CHANNELS + one
        tl.store(to, shared.to(columns.dtype.element_ty), valid[:, None] & owned)
