"""Gradients of Δp, the mask and the kernels, and the columns again, in one pass over the taps."""

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


@triton.jit
def sample_gradient(grad, grad_sum, image_pixel, valid, tap, kernel, channels, channel, exists,
                    TAPS: tl.constexpr, FLOAT: tl.constexpr):  # fmt: skip
    """Gradients of a tap's samples, the mask applied, and what they multiply in Δw's gradient.

    Depthwise, where `grad_sum` is None: g · (w + Δw) and g, of the output's gradient g
    [B, P, C]. Dense: column's gradient + Σg · Δw and Σg, of the columns' gradient [B, P, K, C] and
    the output's gradient summed over its channels, [B, P].
    """
    keep = exists & valid[:, None, None]
    if grad_sum is None:
        at = grad + (image_pixel * channels)[:, None, None] + channel
        by_kernel = tl.load(at, keep, 0).to(FLOAT)
        by_sample = by_kernel * kernel
    else:
        at = grad + ((image_pixel * TAPS + tap) * channels)[:, None, None] + channel
        by_kernel = tl.load(grad_sum + image_pixel, valid, 0).to(FLOAT)[:, None, None]
        by_sample = tl.load(at, keep, 0).to(FLOAT) + by_kernel * kernel
    return by_sample, by_kernel


@triton.jit
def tap_kernel(kernels, image, tap, channels, channel, exists,
               OWN_KERNELS: tl.constexpr, TAPS: tl.constexpr, FLOAT: tl.constexpr):  # fmt: skip
    """A tap's kernel of an image, [1, GROUPS, LANES]: w + Δw depthwise, Δw dense; 0 for None."""
    kernel = tl.zeros(channel.shape, FLOAT)
    if kernels is not None:
        at = kernels + tap * channels + channel
        if OWN_KERNELS:
            at += image * TAPS * channels
        kernel = tl.load(at, exists, 0).to(FLOAT)
    return kernel


@triton.jit(do_not_specialize=SIZES, do_not_specialize_on_alignment=SLICES)
def sampling_gradient_kernel(
    grad_offset,  # [channel blocks, B, 2K, P] or None
    grad_mask,  # [channel blocks, B, K, P] or None
    grad_kernels,  # [chunks, B, K, C], by w + Δw depthwise, by Δw dense, or None
    columns,  # [B, P, K, C] or None
    grad,  # [B, P, C] depthwise, [B, P, K, C] dense
    grad_sum,  # [B, P] dense, None depthwise
    x,  # [B, H·W, C]
    kernels,  # [B or 1, K, C] or None
    offset,  # [B, 2K, H_out, W_out] of any strides, or None
    mask,  # [B, K, H_out, W_out] of any strides, or None
    height, width, out_height, out_width, stride_y, stride_x, padding_y, padding_x,
    dilation_y, dilation_x, offset_image, offset_channel, offset_row, offset_column,
    mask_image, mask_channel, mask_row, mask_column, channel_groups,
    blocks, chunks, chunk_tiles, tap_groups, group_taps,
    TAPS: tl.constexpr, KERNEL_WIDTH: tl.constexpr, LOGITS: tl.constexpr, ALIGN: tl.constexpr,
    WHOLE: tl.constexpr, OWN_KERNELS: tl.constexpr, INDEX: tl.constexpr, FLOAT: tl.constexpr,
    GROUPS: tl.constexpr, PIXELS: tl.constexpr, LANES: tl.constexpr,
):  # fmt: skip
    """A program owns a channel block of an image, a chunk of pixel tiles and a group of taps.

    It walks the tiles tap by tap, which keeps the kernel's gradient in registers: no atomics. The
    gradients of Δp and the mask are complete but for a sum over the channel blocks.
    """
    program = tl.program_id(0)
    tap_group = program % tap_groups
    chunk = program // tap_groups % chunks
    block = program // tap_groups // chunks % blocks
    image = (program // tap_groups // chunks // blocks).to(tl.int64)
    batch = tl.num_programs(0) // tap_groups // chunks // blocks
    channels = channel_groups * ALIGN
    channel, exists = tile_channels(block, channels, GROUPS, LANES, WHOLE)
    pixels = out_height * out_width
    x_at = x + image * height * width * channels + channel
    image_block = block.to(tl.int64) * batch + image

    for tap in range(tap_group * group_taps, tl.minimum((tap_group + 1) * group_taps, TAPS)):
        kernel = tap_kernel(kernels, image, tap, channels, channel, exists, OWN_KERNELS, TAPS,
                            FLOAT)  # fmt: skip
        total = tl.zeros([PIXELS, GROUPS, LANES], FLOAT)
        for tile in range(chunk * chunk_tiles, tl.minimum((chunk + 1) * chunk_tiles,
                                                          tl.cdiv(pixels, PIXELS))):  # fmt: skip
            pixel, row, column, valid = tile_pixels(tile, out_height, out_width, PIXELS)
            offset_index = map_index(image, row, column, offset_image, offset_row, offset_column)
            mask_index = map_index(image, row, column, mask_image, mask_row, mask_column)
            at_y, at_x = tap_position(row, column, valid, offset, offset_index, tap, offset_channel,
                                      stride_y, stride_x, padding_y, padding_x, dilation_y,
                                      dilation_x, KERNEL_WIDTH, FLOAT)  # fmt: skip
            top, bottom, top_weight, bottom_weight, top_is, bottom_is = axis_corners(at_y, height)
            left, right, left_weight, right_weight, left_is, right_is = axis_corners(at_x, width)
            m = tap_mask(valid, mask, mask_index, tap, mask_channel, LOGITS, FLOAT)
            x00, x01, x10, x11 = load_corners(x_at, exists, top, bottom, left, right, width,
                                              channels, INDEX, FLOAT)  # fmt: skip
            keep = exists & valid[:, None, None]
            image_pixel = image * pixels + pixel
            by_sample, by_kernel = sample_gradient(
                grad,
                grad_sum,
                image_pixel,
                valid,
                tap,
                kernel,
                channels,
                channel,
                exists,
                TAPS,
                FLOAT,
            )
            if grad_kernels is not None or columns is not None:
                sample = blend(x00, x01, x10, x11, m * top_weight, m * bottom_weight,
                               left_weight, right_weight)  # fmt: skip
                total += by_kernel * sample
                if columns is not None:
                    to = columns + ((image_pixel * TAPS + tap) * channels)[:, None, None] + channel
                    tl.store(to, sample.to(columns.dtype.element_ty), keep)
            if grad_offset is not None or grad_mask is not None:
                # Each corner's share before its weight: Σ_c ∂L/∂sample · corner, [PIXELS, 1, 1].
                q00 = sum_channels(tl.where(keep, by_sample * x00, 0))
                q01 = sum_channels(tl.where(keep, by_sample * x01, 0))
                q10 = sum_channels(tl.where(keep, by_sample * x10, 0))
                q11 = sum_channels(tl.where(keep, by_sample * x11, 0))
                by_top = q00 * left_weight[:, None, None] + q01 * right_weight[:, None, None]
                by_bottom = q10 * left_weight[:, None, None] + q11 * right_weight[:, None, None]
                tap_at = (image_block * TAPS + tap) * pixels + pixel
                if grad_offset is not None:
                    by_left = q00 * top_weight[:, None, None] + q10 * bottom_weight[:, None, None]
                    by_right = q01 * top_weight[:, None, None] + q11 * bottom_weight[:, None, None]
                    by_y = tl.where(bottom_is[:, None, None], by_bottom, 0)
                    by_y -= tl.where(top_is[:, None, None], by_top, 0)
                    by_x = tl.where(right_is[:, None, None], by_right, 0)
                    by_x -= tl.where(left_is[:, None, None], by_left, 0)
                    to = grad_offset + tap_at + (image_block * TAPS + tap) * pixels
                    tl.store(to, per_pixel(by_y * m[:, None, None]), valid)
                    tl.store(to + pixels, per_pixel(by_x * m[:, None, None]), valid)
                if grad_mask is not None:
                    by_m = by_top * top_weight[:, None, None]
                    by_m += by_bottom * bottom_weight[:, None, None]
                    if LOGITS:
                        by_m *= (m * (1 - m))[:, None, None]
                    tl.store(grad_mask + tap_at, per_pixel(by_m), valid)
        if grad_kernels is not None:
            by_channel = tl.sum(total, 0)[None, :, :]
            at = ((chunk.to(tl.int64) * batch + image) * TAPS + tap) * channels
            tl.store(grad_kernels + at + channel, by_channel, exists)
