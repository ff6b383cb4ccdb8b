"""Where the taps read: the Triton twin of `mmctx.ops.sampling`, shared by every kernel."""

import triton
import triton.language as tl

# Integers that change from image to image. Specialising on them (equal to 1, divisible by 16) would
# compile the kernels again and again on data whose images differ in size. Nor may the alignment of
# offset and mask count: they are slices of one tensor, at a distance that follows the size.
SIZES = [
    'height', 'width', 'out_height', 'out_width', 'stride_y', 'stride_x', 'padding_y', 'padding_x',
    'dilation_y', 'dilation_x', 'offset_image', 'offset_channel', 'offset_row', 'offset_column',
    'mask_image', 'mask_channel', 'mask_row', 'mask_column', 'channel_groups',
    'blocks', 'chunks', 'chunk_tiles', 'tap_groups', 'group_taps', 'tiles_x', 'out_tiles',
    'out_tiles_x',
]  # fmt: skip
SLICES = ['offset', 'mask']


@triton.jit
def tile_channels(block, channels, GROUPS: tl.constexpr, LANES: tl.constexpr, WHOLE: tl.constexpr):
    """Channels of a block and whether they exist, each [1, GROUPS, LANES].

    The lanes of a group are neighbours in memory, read 16 bytes at a time. The groups lie in the
    registers of one thread: it computes a position once for GROUPS vectors of channels. WHOLE says
    that every block is full, which spares the loads their predicates.
    """
    group = tl.arange(0, GROUPS)[None, :, None]
    channel = (block * GROUPS + group) * LANES + tl.arange(0, LANES)[None, None, :]
    exists = channel < channels
    if WHOLE:
        exists = tl.full(channel.shape, True, tl.int1)
    return channel, exists


@triton.jit
def tile_pixels(tile, out_height, out_width, PIXELS: tl.constexpr):
    """Output pixels of a tile in row-major order: index, row, column and whether they exist."""
    pixel = tile * PIXELS + tl.arange(0, PIXELS)
    return pixel, pixel // out_width, pixel % out_width, pixel < out_height * out_width


@triton.jit
def map_index(image, row, column, image_stride, row_stride, column_stride):
    """Where a map of any strides holds the first channel of pixels, counted in its elements.

    An index and no pointer, as the map may be absent and the compiler takes no function that
    returns None.
    """
    return (
        image * image_stride + row.to(tl.int64) * row_stride + column.to(tl.int64) * column_stride
    )


@triton.jit
def tap_position(row, column, valid, offset, offset_index, tap, offset_channel,
                 stride_y, stride_x, padding_y, padding_x, dilation_y, dilation_x,
                 KERNEL_WIDTH: tl.constexpr, FLOAT: tl.constexpr):  # fmt: skip
    """Position p + g(k) + Δp(k) of a tap at output pixels, y and x of the pixels' shape.

    `offset` is Δp or None, `offset_index` where it holds each pixel's first channel.
    """
    y = (row * stride_y - padding_y + tap // KERNEL_WIDTH * dilation_y).to(FLOAT)
    x = (column * stride_x - padding_x + tap % KERNEL_WIDTH * dilation_x).to(FLOAT)
    if offset is not None:
        offset_at = offset + offset_index + 2 * tap * offset_channel.to(tl.int64)
        y += tl.load(offset_at, mask=valid, other=0).to(FLOAT)
        x += tl.load(offset_at + offset_channel, mask=valid, other=0).to(FLOAT)
    return y, x


@triton.jit
def tap_mask(valid, mask, mask_index, tap, mask_channel,
             LOGITS: tl.constexpr, FLOAT: tl.constexpr):  # fmt: skip
    """Modulation of a tap at output pixels; 1 where `mask` is None."""
    m = tl.full(valid.shape, 1, FLOAT)
    if mask is not None:
        mask_at = mask + mask_index + tap * mask_channel.to(tl.int64)
        m = tl.load(mask_at, mask=valid, other=0).to(FLOAT)
        if LOGITS:
            m = 1 / (1 + tl.exp(-m))
    return m


@triton.jit
def axis_corners(position, size):
    """The two pixels around a position on an axis, and of each: its index, weight and presence.

    Indices are always valid; weight and presence (1 or 0) are zero outside the image. The
    derivative of the weights by the position is (-presence, presence).
    """
    # All positions from -2 down and from size + 1 up are alike; floats beyond do not fit an int.
    # NaN stays, so that a network that diverges says so.
    nan: tl.constexpr = tl.PropagateNan.ALL
    position = tl.minimum(tl.maximum(position, -2, nan), size + 1, nan)
    low = tl.floor(position).to(tl.int32)
    part = position - low.to(position.dtype)
    low_is = (low >= 0) & (low < size)
    high_is = (low >= -1) & (low < size - 1)
    low_index = tl.minimum(tl.maximum(low, 0), size - 1)
    high_index = tl.minimum(tl.maximum(low + 1, 0), size - 1)
    low_weight = tl.where(low_is, 1 - part, 0)
    high_weight = tl.where(high_is, part, 0)
    return low_index, high_index, low_weight, high_weight, low_is, high_is


@triton.jit
def load_corners(x_at, exists, top, bottom, left, right, width, channels,
                 INDEX: tl.constexpr, FLOAT: tl.constexpr):  # fmt: skip
    """Four pixels of a channels-last image around each position, [PIXELS, GROUPS, LANES] each.

    `x_at` points at the image's first pixel, [1, GROUPS, LANES]. Channels that do not exist hold
    anything.
    """
    stride = channels.to(INDEX)
    x00 = tl.load(x_at + ((top * width + left) * stride)[:, None, None], exists)
    x01 = tl.load(x_at + ((top * width + right) * stride)[:, None, None], exists)
    x10 = tl.load(x_at + ((bottom * width + left) * stride)[:, None, None], exists)
    x11 = tl.load(x_at + ((bottom * width + right) * stride)[:, None, None], exists)
    return x00.to(FLOAT), x01.to(FLOAT), x10.to(FLOAT), x11.to(FLOAT)


@triton.jit
def blend(x00, x01, x10, x11, top_weight, bottom_weight, left_weight, right_weight):
    """Bilinear sample of four corners; the weights are of the pixels."""
    return (
        x00 * (top_weight * left_weight)[:, None, None]
        + x01 * (top_weight * right_weight)[:, None, None]
        + x10 * (bottom_weight * left_weight)[:, None, None]
        + x11 * (bottom_weight * right_weight)[:, None, None]
    )


@triton.jit
def sum_channels(values):
    """Sum of [PIXELS, GROUPS, LANES] over channels, [PIXELS, 1, 1]; a thread's own groups first."""
    return tl.sum(tl.sum(values, 1, keep_dims=True), 2, keep_dims=True)


@triton.jit
def per_pixel(values):
    """[PIXELS, 1, 1] as [PIXELS]."""
    return tl.reshape(values, [values.shape[0]])
