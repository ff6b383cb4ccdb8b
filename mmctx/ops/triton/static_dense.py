"""Ordinary dense convolution of rows of channels.

It is one matrix product for each tap, in the rows' type with sums in float32.
"""

import triton
import triton.language as tl

from .static_depthwise import inside_axis

SIZES = ['height', 'width', 'out_height', 'out_width', 'tiles', 'blocks']


@triton.jit(do_not_specialize=SIZES, do_not_specialize_on_alignment=['bias'])
def static_dense_kernel(
    out,  # [B, P, N]
    rows,  # [B, H·W, C]
    taps,  # [K, C, N], of the rows' type
    bias,  # [N] or None
    height, width, out_height, out_width, tiles, blocks,
    CHANNELS: tl.constexpr, OUT_CHANNELS: tl.constexpr, KERNEL_HEIGHT: tl.constexpr,
    KERNEL_WIDTH: tl.constexpr, STRIDE_Y: tl.constexpr, STRIDE_X: tl.constexpr,
    PADDING_Y: tl.constexpr, PADDING_X: tl.constexpr, DILATION_Y: tl.constexpr,
    DILATION_X: tl.constexpr, PRECISION: tl.constexpr, PIXELS: tl.constexpr,
    INNER: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """A program owns a tile of an image's output pixels and a block of output channels."""
    program = tl.program_id(0)
    block = program % blocks
    tile = program // blocks % tiles
    image = (program // blocks // tiles).to(tl.int64)
    channel = (block * BLOCK + tl.arange(0, BLOCK))[None, :]
    exists = channel < OUT_CHANNELS
    inner = tl.arange(0, INNER)
    pixels = out_height * out_width
    pixel = (tile * PIXELS + tl.arange(0, PIXELS))[:, None]
    row, column, valid = pixel // out_width, pixel % out_width, pixel < pixels
    rows += image * height * width * CHANNELS
    total = tl.zeros([PIXELS, BLOCK], tl.float32)
    for tap_y in range(KERNEL_HEIGHT):
        y = row * STRIDE_Y - PADDING_Y + tap_y * DILATION_Y
        in_y = inside_axis(y, height) & valid
        for tap_x in range(KERNEL_WIDTH):
            x = column * STRIDE_X - PADDING_X + tap_x * DILATION_X
            inside = inside_axis(x, width) & in_y
            at = (y * width + x) * CHANNELS
            tap = tap_y * KERNEL_WIDTH + tap_x
            for start in tl.static_range(0, CHANNELS, INNER):
                row_channel, tap_channel = start + inner[None, :], start + inner[:, None]
                value = tl.load(rows + at + row_channel, inside & (row_channel < CHANNELS), 0)
                weight = tl.load(taps + (tap * CHANNELS + tap_channel) * OUT_CHANNELS + channel,
                                 (tap_channel < CHANNELS) & exists, 0)  # fmt: skip
                total = tl.dot(value, weight, total, input_precision=PRECISION)
    if bias is not None:
        total += tl.load(bias + channel, exists, 0).to(tl.float32)
    at = (image * pixels + pixel) * OUT_CHANNELS + channel
    tl.store(out + at, total, valid & exists)
