"""Sampling positions of the taps: the Triton twin of `mmctx.ops.sampling`, for all kernels."""

import triton
import triton.language as tl

# Integers that change from image to image. Specialising on them (equal to 1, divisible by 16) would
# compile the kernels again and again on data whose images differ in size.
SIZES = [
    'height', 'width', 'out_height', 'out_width', 'stride_y', 'stride_x', 'padding_y', 'padding_x',
    'dilation_y', 'dilation_x', 'offset_image', 'offset_channel', 'offset_row', 'offset_column',
    'mask_image', 'mask_channel', 'mask_row', 'mask_column', 'channel_groups',
    'blocks', 'chunks', 'chunk_tiles', 'tap_groups', 'group_taps', 'sample_programs',
    'kernel_programs', 'images', 'entries',
]  # fmt: skip
# Tensors of the caller may start at any address; all others are allocated here, or checked.
CALLERS = ['offset', 'mask', 'weight', 'delta', 'dense', 'bias']


@triton.jit
def tile_channels(block, channels, GROUPS: tl.constexpr, LANES: tl.constexpr, WHOLE: tl.constexpr):
    """Channels of a block and whether they exist, each [1, GROUPS, LANES].

    The lanes of a group are adjacent in memory and read 16 bytes at a time. The groups are in the
    registers of one thread, which computes a position once for GROUPS vectors of channels. WHOLE
    means that every block is full, so that loads need no predicates.
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
    """Index of the first channel of pixels in a map of any strides.

    It is not a pointer, because the map may be None and the compiler does not accept functions that
    return None.
    """
    return (
        image * image_stride + row.to(tl.int64) * row_stride + column.to(tl.int64) * column_stride
    )


@triton.jit
def tap_position(row, column, valid, offset, offset_index, tap, offset_channel,
                 stride_y, stride_x, padding_y, padding_x, dilation_y, dilation_x,
                 KERNEL_WIDTH: tl.constexpr, FLOAT: tl.constexpr):  # fmt: skip
    """Position p + g(k) + Δp(k) of a tap at output pixels, y and x of the pixels' shape.

    `offset` is Δp or None, `offset_index` the index of each pixel's first channel in it.
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
    """Modulation of a tap at output pixels; 1 where `mask` is None, 0 where there is no pixel."""
    m = valid.to(FLOAT)
    if mask is not None:
        mask_at = mask + mask_index + tap * mask_channel.to(tl.int64)
        m = tl.load(mask_at, mask=valid, other=0).to(FLOAT)
        if LOGITS:
            m = tl.where(valid, 1 / (1 + tl.exp(-m)), 0)
    return m


@triton.jit
def axis_pair(position, size):
    """Two neighbouring pixels on an axis that a position blends.

    Returns the first of the two, which both exist unless the axis has one pixel; the weights of
    both, zero for a pixel that is outside the image in truth; and the distance from the pixel
    before the position to the first, which is not 0 at the border only.
    """
    # Positions below -2 and above size + 1 read nothing; larger floats do not fit an int. NaN is
    # kept, so that a network that diverges does not hide it.
    nan: tl.constexpr = tl.PropagateNan.ALL
    position = tl.minimum(tl.maximum(position, -2, nan), size + 1, nan)
    before = tl.floor(position).to(tl.int32)
    first = tl.minimum(tl.maximum(before, 0), tl.maximum(size - 2, 0))
    distance = position - first.to(position.dtype)
    first_weight = tl.maximum(1 - tl.abs(distance), 0, nan)
    second_weight = tl.maximum(1 - tl.abs(distance - 1), 0, nan)
    return first, first_weight, tl.where(size > 1, second_weight, 0), first - before


@triton.jit
def axis_slopes(shift, size, FLOAT: tl.constexpr):
    """Derivatives of the two weights of `axis_pair` by the position, from its last result.

    At integer positions, where the weights have a kink, they are the right-hand derivatives.
    """
    first = (shift == 1).to(FLOAT) - (shift == 0).to(FLOAT)
    second = (shift == 0).to(FLOAT) - (shift == -1).to(FLOAT)
    return first, tl.where(size > 1, second, 0)


@triton.jit
def row_step(height, width, channels, INDEX: tl.constexpr):
    """Number of elements from a pixel of a channels-last image to the one below."""
    return tl.where(height > 1, width, 0).to(INDEX) * channels


@triton.jit
def load_corners(x_at, exists, pixel, down, beside, channels, INDEX: tl.constexpr):
    """Load four pixels of a channels-last image, the first given by its index, in x's type.

    `x_at` points at the image's first pixel, [1, GROUPS, LANES]; `down` and `beside` are the
    numbers of elements to the pixel below and to the next, 0 on an axis of one pixel, where the
    weight of the second is zero. Each result is [PIXELS, GROUPS, LANES], zero in channels that do
    not exist.
    """
    at = x_at + (pixel.to(INDEX) * channels)[:, None, None]
    below = at + down
    return (
        tl.load(at, exists, 0),
        tl.load(at + beside, exists, 0),
        tl.load(below, exists, 0),
        tl.load(below + beside, exists, 0),
    )


@triton.jit
def blend(x00, x01, x10, x11, w00, w01, w10, w11, BLEND: tl.constexpr):
    """Bilinear sample of four corners by their weights, in the type BLEND.

    In float16 the compiler uses instructions that multiply and add two channels at once; bfloat16
    has too few bits for the weights. Later sums are in float32.
    """
    return (
        x00.to(BLEND) * w00.to(BLEND)[:, None, None]
        + x01.to(BLEND) * w01.to(BLEND)[:, None, None]
        + x10.to(BLEND) * w10.to(BLEND)[:, None, None]
        + x11.to(BLEND) * w11.to(BLEND)[:, None, None]
    )


@triton.jit
def sum_channels(values):
    """Sum of [PIXELS, GROUPS, LANES] over channels, [PIXELS, 1, 1], a thread's groups first."""
    return tl.sum(tl.sum(values, 1, keep_dims=True), 2, keep_dims=True)


@triton.jit
def per_pixel(values):
    """[PIXELS, 1, 1] as [PIXELS]."""
    return tl.reshape(values, [values.shape[0]])
