"""Gradient of x, gathered from lists of the samples that read each pixel (`sample_lists`).

No gradient is added atomically. In half precision the sums are products of matrices, which read
each sample about twice; in full precision each pixel adds its samples up, which reads them four
times.
"""

import triton
import triton.language as tl

from .coordinates import SIZES, tile_channels
from .settings import precision

TF32 = tl.constexpr(precision(tf32=True))


@triton.jit
def list_bounds(starts, counts, pixel, below, valid, width):
    """Bounds of the lists that pixels read in their row, or in the row above (`below` is 1).

    The lists of the pixel to the left and of a pixel are adjacent. It is the right one of the
    samples from `begin` on, and the left one of those from `middle` to `end`. Returns whether there
    is such a row, then these bounds, 0 if there is none.
    """
    slot = pixel - below * width
    exists = valid & (slot >= 0)
    middle = tl.load(starts + slot, exists, 0)
    end = middle + tl.load(counts + slot, exists, 0)
    has_before = exists & (pixel % width > 0)
    begin = tl.where(has_before, tl.load(starts + slot - 1, has_before, 0), middle)
    return exists, begin, middle, end


@triton.jit(
    do_not_specialize=[*SIZES, 'pooled_image'], do_not_specialize_on_alignment=['of_pooled']
)
def gather_kernel(
    grad_x,  # [B, H·W, C]
    grad,  # [B, P, C] depthwise, [B, P, K, C] dense
    grad_sum,  # [B, P] dense, None depthwise
    kernels,  # [B or 1, K, C] or None
    sources,  # [B, K·P] int32, of `list_kernel` or `order_kernel`
    weights,  # [4, B, K·P], likewise
    starts,  # [B, H·W] int32
    counts,  # [B, H·W] int32
    of_pooled,  # [B, C] of any distance between images, gradient of x's mean, or None
    height, width, out_height, out_width, images, blocks, chunks, entries, pooled_image,
    CHANNELS: tl.constexpr, TAPS: tl.constexpr, WHOLE: tl.constexpr, OWN_KERNELS: tl.constexpr,
    FLOAT: tl.constexpr, SLOT: tl.constexpr, AT_ONCE: tl.constexpr, GROUPS: tl.constexpr,
    PIXELS: tl.constexpr, LANES: tl.constexpr,
):  # fmt: skip
    """A program owns a tile of x's pixels and a channel block, and sums over their samples."""
    program = tl.program_id(0)
    block = program % blocks
    tile = program // blocks % chunks
    image = (program // blocks // chunks).to(tl.int64)
    channel, exists = tile_channels(block, CHANNELS, GROUPS, LANES, WHOLE)
    pixel = tile * PIXELS + tl.arange(0, PIXELS)
    valid = pixel < height * width
    planes = images.to(tl.int64) * entries
    first_slot = image * height * width
    first_pixel = image * out_height * out_width
    if kernels is not None and OWN_KERNELS:
        kernels += image * TAPS * CHANNELS

    total = tl.zeros([PIXELS, GROUPS, LANES], FLOAT)
    if of_pooled is not None:
        share = tl.load(of_pooled + image * pooled_image + channel, exists, 0).to(FLOAT)
        total += share / (height * width)
    for below in tl.static_range(2):
        _, begin, middle, end = list_bounds(
            starts + first_slot, counts + first_slot, pixel, below, valid, width
        )
        for step in range(0, tl.max(end - begin, 0), AT_ONCE):
            for extra in tl.static_range(AT_ONCE):
                entry = begin + step + extra
                listed = entry < end
                at = image * entries + entry
                corner = 2 * below + (entry < middle).to(tl.int32)
                source = tl.load(sources + at, listed, 0)
                weight = tl.load(weights + at + corner * planes, listed, 0)
                listed = listed & (weight != 0)
                keep = exists & listed[:, None, None]
                out_pixel, tap = source // SLOT, source % SLOT
                if kernels is not None:
                    kernel_at = kernels + (tap * CHANNELS)[:, None, None] + channel
                    kernel = tl.load(kernel_at, keep, 0)
                if grad_sum is None:
                    grad_at = grad + ((first_pixel + out_pixel) * CHANNELS)[:, None, None] + channel
                    total += kernel * weight[:, None, None] * tl.load(grad_at, keep, 0)
                else:
                    row = (first_pixel + out_pixel) * TAPS + tap
                    by_sample = tl.load(grad + (row * CHANNELS)[:, None, None] + channel, keep, 0)
                    if kernels is not None:
                        by_shared = tl.load(grad_sum + first_pixel + out_pixel, listed, 0)
                        by_sample += by_shared[:, None, None] * kernel
                    total += weight[:, None, None] * by_sample
    to = grad_x + ((first_slot + pixel) * CHANNELS)[:, None, None] + channel
    tl.store(to, total.to(grad_x.dtype.element_ty), exists & valid[:, None, None])


@triton.jit
def half_weight(words, corner: tl.constexpr):
    """Weight of one corner, 0 to 3, from the words that `store_weights` stores."""
    return (words >> (16 * corner)).to(tl.uint16).to(tl.float16, bitcast=True)


@triton.jit
def as_operand(rows):
    """Rows of samples as a warp loads them, as the matrix that a product takes, [ENTRIES, 64·n].

    A warp loads rows [4, 8, ENTRIES / 4, n, 8]: 16 bytes in each lane, 8 lanes for a row, 4 rows at
    once; then other rows and other channels. In a product, each of these lanes multiplies pairs of
    neighbouring rows and one of 8 neighbouring channels. So with pairs of rows from one lane, and
    those 8 channels from 8 lanes, no number changes its lane, and none takes shared memory.
    """
    others: tl.constexpr = rows.shape[2]
    groups: tl.constexpr = rows.shape[3]
    rows = tl.reshape(rows, [4, 8, others // 2, 2, groups, 8])
    rows = tl.permute(rows, [2, 0, 3, 4, 5, 1])
    return tl.reshape(rows, [4 * others, 64 * groups])


@triton.jit(
    do_not_specialize=[*SIZES, 'pooled_image'], do_not_specialize_on_alignment=['of_pooled']
)
def gather_product_kernel(
    grad_x,  # [B, H·W, C]
    grad,  # [B, P, C] depthwise, [B, P, K, C] dense
    grad_sum,  # [B, P] float32 dense, None depthwise
    kernels,  # [B or 1, K, C] or None
    sources,  # [B, K·P] int32, of `list_kernel` or `order_kernel`
    weights,  # [B, K·P] int64, likewise
    starts,  # [B, H·W] int32
    counts,  # [B, H·W] int32
    of_pooled,  # [B, C] of any distance between images, gradient of x's mean, or None
    height, width, out_height, out_width, images, blocks, chunks, entries, pooled_image,
    CHANNELS: tl.constexpr, TAPS: tl.constexpr, WHOLE: tl.constexpr, OWN_KERNELS: tl.constexpr,
    INDEX: tl.constexpr, SLOT: tl.constexpr, ENTRIES: tl.constexpr, TAP_ROWS: tl.constexpr,
    PIXELS: tl.constexpr, LANES: tl.constexpr,
):  # fmt: skip
    """A warp owns neighbouring pixels of x and a channel block.

    The lists that the pixels read in one row are adjacent. It multiplies the gradients of the
    samples in them, [ENTRIES, LANES], by the matrix of their weights, [PIXELS, ENTRIES]. So one
    that is infinite makes all its pixels NaN, also those that it has no weight for.
    """
    program = tl.program_id(0)
    block = program % blocks
    tile = program // blocks % chunks
    image = (program // blocks // chunks).to(tl.int64)
    pixel = tile * PIXELS + tl.arange(0, PIXELS)
    valid = pixel < height * width
    first_slot = image * height * width
    first_pixel = image * out_height * out_width
    TYPE: tl.constexpr = grad.dtype.element_ty
    grad += first_pixel * CHANNELS * (1 if grad_sum is None else TAPS)
    sources += image * entries
    weights += image * entries
    if kernels is not None and OWN_KERNELS:
        kernels += image * TAPS * CHANNELS
    # The axes of `as_operand`, all of which the channels and the entries of a step share.
    eight = tl.arange(0, 8)
    channel = (
        block * LANES
        + tl.arange(0, LANES // 64)[None, None, None, :, None] * 64
        + eight[None, :, None, None, None] * 8
        + eight[None, None, None, None, :]
    )
    exists = channel < CHANNELS
    if WHOLE:
        exists = tl.full(channel.shape, True, tl.int1)
    other = tl.arange(0, ENTRIES // 4)[None, None, :, None, None]
    own = tl.arange(0, 4)[:, None, None, None, None] * 2 + other // 2 * 8 + other % 2

    total = tl.zeros([PIXELS, LANES], tl.float32)
    # Sums by tap of the gradients that all channels share, which Δw multiplies at the end: products
    # of single samples could be infinite in half precision.
    of_taps = tl.zeros([PIXELS, TAP_ROWS], tl.float32)
    for below in tl.static_range(2):
        has_lists, begin, middle, end = list_bounds(
            starts + first_slot, counts + first_slot, pixel, below, valid, width
        )
        last = tl.max(end)
        first = tl.min(tl.where(has_lists, begin, last))
        source = tl.load(sources + first + own, first + own < last, 0)
        for step in range(first, last, ENTRIES):
            # Of the next step already, as the addresses of all other loads depend on it.
            ahead = step + ENTRIES + own
            next_source = tl.load(sources + ahead, ahead < last, 0)
            row, tap = source // SLOT, source % SLOT
            if grad_sum is not None:
                row = row * TAPS + tap
            # Behind the lists these are rows of the first sample, whose weights are 0.
            rows = tl.load(grad + row.to(INDEX) * CHANNELS + channel, exists, 0)
            if grad_sum is None:
                rows *= tl.load(kernels + tap * CHANNELS + channel, exists, 0)

            entry = step + tl.arange(0, ENTRIES)
            listed = entry < last
            words = tl.load(weights + entry, listed, 0)
            column = entry[None, :]
            matrix = tl.where(column < middle[:, None], half_weight(words, 2 * below + 1)[None, :],
                              half_weight(words, 2 * below)[None, :])  # fmt: skip
            reads = (column >= begin[:, None]) & (column < end[:, None])
            matrix = tl.where(reads, matrix, 0)
            total = tl.dot(matrix.to(TYPE), as_operand(rows), total)
            if grad_sum is not None and kernels is not None:
                sample = tl.load(sources + entry, listed, 0)
                by_shared = tl.load(grad_sum + first_pixel + sample // SLOT)
                of_tap = (sample % SLOT)[:, None] == tl.arange(0, TAP_ROWS)[None, :]
                by_tap = tl.where(of_tap, by_shared[:, None], 0)
                of_taps = tl.dot(matrix.to(tl.float32), by_tap, of_taps, input_precision=TF32)
            source = next_source
    if grad_sum is not None and kernels is not None:
        tap = tl.arange(0, TAP_ROWS)[:, None, None, None, None]
        delta = tl.load(kernels + tap * CHANNELS + channel, (tap < TAPS) & exists, 0)
        delta = tl.reshape(tl.permute(delta, [0, 2, 3, 4, 1]), [TAP_ROWS, LANES])
        total = tl.dot(of_taps, delta.to(tl.float32), total, input_precision=TF32)
    # [PIXELS, 8, 1, n, 8], as `channel`
    total = tl.permute(tl.reshape(total, [PIXELS, 1, LANES // 64, 8, 8]), [0, 4, 1, 2, 3])
    if of_pooled is not None:
        share = tl.load(of_pooled + image * pooled_image + channel, exists, 0).to(tl.float32)
        total += share / (height * width)
    pixel = tile * PIXELS + tl.arange(0, PIXELS)[:, None, None, None, None]
    to = grad_x + (first_slot + pixel) * CHANNELS + channel
    tl.store(to, total.to(TYPE), exists & (pixel < height * width))
