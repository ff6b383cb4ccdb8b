"""Gradient of x, gathered from lists of the samples that read each pixel.

All channels of an image share its samples, so the lists are made once: counted, added up, filled.
No gradient is added atomically; only the order in which a list is filled is up to chance, and
`order_kernel` takes that away.
"""

import triton
import triton.language as tl

from .coordinates import (
    CALLERS,
    SIZES,
    axis_pair,
    map_index,
    tap_mask,
    tap_position,
    tile_channels,
    tile_pixels,
)


@triton.jit
def store_entry(lists, at, plane, source, weight, keep):
    """Write entries: the source in the low half of an integer, a float32 weight in the high one.

    A source is output pixel · SLOT + tap, SLOT the power of 2 from the number of taps up.

    A float64 weight has an integer of its own, a plane further.
    """
    if weight.dtype.primitive_bitwidth == 32:
        high = weight.to(tl.int32, bitcast=True).to(tl.int64) << 32
        tl.store(lists + at, high | source.to(tl.int64), keep)
    else:
        tl.store(lists + at, source.to(tl.int64), keep)
        tl.store(lists + at + plane, weight.to(tl.int64, bitcast=True), keep)


@triton.jit
def load_entry(lists, at, plane, keep, FLOAT: tl.constexpr):
    """Source and weight of entries, as `store_entry` writes them; 0 and 0 where none is kept."""
    word = tl.load(lists + at, keep, 0)
    if FLOAT.primitive_bitwidth == 32:
        weight = (word >> 32).to(tl.int32).to(tl.float32, bitcast=True)
    else:
        weight = tl.load(lists + at + plane, keep, 0).to(tl.float64, bitcast=True)
    return word.to(tl.int32), weight


@triton.jit
def enter(slots, lists, pixel, weight, source, plane):
    """Count samples in the slots of the pixels that they read; with `lists`, list them too."""
    reads = weight != 0
    if lists is None:
        tl.atomic_add(slots + pixel, 1, reads, sem='relaxed')
    else:
        # The slots hold where the lists end, and move down to where they begin.
        place = tl.atomic_add(slots + pixel, -1, reads, sem='relaxed') - 1
        store_entry(lists, place, plane, source, weight, reads)


@triton.jit(do_not_specialize=SIZES, do_not_specialize_on_alignment=CALLERS)
def list_kernel(
    slots,  # [B, H·W] int32: zero to count, else where each pixel's list ends in its image's
    lists,  # [B, 4·K·P] entries, as of `store_entry`, or None to count
    offset,  # [B, 2K, H_out, W_out] of any strides, or None
    mask,  # [B, K, H_out, W_out] of any strides, or None
    height, width, out_height, out_width, stride_y, stride_x, padding_y, padding_x,
    dilation_y, dilation_x, offset_image, offset_channel, offset_row, offset_column,
    mask_image, mask_channel, mask_row, mask_column, images, chunks, tap_groups, group_taps,
    entries,
    TAPS: tl.constexpr, KERNEL_WIDTH: tl.constexpr, LOGITS: tl.constexpr, FLOAT: tl.constexpr,
    SLOT: tl.constexpr, PIXELS: tl.constexpr,
):  # fmt: skip
    """A program owns a pixel tile of an image and a group of taps."""
    program = tl.program_id(0)
    tap_group = program % tap_groups
    tile = program // tap_groups % chunks
    image = (program // tap_groups // chunks).to(tl.int64)
    pixel, row, column, valid = tile_pixels(tile, out_height, out_width, PIXELS)
    offset_index = map_index(image, row, column, offset_image, offset_row, offset_column)
    mask_index = map_index(image, row, column, mask_image, mask_row, mask_column)
    plane = images.to(tl.int64) * entries
    slots += image * height * width
    if lists is not None:
        lists += image * entries
    down, beside = tl.where(height > 1, width, 0), tl.where(width > 1, 1, 0)
    for tap in range(tap_group * group_taps, tl.minimum((tap_group + 1) * group_taps, TAPS)):
        y, x = tap_position(row, column, valid, offset, offset_index, tap, offset_channel,
                            stride_y, stride_x, padding_y, padding_x, dilation_y, dilation_x,
                            KERNEL_WIDTH, FLOAT)  # fmt: skip
        top, top_weight, bottom_weight, _ = axis_pair(y, height)
        left, left_weight, right_weight, _ = axis_pair(x, width)
        m = tap_mask(valid, mask, mask_index, tap, mask_channel, LOGITS, FLOAT)
        top_weight = tl.where(valid, top_weight * m, 0)
        bottom_weight = tl.where(valid, bottom_weight * m, 0)
        first = top * width + left
        source = pixel * SLOT + tap
        enter(slots, lists, first, top_weight * left_weight, source, plane)
        enter(slots, lists, first + beside, top_weight * right_weight, source, plane)
        enter(slots, lists, first + down, bottom_weight * left_weight, source, plane)
        enter(slots, lists, first + down + beside, bottom_weight * right_weight, source, plane)


@triton.jit(do_not_specialize=SIZES)
def order_kernel(
    ordered,  # [B, 4·K·P] entries
    lists,  # [B, 4·K·P] entries, of `list_kernel`
    starts,  # [B, H·W] int32, where each pixel's list begins in its image's
    counts,  # [B, H·W] int32
    height, width, images, entries,
    BLOCK: tl.constexpr, FLOAT: tl.constexpr,
):  # fmt: skip
    """A program sorts a pixel's list by source: an entry's place is how many come before it."""
    slot = tl.program_id(0).to(tl.int64)
    count = tl.load(counts + slot)
    plane = images.to(tl.int64) * entries
    at = slot // (height * width) * entries + tl.load(starts + slot)
    for first in range(0, count, BLOCK):
        entry = first + tl.arange(0, BLOCK)
        source, weight = load_entry(lists, at + entry, plane, entry < count, FLOAT)
        place = tl.zeros([BLOCK], tl.int32)
        for other in range(0, count, BLOCK):
            beside = other + tl.arange(0, BLOCK)
            source_beside, _ = load_entry(lists, at + beside, plane, beside < count, FLOAT)
            before = (source_beside[None, :] < source[:, None]) & (beside < count)[None, :]
            place += tl.sum(before.to(tl.int32), 1)
        store_entry(ordered, at + place, plane, source, weight, entry < count)


@triton.jit(do_not_specialize=SIZES)
def gather_kernel(
    grad_x,  # [B, H·W, C]
    grad,  # [B, P, C] depthwise, [B, P, K, C] dense
    grad_sum,  # [B, P] dense, None depthwise
    kernels,  # [B or 1, K, C] or None
    lists,  # [B, 4·K·P] entries, of `list_kernel` or `order_kernel`
    starts,  # [B, H·W] int32
    counts,  # [B, H·W] int32
    height, width, out_height, out_width, channel_groups, images, blocks, chunks, entries,
    TAPS: tl.constexpr, ALIGN: tl.constexpr, WHOLE: tl.constexpr, OWN_KERNELS: tl.constexpr,
    FLOAT: tl.constexpr, BLEND: tl.constexpr, SLOT: tl.constexpr, AT_ONCE: tl.constexpr,
    GROUPS: tl.constexpr, PIXELS: tl.constexpr, LANES: tl.constexpr,
):  # fmt: skip
    """A program owns a tile of x's pixels and a channel block, and adds up their lists."""
    program = tl.program_id(0)
    block = program % blocks
    tile = program // blocks % chunks
    image = (program // blocks // chunks).to(tl.int64)
    channels = channel_groups * ALIGN
    channel, exists = tile_channels(block, channels, GROUPS, LANES, WHOLE)
    pixel = tile * PIXELS + tl.arange(0, PIXELS)
    valid = pixel < height * width
    slot = image * height * width + pixel
    count = tl.load(counts + slot, valid, 0)
    plane = images.to(tl.int64) * entries
    at = image * entries + tl.load(starts + slot, valid, 0)
    first_pixel = image * out_height * out_width
    if kernels is not None and OWN_KERNELS:
        kernels += image * TAPS * channels

    total = tl.zeros([PIXELS, GROUPS, LANES], FLOAT)
    for first in range(0, tl.max(count, 0), AT_ONCE):
        for step in tl.static_range(AT_ONCE):
            listed = first + step < count
            source, weight = load_entry(lists, at + (first + step), plane, listed, FLOAT)
            out_pixel, tap = source // SLOT, source % SLOT
            keep = exists & listed[:, None, None]
            if kernels is not None:
                kernel_at = kernels + (tap * channels)[:, None, None] + channel
                kernel = tl.load(kernel_at, keep, 0)
            if grad_sum is None:
                grad_at = grad + ((first_pixel + out_pixel) * channels)[:, None, None] + channel
                # Both are of the order of 1, so that half precision does for their product.
                weighted = kernel.to(BLEND) * weight.to(BLEND)[:, None, None]
                total += weighted.to(FLOAT) * tl.load(grad_at, keep, 0).to(FLOAT)
            else:
                row = (first_pixel + out_pixel) * TAPS + tap
                by_sample = tl.load(grad + (row * channels)[:, None, None] + channel, keep, 0)
                by_sample = by_sample.to(FLOAT)
                if kernels is not None:
                    by_shared = tl.load(grad_sum + first_pixel + out_pixel, listed, 0).to(FLOAT)
                    by_sample += by_shared[:, None, None] * kernel.to(FLOAT)
                total += weight[:, None, None] * by_sample
    to = grad_x + (slot * channels)[:, None, None] + channel
    tl.store(to, total.to(grad_x.dtype.element_ty), exists & valid[:, None, None])
