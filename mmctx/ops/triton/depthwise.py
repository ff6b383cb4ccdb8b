"""Forward pass of the depthwise contextual convolution in one kernel."""

import triton
import triton.language as tl

from .coordinates import (
    SIZES,
    SLICES,
    axis_corners,
    blend,
    load_corners,
    map_index,
    tap_mask,
    tap_position,
    tile_channels,
    tile_pixels,
)


@triton.jit(do_not_specialize=SIZES, do_not_specialize_on_alignment=SLICES)
def depthwise_kernel(
    out,  # [B, P, C], P output pixels
    x,  # [B, H·W, C]
    kernels,  # [B or 1, K, C], w + Δw
    bias,  # [C] or None
    offset,  # [B, 2K, H_out, W_out] of any strides, or None
    mask,  # [B, K, H_out, W_out] of any strides, or None
    height, width, out_height, out_width, stride_y, stride_x, padding_y, padding_x,
    dilation_y, dilation_x, offset_image, offset_channel, offset_row, offset_column,
    mask_image, mask_channel, mask_row, mask_column, channel_groups,
    blocks, chunks, chunk_tiles,
    TAPS: tl.constexpr, KERNEL_WIDTH: tl.constexpr, LOGITS: tl.constexpr, ALIGN: tl.constexpr,
    WHOLE: tl.constexpr, OWN_KERNELS: tl.constexpr, INDEX: tl.constexpr, FLOAT: tl.constexpr,
    GROUPS: tl.constexpr, PIXELS: tl.constexpr, LANES: tl.constexpr,
):  # fmt: skip
    """A program owns a channel block of an image and walks a chunk of its pixel tiles."""
    program = tl.program_id(0)
    chunk = program % chunks
    block = program // chunks % blocks
    image = (program // chunks // blocks).to(tl.int64)
    channels = channel_groups * ALIGN
    channel, exists = tile_channels(block, channels, GROUPS, LANES, WHOLE)
    pixels = out_height * out_width
    x_at = x + image * height * width * channels + channel
    if OWN_KERNELS:
        kernels += image * TAPS * channels
    out += image * pixels * channels

    for tile in range(chunk * chunk_tiles, tl.minimum((chunk + 1) * chunk_tiles,
                                                      tl.cdiv(pixels, PIXELS))):  # fmt: skip
        pixel, row, column, valid = tile_pixels(tile, out_height, out_width, PIXELS)
        offset_index = map_index(image, row, column, offset_image, offset_row, offset_column)
        mask_index = map_index(image, row, column, mask_image, mask_row, mask_column)
        total = tl.zeros([PIXELS, GROUPS, LANES], FLOAT)
        if bias is not None:
            total += tl.load(bias + channel, exists).to(FLOAT)
        for tap in range(TAPS):
            at_y, at_x = tap_position(row, column, valid, offset, offset_index, tap, offset_channel,
                                      stride_y, stride_x, padding_y, padding_x, dilation_y,
                                      dilation_x, KERNEL_WIDTH, FLOAT)  # fmt: skip
            top, bottom, top_weight, bottom_weight, _, _ = axis_corners(at_y, height)
            left, right, left_weight, right_weight, _, _ = axis_corners(at_x, width)
            m = tap_mask(valid, mask, mask_index, tap, mask_channel, LOGITS, FLOAT)
            corners = load_corners(x_at, exists, top, bottom, left, right, width, channels,
                                   INDEX, FLOAT)  # fmt: skip
            sample = blend(*corners, m * top_weight, m * bottom_weight, left_weight, right_weight)
            total += sample * tl.load(kernels + tap * channels + channel, exists)
        to = out + (pixel.to(tl.int64) * channels)[:, None, None] + channel
        tl.store(to, total.to(out.dtype.element_ty), exists & valid[:, None, None])
