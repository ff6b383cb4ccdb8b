"""Samples of the dense contextual convolution, as columns for one matrix product."""

import triton
import triton.language as tl

from .coordinates import (
    SIZES,
    SLICES,
    axis_corners,
    blend,
    load_corners,
    map_index,
    per_pixel,
    sum_channels,
    tap_mask,
    tap_position,
    tile_channels,
    tile_pixels,
)


@triton.jit(do_not_specialize=SIZES, do_not_specialize_on_alignment=SLICES)
def columns_kernel(
    columns,  # [B, P, K, C], P output pixels
    shared,  # [tap groups, B, P], Δw · columns by the group's taps, or None
    x,  # [B, H·W, C]
    delta,  # [B, K, C], Δw, or None
    offset,  # [B, 2K, H_out, W_out] of any strides, or None
    mask,  # [B, K, H_out, W_out] of any strides, or None
    height, width, out_height, out_width, stride_y, stride_x, padding_y, padding_x,
    dilation_y, dilation_x, offset_image, offset_channel, offset_row, offset_column,
    mask_image, mask_channel, mask_row, mask_column, channel_groups,
    blocks, chunks, tap_groups, group_taps,
    TAPS: tl.constexpr, KERNEL_WIDTH: tl.constexpr, LOGITS: tl.constexpr, ALIGN: tl.constexpr,
    WHOLE: tl.constexpr, INDEX: tl.constexpr, FLOAT: tl.constexpr,
    GROUPS: tl.constexpr, PIXELS: tl.constexpr, LANES: tl.constexpr,
):  # fmt: skip
    """A program owns a pixel tile of an image, all its channels and a group of taps."""
    program = tl.program_id(0)
    tile = program % chunks
    tap_group = program // chunks % tap_groups
    image = (program // chunks // tap_groups).to(tl.int64)
    channels = channel_groups * ALIGN
    pixels = out_height * out_width
    pixel, row, column, valid = tile_pixels(tile, out_height, out_width, PIXELS)
    offset_index = map_index(image, row, column, offset_image, offset_row, offset_column)
    mask_index = map_index(image, row, column, mask_image, mask_row, mask_column)
    x += image * height * width * channels
    column_at = columns + ((image * pixels + pixel) * TAPS * channels)[:, None, None]

    total = tl.zeros([PIXELS, GROUPS, LANES], FLOAT)
    for tap in range(tap_group * group_taps, tl.minimum((tap_group + 1) * group_taps, TAPS)):
        at_y, at_x = tap_position(row, column, valid, offset, offset_index, tap, offset_channel,
                                  stride_y, stride_x, padding_y, padding_x, dilation_y, dilation_x,
                                  KERNEL_WIDTH, FLOAT)  # fmt: skip
        top, bottom, top_weight, bottom_weight, _, _ = axis_corners(at_y, height)
        left, right, left_weight, right_weight, _, _ = axis_corners(at_x, width)
        m = tap_mask(valid, mask, mask_index, tap, mask_channel, LOGITS, FLOAT)
        for block in range(blocks):
            channel, exists = tile_channels(block, channels, GROUPS, LANES, WHOLE)
            corners = load_corners(x + channel, exists, top, bottom, left, right, width, channels,
                                   INDEX, FLOAT)  # fmt: skip
            sample = blend(*corners, m * top_weight, m * bottom_weight, left_weight, right_weight)
            tl.store(column_at + tap * channels + channel, sample.to(columns.dtype.element_ty),
                     exists & valid[:, None, None])  # fmt: skip
            if delta is not None:
                kernel = tl.load(delta + (image * TAPS + tap) * channels + channel, exists)
                total += tl.where(exists, sample * kernel, 0)
    if delta is not None:
        batch = tl.num_programs(0) // chunks // tap_groups
        to = shared + (tap_group.to(tl.int64) * batch + image) * pixels + pixel
        tl.store(to, per_pixel(sum_channels(total)), valid)
