"""Samples of the dense contextual convolution, arranged as columns for one matrix product.

Δw, which all output channels share, adds the same number to all of them at a pixel. More columns
hold its parts, two for each group of taps, which the product multiplies by ones.
"""

import triton
import triton.language as tl

from .coordinates import (
    CALLERS,
    SIZES,
    axis_pair,
    blend,
    load_corners,
    map_index,
    per_pixel,
    pixel_steps,
    sum_channels,
    tap_mask,
    tap_position,
    tile_channels,
    tile_pixels,
)


@triton.jit(do_not_specialize=SIZES, do_not_specialize_on_alignment=CALLERS)
def columns_kernel(
    columns,  # [B, P, K·C + ONES], P output pixels; the last are Δw · samples
    x,  # [B, H·W, C]
    kernels,  # [B, K, C], Δw, or None
    offset,  # [B, 2K, H_out, W_out] of any strides, or None
    mask,  # [B, K, H_out, W_out] of any strides, or None
    height, width, out_height, out_width, stride_y, stride_x, padding_y, padding_x,
    dilation_y, dilation_x, offset_image, offset_channel, offset_row, offset_column,
    mask_image, mask_channel, mask_row, mask_column, channel_groups,
    blocks, chunks, tap_groups, group_taps,
    TAPS: tl.constexpr, KERNEL_WIDTH: tl.constexpr, LOGITS: tl.constexpr, ALIGN: tl.constexpr,
    WHOLE: tl.constexpr, INDEX: tl.constexpr, FLOAT: tl.constexpr, BLEND: tl.constexpr,
    ONES: tl.constexpr, GROUPS: tl.constexpr, PIXELS: tl.constexpr, LANES: tl.constexpr,
):  # fmt: skip
    """A program owns a pixel tile of an image, all its channels and a group of taps."""
    program = tl.program_id(0)
    tap_group = program % tap_groups
    tile = program // tap_groups % chunks
    image = (program // tap_groups // chunks).to(tl.int64)
    channels = channel_groups * ALIGN
    pixels = out_height * out_width
    pixel, row, column, valid = tile_pixels(tile, out_height, out_width, PIXELS)
    offset_index = map_index(image, row, column, offset_image, offset_row, offset_column)
    mask_index = map_index(image, row, column, mask_image, mask_row, mask_column)
    x += image * height * width * channels
    down, beside = pixel_steps(height, width, channels, INDEX)
    columns += (image * pixels + pixel) * (TAPS * channels + ONES)
    column_at = columns[:, None, None]

    total = tl.zeros([PIXELS, GROUPS, LANES], FLOAT)
    for tap in range(tap_group * group_taps, tl.minimum((tap_group + 1) * group_taps, TAPS)):
        y_at, x_at = tap_position(row, column, valid, offset, offset_index, tap, offset_channel,
                                  stride_y, stride_x, padding_y, padding_x, dilation_y, dilation_x,
                                  KERNEL_WIDTH, FLOAT)  # fmt: skip
        top, top_weight, bottom_weight, _ = axis_pair(y_at, height)
        left, left_weight, right_weight, _ = axis_pair(x_at, width)
        m = tap_mask(valid, mask, mask_index, tap, mask_channel, LOGITS, FLOAT)
        top_weight *= m
        bottom_weight *= m
        w00, w01 = top_weight * left_weight, top_weight * right_weight
        w10, w11 = bottom_weight * left_weight, bottom_weight * right_weight
        first = top * width + left
        for block in range(blocks):
            channel, exists = tile_channels(block, channels, GROUPS, LANES, WHOLE)
            x00, x01, x10, x11 = load_corners(x + channel, exists, first, down, beside, channels,
                                              INDEX)  # fmt: skip
            sample = blend(x00, x01, x10, x11, w00, w01, w10, w11, BLEND)
            to = column_at + tap * channels + channel
            tl.store(to, sample.to(columns.dtype.element_ty), exists & valid[:, None, None])
            if kernels is not None:
                kernel_at = kernels + (image * TAPS + tap) * channels + channel
                kernel = tl.load(kernel_at, exists, 0).to(FLOAT)
                total += sample.to(FLOAT) * kernel
    if kernels is not None:
        # A sum and what its type cannot hold of it; zeros in the columns of groups without taps.
        lane = tl.arange(0, ONES)[None, :]
        group = lane // 2
        owned = (group == tap_group) | ((tap_group == 0) & (group >= tap_groups))
        shared = per_pixel(sum_channels(total))[:, None]
        rest = shared - shared.to(columns.dtype.element_ty).to(FLOAT)
        shared = tl.where(group == tap_group, tl.where(lane % 2 == 0, shared, rest), 0)
        to = columns[:, None] + TAPS * channels + lane
        tl.store(to, shared.to(columns.dtype.element_ty), valid[:, None] & owned)
