"""Ordinary dense convolution of rows of channels, and its gradients.

It is one matrix product for each tap, in the rows' type with sums in float32. PyTorch would take
the gradients from cuDNN, which is made for channels that are multiples of 8; offsets have 18 or 27.
"""

import triton
import triton.language as tl

from .static_depthwise import inside_axis

SIZES = ['height', 'width', 'out_height', 'out_width', 'tiles', 'blocks']


@triton.jit
def axis_at(at, tap, size, STRIDE: tl.constexpr, PADDING: tl.constexpr, DILATION: tl.constexpr,
            TRANSPOSED: tl.constexpr):  # fmt: skip
    """Where a tap reads on an axis, and whether there is something.

    Transposed, `at` is where it reads, and the result is the place of the output.
    """
    if TRANSPOSED:
        distance = at + PADDING - tap * DILATION
        place = distance // STRIDE
        inside = (distance >= 0) & (distance % STRIDE == 0) & (place < size)
    else:
        place = at * STRIDE - PADDING + tap * DILATION
        inside = inside_axis(place, size)
    return place, inside


@triton.jit(do_not_specialize=SIZES, do_not_specialize_on_alignment=['bias'])
def static_dense_kernel(
    out,  # [B, P, N]
    rows,  # [B, H·W, C]
    taps,  # [K, C, N], of the type of the products
    bias,  # [N] or None
    height, width, out_height, out_width, tiles, blocks,
    CHANNELS: tl.constexpr, OUT_CHANNELS: tl.constexpr, KERNEL_HEIGHT: tl.constexpr,
    KERNEL_WIDTH: tl.constexpr, STRIDE_Y: tl.constexpr, STRIDE_X: tl.constexpr,
    PADDING_Y: tl.constexpr, PADDING_X: tl.constexpr, DILATION_Y: tl.constexpr,
    DILATION_X: tl.constexpr, TRANSPOSED: tl.constexpr, PRECISION: tl.constexpr,
    PIXELS: tl.constexpr, INNER: tl.constexpr, BLOCK: tl.constexpr, AHEAD: tl.constexpr,
):  # fmt: skip
    """A program owns a tile of an image's output pixels and a block of output channels.

    Transposed, it computes the gradient of the convolution's rows from that of its output.
    """
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
        y, in_y = axis_at(row, tap_y, height, STRIDE_Y, PADDING_Y, DILATION_Y, TRANSPOSED)
        for first_x in range(0, KERNEL_WIDTH, AHEAD):
            for start in tl.static_range(0, CHANNELS, INNER):
                # Loaded before the first product, which lets no load past.
                values = ()
                weights = ()
                for ahead in tl.static_range(AHEAD):
                    x, in_x = axis_at(column, first_x + ahead, width, STRIDE_X, PADDING_X,
                                      DILATION_X, TRANSPOSED)  # fmt: skip
                    inside = in_y & in_x & valid
                    row_channel, tap_channel = start + inner[None, :], start + inner[:, None]
                    value_at = rows + (y * width + x) * CHANNELS + row_channel
                    value = tl.load(value_at, inside & (row_channel < CHANNELS), 0)
                    tap = tap_y * KERNEL_WIDTH + first_x + ahead
                    weight_at = taps + (tap * CHANNELS + tap_channel) * OUT_CHANNELS + channel
                    weight = tl.load(weight_at, (tap_channel < CHANNELS) & exists, 0)
                    values = values + (value.to(weight.dtype),)
                    weights = weights + (weight,)
                for ahead in tl.static_range(AHEAD):
                    total = tl.dot(values[ahead], weights[ahead], total, input_precision=PRECISION)
    if bias is not None:
        total += tl.load(bias + channel, exists, 0).to(tl.float32)
    at = (image * pixels + pixel) * OUT_CHANNELS + channel
    tl.store(out + at, total.to(out.dtype.element_ty), valid & exists)


@triton.jit(do_not_specialize=[*SIZES, 'all_tiles', 'chunk_tiles'])
def static_dense_weight_kernel(
    sums,  # [chunks, N·K·C + N], by weight and, behind it, by bias
    grad,  # [B, P, N]
    rows,  # [B, H·W, C]
    height, width, out_height, out_width, tiles, all_tiles, chunk_tiles, blocks,
    CHANNELS: tl.constexpr, OUT_CHANNELS: tl.constexpr, KERNEL_HEIGHT: tl.constexpr,
    KERNEL_WIDTH: tl.constexpr, STRIDE_Y: tl.constexpr, STRIDE_X: tl.constexpr,
    PADDING_Y: tl.constexpr, PADDING_X: tl.constexpr, DILATION_Y: tl.constexpr,
    DILATION_X: tl.constexpr, PRECISION: tl.constexpr, PIXELS: tl.constexpr,
    BLOCK: tl.constexpr, OUT_BLOCK: tl.constexpr,
):  # fmt: skip
    """A program owns a tap, a block of both kinds of channels and a chunk of all images' tiles."""
    taps: tl.constexpr = KERNEL_HEIGHT * KERNEL_WIDTH
    out_blocks: tl.constexpr = (OUT_CHANNELS + OUT_BLOCK - 1) // OUT_BLOCK
    program = tl.program_id(0)
    tap = program % taps
    block = program // taps % blocks
    out_block = program // taps // blocks % out_blocks
    chunk = program // taps // blocks // out_blocks
    channel = (block * BLOCK + tl.arange(0, BLOCK))[None, :]
    out_channel = out_block * OUT_BLOCK + tl.arange(0, OUT_BLOCK)
    pixels = out_height * out_width
    total = tl.zeros([OUT_BLOCK, BLOCK], tl.float32)
    by_bias = tl.zeros([PIXELS, OUT_BLOCK], tl.float32)
    for place in range(chunk * chunk_tiles, tl.minimum((chunk + 1) * chunk_tiles, all_tiles)):
        image = (place // tiles).to(tl.int64)
        pixel = (place % tiles * PIXELS + tl.arange(0, PIXELS))[:, None]
        valid = pixel < pixels
        y, in_y = axis_at(pixel // out_width, tap // KERNEL_WIDTH, height, STRIDE_Y, PADDING_Y,
                          DILATION_Y, False)  # fmt: skip
        x, in_x = axis_at(pixel % out_width, tap % KERNEL_WIDTH, width, STRIDE_X, PADDING_X,
                          DILATION_X, False)  # fmt: skip
        at = (image * height * width + y * width + x) * CHANNELS + channel
        value = tl.load(rows + at, in_y & in_x & valid & (channel < CHANNELS), 0)
        grad_at = (image * pixels + pixel) * OUT_CHANNELS + out_channel[None, :]
        g = tl.load(grad + grad_at, valid & (out_channel < OUT_CHANNELS)[None, :], 0)
        by_bias += g.to(tl.float32)
        total = tl.dot(tl.trans(g.to(value.dtype)), value, total, input_precision=PRECISION)
    weights: tl.constexpr = OUT_CHANNELS * taps * CHANNELS
    sums += chunk.to(tl.int64) * (weights + OUT_CHANNELS)
    exists = (out_channel < OUT_CHANNELS)[:, None] & (channel < CHANNELS)
    tl.store(sums + (out_channel[:, None] * taps + tap) * CHANNELS + channel, total, exists)
    if tap == 0 and block == 0:
        to = sums + weights + out_channel
        tl.store(to, tl.sum(by_bias, 0), out_channel < OUT_CHANNELS)
