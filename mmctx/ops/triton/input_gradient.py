"""Gradient of x, gathered from lists of the samples that read each pixel.

All channels of an image share its samples, so the lists are made once: `list_kernel` counts their
entries, the counts are summed to positions, and a second call of it fills the lists. A sample is in
one list, that of the first of its four pixels, so each pixel of x reads four lists. No gradient is
added atomically. Only the order of the entries in a list is random; `order_kernel` sorts them.
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
def load_weight(weights, at, keep, planes, corner, HALF: tl.constexpr):
    """Load the weight of one corner, 0 to 3, that `store_weights` wrote."""
    if HALF:
        word = tl.load(weights + at, keep, 0)
        weight = (word >> (16 * corner)).to(tl.uint16).to(tl.float16, bitcast=True)
    else:
        weight = tl.load(weights + at + corner * planes, keep, 0)
    return weight


@triton.jit(
    do_not_specialize=[*SIZES, 'pooled_image'], do_not_specialize_on_alignment=['of_pooled']
)
def gather_kernel(
    grad_x,  # [B, H·W, C]
    grad,  # [B, P, C] depthwise, [B, P, K, C] dense
    grad_sum,  # [B, P] dense, None depthwise
    kernels,  # [B or 1, K, C] or None
    sources,  # [B, K·P] int32, of `list_kernel` or `order_kernel`
    weights,  # likewise
    starts,  # [B, H·W] int32
    counts,  # [B, H·W] int32
    of_pooled,  # [B, C] of any distance between images, gradient of x's mean, or None
    height, width, out_height, out_width, images, blocks, chunks, entries, pooled_image,
    CHANNELS: tl.constexpr, TAPS: tl.constexpr, WHOLE: tl.constexpr, OWN_KERNELS: tl.constexpr,
    FLOAT: tl.constexpr, BLEND: tl.constexpr, HALF: tl.constexpr, SLOT: tl.constexpr,
    AT_ONCE: tl.constexpr, GROUPS: tl.constexpr, PIXELS: tl.constexpr, LANES: tl.constexpr,
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
        # The lists of the pixel to the left and of this one, in this row or in the row above, are
        # adjacent. This pixel is the right one of the samples in the first, the left one in the
        # second.
        slot = pixel - below * width
        exists_slot = valid & (slot >= 0)
        at_left = tl.load(starts + first_slot + slot, exists_slot, 0)
        end = at_left + tl.load(counts + first_slot + slot, exists_slot, 0)
        has_before = exists_slot & (pixel % width > 0)
        begin = tl.load(starts + first_slot + slot - 1, has_before, 0)
        begin = tl.where(has_before, begin, at_left)
        for step in range(0, tl.max(end - begin, 0), AT_ONCE):
            for extra in tl.static_range(AT_ONCE):
                entry = begin + step + extra
                listed = entry < end
                at = image * entries + entry
                corner = 2 * below + (entry < at_left).to(tl.int32)
                source = tl.load(sources + at, listed, 0)
                weight = load_weight(weights, at, listed, planes, corner, HALF)
                listed = listed & (weight != 0)
                keep = exists & listed[:, None, None]
                out_pixel, tap = source // SLOT, source % SLOT
                if kernels is not None:
                    kernel_at = kernels + (tap * CHANNELS)[:, None, None] + channel
                    kernel = tl.load(kernel_at, keep, 0)
                if grad_sum is None:
                    grad_at = grad + ((first_pixel + out_pixel) * CHANNELS)[:, None, None] + channel
                    # Both are of the order of 1, so half precision is enough for their product.
                    weighted = kernel.to(BLEND) * weight.to(BLEND)[:, None, None]
                    total += weighted.to(FLOAT) * tl.load(grad_at, keep, 0).to(FLOAT)
                else:
                    row = (first_pixel + out_pixel) * TAPS + tap
                    by_sample = tl.load(grad + (row * CHANNELS)[:, None, None] + channel, keep, 0)
                    by_sample = by_sample.to(FLOAT)
                    if kernels is not None:
                        by_shared = tl.load(grad_sum + first_pixel + out_pixel, listed, 0)
                        by_sample += by_shared.to(FLOAT)[:, None, None] * kernel.to(FLOAT)
                    total += weight.to(FLOAT)[:, None, None] * by_sample
    to = grad_x + ((first_slot + pixel) * CHANNELS)[:, None, None] + channel
    tl.store(to, total.to(grad_x.dtype.element_ty), exists & valid[:, None, None])
