"""Lists of the samples that read each pixel of x, from which x's gradient is gathered.

All channels of an image share its samples, so the lists are made once: `list_kernel` counts their
entries, the counts are summed to positions, and a second call of it fills the lists. A sample is in
one list, that of the first of its four pixels, so each pixel of x reads four lists. Only the order
of the entries in a list is random; `order_kernel` sorts them.
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
    tile_pixels,
)
from .prepare import load_weights, store_weights


@triton.jit(do_not_specialize=SIZES, do_not_specialize_on_alignment=CALLERS)
def list_kernel(
    slots,  # [B, H·W] int32: zero to count; to fill, the end of each pixel's list in its image
    sources,  # [B, K·P] int32, output pixel · SLOT + tap; None to count
    weights,  # of the four pixels, [B, K·P] entries of `store_weights`; None to count
    offset,  # [B, 2K, H_out, W_out] of any strides, or None
    mask,  # [B, K, H_out, W_out] of any strides, or None
    height, width, out_height, out_width, stride_y, stride_x, padding_y, padding_x,
    dilation_y, dilation_x, offset_image, offset_channel, offset_row, offset_column,
    mask_image, mask_channel, mask_row, mask_column, images, chunks, tap_groups, group_taps,
    entries,
    TAPS: tl.constexpr, KERNEL_WIDTH: tl.constexpr, LOGITS: tl.constexpr, FLOAT: tl.constexpr,
    HALF: tl.constexpr, SLOT: tl.constexpr, PIXELS: tl.constexpr,
):  # fmt: skip
    """A program owns a pixel tile of an image and a group of taps."""
    program = tl.program_id(0)
    tap_group = program % tap_groups
    tile = program // tap_groups % chunks
    image = (program // tap_groups // chunks).to(tl.int64)
    pixel, row, column, valid = tile_pixels(tile, out_height, out_width, PIXELS)
    offset_index = map_index(image, row, column, offset_image, offset_row, offset_column)
    mask_index = map_index(image, row, column, mask_image, mask_row, mask_column)
    planes = images.to(tl.int64) * entries
    slots += image * height * width
    for tap in range(tap_group * group_taps, tl.minimum((tap_group + 1) * group_taps, TAPS)):
        y, x = tap_position(row, column, valid, offset, offset_index, tap, offset_channel,
                            stride_y, stride_x, padding_y, padding_x, dilation_y, dilation_x,
                            KERNEL_WIDTH, FLOAT)  # fmt: skip
        top, top_weight, bottom_weight, _ = axis_pair(y, height)
        left, left_weight, right_weight, _ = axis_pair(x, width)
        m = tap_mask(valid, mask, mask_index, tap, mask_channel, LOGITS, FLOAT)
        # A sample outside the image has no gradient.
        reads = valid & (top_weight + bottom_weight != 0) & (left_weight + right_weight != 0)
        slot = slots + top * width + left
        if sources is None:
            tl.atomic_add(slot, 1, reads, sem='relaxed')
        else:
            # The slots hold the ends of the lists, and are counted down to their starts.
            place = image * entries + tl.atomic_add(slot, -1, reads, sem='relaxed') - 1
            tl.store(sources + place, pixel * SLOT + tap, reads)
            top_weight *= m
            bottom_weight *= m
            store_weights(weights, place, reads, planes, top_weight * left_weight,
                          top_weight * right_weight, bottom_weight * left_weight,
                          bottom_weight * right_weight, HALF)  # fmt: skip


@triton.jit(do_not_specialize=SIZES)
def order_kernel(
    ordered_sources,  # [B, K·P] int32
    ordered_weights,  # as `weights`
    sources,  # [B, K·P] int32, of `list_kernel`
    weights,  # of `list_kernel`
    starts,  # [B, H·W] int32, the start of each pixel's list in its image
    counts,  # [B, H·W] int32
    height, width, images, entries,
    BLOCK: tl.constexpr, HALF: tl.constexpr,
):  # fmt: skip
    """A program sorts a pixel's list by source: an entry's place is the number of smaller ones."""
    slot = tl.program_id(0).to(tl.int64)
    count = tl.load(counts + slot)
    planes = images.to(tl.int64) * entries
    at = slot // (height * width) * entries + tl.load(starts + slot)
    for first in range(0, count, BLOCK):
        entry = first + tl.arange(0, BLOCK)
        listed = entry < count
        source = tl.load(sources + at + entry, listed, 0)
        place = tl.zeros([BLOCK], tl.int32)
        for other in range(0, count, BLOCK):
            beside = other + tl.arange(0, BLOCK)
            source_beside = tl.load(sources + at + beside, beside < count, 0)
            before = (source_beside[None, :] < source[:, None]) & (beside < count)[None, :]
            place += tl.sum(before.to(tl.int32), 1)
        w00, w01, w10, w11 = load_weights(weights, at + entry, listed, planes, HALF)
        tl.store(ordered_sources + at + place, source, listed)
        store_weights(ordered_weights, at + place, listed, planes, w00, w01, w10, w11, HALF)


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
