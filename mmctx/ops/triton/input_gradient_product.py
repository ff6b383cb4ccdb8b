"""Gradient of x in half precision, by products of matrices.

They read each sample about twice, where the sums of `input_gradient` read it for each of its four
pixels.
"""

import triton
import triton.language as tl

from .coordinates import SIZES
from .prepare import half_weight
from .sample_lists import list_bounds
from .settings import precision

TF32 = tl.constexpr(precision(tf32=True))


@triton.jit
def round_to_tf32(values):
    """The nearest numbers that TF32 holds; products would cut float32 off towards zero."""
    bits = values.to(tl.int32, bitcast=True)
    rounded = ((bits + 0x1000) & -0x2000).to(tl.float32, bitcast=True)
    return tl.where(values == values, rounded, values)  # the bits of NaN may be the largest integer


@triton.jit
def power_for_kernels(kernels, channel, exists, CHANNELS: tl.constexpr, TAPS: tl.constexpr):
    """Power of 2 that brings each channel's largest kernel value to between ½ and 1.

    Products of kernels and gradients then stay in the range of float16 wherever gradients do. It is
    at most 2¹⁵, which float16 can hold, also where all values are 0.
    """
    largest = tl.zeros(channel.shape, tl.float32)
    own = tl.arange(0, 4)[:, None, None, None, None]
    for first in range(0, TAPS, 64):
        tap = first + own + tl.arange(0, 16)[None, None, :, None, None] * 4
        values = tl.load(kernels + tap * CHANNELS + channel, (tap < TAPS) & exists, 0)
        values = tl.abs(values.to(tl.float32))
        values = tl.max(tl.max(values, 2, keep_dims=True), 0, keep_dims=True)
        largest = tl.maximum(largest, values)
    # From its exponent, E: 2 to the power of -(E + 1).
    exponent = largest.to(tl.int32, bitcast=True) & 0x7F800000
    return tl.minimum((0x7E800000 - exponent).to(tl.float32, bitcast=True), 32768.0)


@triton.jit
def as_operand(rows):
    """Rows of samples as a warp loads them, as the matrix that a product takes, [ENTRIES, 64·n].

    A warp loads rows [4, 8, ENTRIES / 4, n, 8]: 16 bytes in each lane, 8 lanes for a row, 4 rows at
    once; then other rows and other channels. In a product, each of these lanes multiplies pairs of
    neighbouring rows and one of 8 neighbouring channels. So with pairs of rows from one lane, and
    those 8 channels from 8 lanes, no number changes its lane, and none takes shared memory, if C is
    a multiple of 8.
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
    height, width, out_height, out_width, blocks, chunks, entries, pooled_image,
    CHANNELS: tl.constexpr, TAPS: tl.constexpr, WHOLE: tl.constexpr, OWN_KERNELS: tl.constexpr,
    INDEX: tl.constexpr, SLOT: tl.constexpr, ENTRIES: tl.constexpr, TAP_ROWS: tl.constexpr,
    PIXELS: tl.constexpr, GROUPS: tl.constexpr, LANES: tl.constexpr,
):  # fmt: skip
    """A warp owns neighbouring pixels of x and a channel block.

    The lists that the pixels read in one row are adjacent. It multiplies the gradients of the
    samples in them, [ENTRIES, channels], by the matrix of their weights, [PIXELS, ENTRIES]. An
    infinite gradient makes NaN of all pixels of the warps that load it.

    Weights and products with kernels are rounded to the type of x, as the result is.
    """
    tl.static_assert(LANES == 64, 'a row of one group takes 8 lanes of 8 channels')
    program = tl.program_id(0)
    block = program % blocks
    tile = program // blocks % chunks
    image = (program // blocks // chunks).to(tl.int64)
    pixel = tile * PIXELS + tl.arange(0, PIXELS)
    valid = pixel < height * width
    first_slot = image * height * width
    first_pixel = image * out_height * out_width
    TYPE: tl.constexpr = grad.dtype.element_ty
    SCALED: tl.constexpr = grad_sum is None and TYPE.is_fp16()
    grad += first_pixel * CHANNELS * (1 if grad_sum is None else TAPS)
    sources += image * entries
    weights += image * entries
    if kernels is not None and OWN_KERNELS:
        kernels += image * TAPS * CHANNELS
    # On the axes of `as_operand`: channels, and entries of a step.
    eight = tl.arange(0, 8)
    channel = (
        block * GROUPS * LANES
        + tl.arange(0, GROUPS)[None, None, None, :, None] * LANES
        + eight[None, :, None, None, None] * 8
        + eight[None, None, None, None, :]
    )
    exists = channel < CHANNELS
    if WHOLE:
        exists = tl.full(channel.shape, True, tl.int1)
    other = tl.arange(0, ENTRIES // 4)[None, None, :, None, None]
    own = tl.arange(0, 4)[:, None, None, None, None] * 2 + other // 2 * 8 + other % 2
    if SCALED:
        power = power_for_kernels(kernels, channel, exists, CHANNELS, TAPS)

    total = tl.zeros([PIXELS, GROUPS * LANES], tl.float32)
    # Sums by tap of the gradients that all channels share, which Δw multiplies at the end: products
    # of single samples could be infinite in float16.
    of_taps = tl.zeros([PIXELS, TAP_ROWS], tl.float32)
    for below in tl.static_range(2):
        has_lists, begin, middle, end = list_bounds(
            starts + first_slot, counts + first_slot, pixel, below, valid, width
        )
        end_of_all = tl.max(end)
        first = tl.min(tl.where(has_lists, begin, end_of_all))
        # The last step repeats the last entry, to which no pixel gives a weight again.
        last = tl.maximum(end_of_all - 1, 0)
        source = tl.load(sources + tl.minimum(first + own, last))
        for step in range(first, end_of_all, ENTRIES):
            # Of the next step already, as the addresses of all other loads depend on it.
            next_source = tl.load(sources + tl.minimum(step + ENTRIES + own, last))
            row, tap = source // SLOT, source % SLOT
            if grad_sum is not None:
                row = row * TAPS + tap
            rows = tl.load(grad + row.to(INDEX) * CHANNELS + channel, exists, 0)
            if grad_sum is None:
                kernel = tl.load(kernels + tap * CHANNELS + channel, exists, 0)
                if SCALED:
                    kernel *= power.to(TYPE)
                rows *= kernel

            entry = step + tl.arange(0, ENTRIES)
            at = tl.minimum(entry, last)
            words = tl.load(weights + at)
            entry = entry[None, :]
            matrix = tl.where(entry < middle[:, None], half_weight(words, 2 * below + 1)[None, :],
                              half_weight(words, 2 * below)[None, :])  # fmt: skip
            reads = (entry >= begin[:, None]) & (entry < end[:, None])
            matrix = tl.where(reads, matrix, 0)
            total = tl.dot(matrix.to(TYPE), as_operand(rows), total)
            if grad_sum is not None and kernels is not None:
                sample = tl.load(sources + at)
                by_shared = round_to_tf32(tl.load(grad_sum + first_pixel + sample // SLOT))
                of_tap = (sample % SLOT)[:, None] == tl.arange(0, TAP_ROWS)[None, :]
                by_tap = tl.where(of_tap, by_shared[:, None], 0)
                # Whatever PyTorch's switch for TF32 says: it holds both matrices exactly.
                of_taps = tl.dot(matrix.to(tl.float32), by_tap, of_taps, input_precision=TF32)
            source = next_source
    if grad_sum is not None and kernels is not None:
        tap = tl.arange(0, TAP_ROWS)[:, None, None, None, None]
        delta = tl.load(kernels + tap * CHANNELS + channel, (tap < TAPS) & exists, 0)
        delta = tl.reshape(tl.permute(delta, [0, 2, 3, 4, 1]), [TAP_ROWS, GROUPS * LANES])
        of_taps = round_to_tf32(of_taps)
        total = tl.dot(of_taps, delta.to(tl.float32), total, input_precision=TF32)
    # [PIXELS, 8, 1, n, 8], as `channel`
    total = tl.permute(tl.reshape(total, [PIXELS, 1, GROUPS, 8, 8]), [0, 4, 1, 2, 3])
    if SCALED:
        total /= power
    if of_pooled is not None:
        share = tl.load(of_pooled + image * pooled_image + channel, exists, 0).to(tl.float32)
        total += share / (height * width)
    pixel = tile * PIXELS + tl.arange(0, PIXELS)[:, None, None, None, None]
    to = grad_x + (first_slot + pixel) * CHANNELS + channel
    tl.store(to, total.to(TYPE), exists & (pixel < height * width))
