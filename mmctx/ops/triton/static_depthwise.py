"""Ordinary depthwise convolution of rows of channels.

PyTorch's own returns half-precision results for half-precision maps, which is too coarse for
positions. A thread computes a run of neighbouring output columns, so it loads and converts a value
once for all taps of a row that read it.
"""

import triton
import triton.language as tl

SIZES = ['height', 'width', 'out_height', 'out_width', 'row_runs', 'tiles', 'blocks']


@triton.jit
def inside_axis(at, size):
    """Whether indices are on an axis, in one comparison, as negative ones are large if unsigned."""
    return at.to(tl.uint32, bitcast=True) < size.to(tl.uint32, bitcast=True)


@triton.jit
def tile_runs(tile, row_runs, height, RUNS: tl.constexpr, COLUMNS: tl.constexpr):
    """Row and first column of a tile's runs, and whether they exist, each [RUNS, 1]."""
    run = (tile * RUNS + tl.arange(0, RUNS))[:, None]
    return run // row_runs, run % row_runs * COLUMNS, run < row_runs * height


@triton.jit(do_not_specialize=SIZES, do_not_specialize_on_alignment=['bias'])
def static_depthwise_kernel(
    out,  # [B, H_out·W_out, C]
    rows,  # [B, H·W, C]
    taps,  # [K, C]
    bias,  # [C] or None
    height, width, out_height, out_width, row_runs, tiles, blocks,
    CHANNELS: tl.constexpr, KERNEL_HEIGHT: tl.constexpr, KERNEL_WIDTH: tl.constexpr,
    STRIDE_Y: tl.constexpr, STRIDE_X: tl.constexpr, PADDING_Y: tl.constexpr,
    PADDING_X: tl.constexpr, DILATION_Y: tl.constexpr, DILATION_X: tl.constexpr,
    FIRST: tl.constexpr, LAST: tl.constexpr, RUNS: tl.constexpr, COLUMNS: tl.constexpr,
    BLOCK: tl.constexpr,
):  # fmt: skip
    """A program owns a tile of an image's runs and a block of channels.

    FIRST and LAST are the first and last column that a run reads, relative to its first tap. With
    negative padding and dilation the kernel computes the gradient of the rows for stride 1.
    """
    program = tl.program_id(0)
    block = program % blocks
    tile = program // blocks % tiles
    image = (program // blocks // tiles).to(tl.int64)
    channel = (block * BLOCK + tl.arange(0, BLOCK))[None, :]
    exists = channel < CHANNELS
    row, column, valid = tile_runs(tile, row_runs, out_height, RUNS, COLUMNS)
    valid = valid & exists
    rows += image * height * width * CHANNELS
    first_y, first_x = row * STRIDE_Y - PADDING_Y, column * STRIDE_X - PADDING_X
    start = tl.zeros([RUNS, BLOCK], tl.float32)
    if bias is not None:
        start += tl.load(bias + channel, exists, 0).to(tl.float32)
    total = (start,) * COLUMNS
    for tap_y in range(KERNEL_HEIGHT):
        y = first_y + tap_y * DILATION_Y
        in_y = inside_axis(y, height) & valid
        at = rows + ((y * width + first_x) * CHANNELS + channel)
        weights = ()
        for tap_x in tl.static_range(KERNEL_WIDTH):
            tap = tap_y * KERNEL_WIDTH + tap_x
            weights = weights + (tl.load(taps + tap * CHANNELS + channel, exists, 0),)
        for x in tl.static_range(FIRST, LAST + 1):
            value = tl.load(at + x * CHANNELS, inside_axis(first_x + x, width) & in_y, 0)
            value = value.to(tl.float32)
            for j in tl.static_range(COLUMNS):
                for k in tl.static_range(KERNEL_WIDTH):
                    if j * STRIDE_X + k * DILATION_X == x:
                        total = total[:j] + (total[j] + value * weights[k],) + total[j + 1 :]
    at = out + (image * out_height * out_width + row * out_width + column) * CHANNELS + channel
    for j in tl.static_range(COLUMNS):
        tl.store(at + j * CHANNELS, total[j].to(out.dtype.element_ty),
                 valid & (column + j < out_width))  # fmt: skip


@triton.jit(do_not_specialize=[*SIZES, 'all_tiles', 'chunk_tiles'])
def static_depthwise_weight_kernel(
    sums,  # [chunks, C·K + C], by weight and, behind it, by bias
    grad,  # [B, H_out·W_out, C]
    rows,  # [B, H·W, C]
    height, width, out_height, out_width, row_runs, tiles, blocks, all_tiles, chunk_tiles,
    CHANNELS: tl.constexpr, KERNEL_HEIGHT: tl.constexpr, KERNEL_WIDTH: tl.constexpr,
    STRIDE_Y: tl.constexpr, STRIDE_X: tl.constexpr, PADDING_Y: tl.constexpr,
    PADDING_X: tl.constexpr, DILATION_Y: tl.constexpr, DILATION_X: tl.constexpr,
    FIRST: tl.constexpr, LAST: tl.constexpr, RUNS: tl.constexpr, COLUMNS: tl.constexpr,
    BLOCK: tl.constexpr,
):  # fmt: skip
    """A program owns a row of taps and a block of channels and walks tiles of all images' runs."""
    program = tl.program_id(0)
    block = program % blocks
    tap_y = program // blocks % KERNEL_HEIGHT
    chunk = program // blocks // KERNEL_HEIGHT
    channel = (block * BLOCK + tl.arange(0, BLOCK))[None, :]
    exists = channel < CHANNELS
    grad_bias = tl.zeros([RUNS, BLOCK], tl.float32)
    total = (grad_bias,) * KERNEL_WIDTH
    for item in range(chunk * chunk_tiles, tl.minimum((chunk + 1) * chunk_tiles, all_tiles)):
        image = (item // tiles).to(tl.int64)
        row, column, valid = tile_runs(item % tiles, row_runs, out_height, RUNS, COLUMNS)
        valid = valid & exists
        at = grad + image * out_height * out_width * CHANNELS
        at += (row * out_width + column) * CHANNELS + channel
        grads = ()
        for j in tl.static_range(COLUMNS):
            g = tl.load(at + j * CHANNELS, valid & (column + j < out_width), 0).to(tl.float32)
            grad_bias += g
            grads = grads + (g,)
        y = row * STRIDE_Y - PADDING_Y + tap_y * DILATION_Y
        first_x = column * STRIDE_X - PADDING_X
        in_y = inside_axis(y, height) & valid
        at = rows + image * height * width * CHANNELS
        at += (y * width + first_x) * CHANNELS + channel
        for x in tl.static_range(FIRST, LAST + 1):
            value = tl.load(at + x * CHANNELS, inside_axis(first_x + x, width) & in_y, 0)
            value = value.to(tl.float32)
            for j in tl.static_range(COLUMNS):
                for k in tl.static_range(KERNEL_WIDTH):
                    if j * STRIDE_X + k * DILATION_X == x:
                        total = total[:k] + (total[k] + value * grads[j],) + total[k + 1 :]
    taps: tl.constexpr = KERNEL_HEIGHT * KERNEL_WIDTH
    sums += chunk.to(tl.int64) * (taps + 1) * CHANNELS
    for tap_x in tl.static_range(KERNEL_WIDTH):
        value = tl.sum(total[tap_x], 0, keep_dims=True)
        tl.store(sums + channel * taps + tap_y * KERNEL_WIDTH + tap_x, value, exists)
    if tap_y == 0:
        to = sums + taps * CHANNELS + channel
        tl.store(to, tl.sum(grad_bias, 0, keep_dims=True), exists)
