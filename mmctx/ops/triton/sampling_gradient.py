"""Gradients of Δp, the mask and the kernels, and the columns again, in one pass over the taps.

In names, `by_y` is the gradient by y, and so on.
"""

import triton
import triton.language as tl

from .coordinates import (
    CALLERS,
    SIZES,
    axis_pair,
    axis_slopes,
    blend,
    load_corners,
    map_index,
    per_pixel,
    row_step,
    sum_channels,
    tap_mask,
    tap_position,
    tile_channels,
    tile_pixels,
)


@triton.jit
def sample_gradient(grad, grad_sum, image_pixel, keep_pixel, tap, kernel, channel, keep,
                    CHANNELS: tl.constexpr, TAPS: tl.constexpr, FLOAT: tl.constexpr):  # fmt: skip
    """Gradients of a tap's samples, before the mask, and what they multiply in Δw's gradient.

    Depthwise, where `grad_sum` is None: g · (w + Δw) and g, of the output's gradient g
    [B, P, C]. Dense: column's gradient + Σg · Δw and Σg, of the columns' gradient [B, P, K, C] and
    the output's gradient summed over its channels, [B, P]. Zero where nothing is kept.
    """
    if grad_sum is None:
        at = grad + (image_pixel * CHANNELS)[:, None, None] + channel
        by_kernel = tl.load(at, keep, 0).to(FLOAT)
        by_sample = by_kernel * kernel
    else:
        at = grad + ((image_pixel * TAPS + tap) * CHANNELS)[:, None, None] + channel
        by_kernel = tl.load(grad_sum + image_pixel, keep_pixel, 0).to(FLOAT)[:, None, None]
        by_sample = tl.load(at, keep, 0).to(FLOAT) + by_kernel * kernel
    return by_sample, by_kernel


@triton.jit
def tap_kernel(kernels, image, tap, channel, exists, CHANNELS: tl.constexpr,
               OWN_KERNELS: tl.constexpr, TAPS: tl.constexpr, FLOAT: tl.constexpr):  # fmt: skip
    """A tap's kernel of an image, [1, GROUPS, LANES]: w + Δw depthwise, Δw dense; 0 for None."""
    kernel = tl.zeros(channel.shape, FLOAT)
    if kernels is not None:
        at = kernels + tap * CHANNELS + channel
        if OWN_KERNELS:
            at += image * TAPS * CHANNELS
        kernel = tl.load(at, exists, 0).to(FLOAT)
    return kernel


@triton.jit(do_not_specialize=SIZES, do_not_specialize_on_alignment=CALLERS)
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
    mask_image, mask_channel, mask_row, mask_column,
    images, blocks, chunks, chunk_tiles, tap_groups, group_taps,
    CHANNELS: tl.constexpr, TAPS: tl.constexpr, KERNEL_WIDTH: tl.constexpr, LOGITS: tl.constexpr,
    WHOLE: tl.constexpr, WIDE: tl.constexpr, OWN_KERNELS: tl.constexpr, INDEX: tl.constexpr,
    FLOAT: tl.constexpr, BLEND: tl.constexpr, GROUPS: tl.constexpr, PIXELS: tl.constexpr,
    LANES: tl.constexpr,
):  # fmt: skip
    """A program owns a channel block of an image, a chunk of pixel tiles and a group of taps.

    It walks the tiles tap by tap, so the kernel's gradient stays in registers without atomics. The
    gradients of Δp and the mask still need a sum over the channel blocks.
    """
    program = tl.program_id(0)
    tap_group = program % tap_groups
    chunk = program // tap_groups % chunks
    block = program // tap_groups // chunks % blocks
    image = (program // tap_groups // chunks // blocks).to(tl.int64)
    channel, exists = tile_channels(block, CHANNELS, GROUPS, LANES, WHOLE)
    pixels = out_height * out_width
    down = row_step(height, width, CHANNELS, INDEX)
    beside: tl.constexpr = CHANNELS * WIDE
    x += image * height * width * CHANNELS + channel
    image_block = block * images.to(tl.int64) + image
    first_tile = chunk * chunk_tiles
    last_tile = tl.minimum(first_tile + chunk_tiles, tl.cdiv(pixels, PIXELS))

    for tap in range(tap_group * group_taps, tl.minimum((tap_group + 1) * group_taps, TAPS)):
        kernel = tap_kernel(kernels, image, tap, channel, exists, CHANNELS, OWN_KERNELS, TAPS,
                            FLOAT)  # fmt: skip
        total = tl.zeros([PIXELS, GROUPS, LANES], FLOAT)
        for tile in range(first_tile, last_tile):
            pixel, row, column, valid = tile_pixels(tile, out_height, out_width, PIXELS)
            offset_index = map_index(image, row, column, offset_image, offset_row, offset_column)
            mask_index = map_index(image, row, column, mask_image, mask_row, mask_column)
            y_at, x_at = tap_position(row, column, valid, offset, offset_index, tap, offset_channel,
                                      stride_y, stride_x, padding_y, padding_x, dilation_y,
                                      dilation_x, KERNEL_WIDTH, FLOAT)  # fmt: skip
            top, top_weight, bottom_weight, shift_y = axis_pair(y_at, height)
            left, left_weight, right_weight, shift_x = axis_pair(x_at, width)
            m = tap_mask(valid, mask, mask_index, tap, mask_channel, LOGITS, FLOAT)
            x00, x01, x10, x11 = load_corners(x, exists, top * width + left, down, beside, CHANNELS,
                                              INDEX)  # fmt: skip
            keep = exists & valid[:, None, None]
            image_pixel = image * pixels + pixel
            by_sample, by_kernel = sample_gradient(
                grad, grad_sum, image_pixel, valid, tap, kernel, channel, keep, CHANNELS, TAPS,
                FLOAT,
            )  # fmt: skip
            if grad_kernels is not None or columns is not None:
                w00, w01 = m * top_weight * left_weight, m * top_weight * right_weight
                w10, w11 = m * bottom_weight * left_weight, m * bottom_weight * right_weight
                sample = blend(x00, x01, x10, x11, w00, w01, w10, w11, BLEND)
                if grad_kernels is not None:
                    total += by_kernel * sample.to(FLOAT)
                if columns is not None:
                    to = columns + ((image_pixel * TAPS + tap) * CHANNELS)[:, None, None] + channel
                    tl.store(to, sample.to(columns.dtype.element_ty), keep)
            if grad_offset is not None or grad_mask is not None:
                # Each corner's share before its weight: Σ_c ∂L/∂sample · corner, [PIXELS, 1, 1].
                q00 = per_pixel(sum_channels(by_sample * x00.to(FLOAT)))
                q01 = per_pixel(sum_channels(by_sample * x01.to(FLOAT)))
                q10 = per_pixel(sum_channels(by_sample * x10.to(FLOAT)))
                q11 = per_pixel(sum_channels(by_sample * x11.to(FLOAT)))
                by_top = q00 * left_weight + q01 * right_weight
                by_bottom = q10 * left_weight + q11 * right_weight
                tap_at = (image_block * TAPS + tap) * pixels + pixel
                if grad_offset is not None:
                    by_left = q00 * top_weight + q10 * bottom_weight
                    by_right = q01 * top_weight + q11 * bottom_weight
                    top_slope, bottom_slope = axis_slopes(shift_y, height, FLOAT)
                    left_slope, right_slope = axis_slopes(shift_x, width, FLOAT)
                    to = grad_offset + tap_at + (image_block * TAPS + tap) * pixels
                    by_y = (by_top * top_slope + by_bottom * bottom_slope) * m
                    by_x = (by_left * left_slope + by_right * right_slope) * m
                    tl.store(to, by_y, valid)
                    tl.store(to + pixels, by_x, valid)
                if grad_mask is not None:
                    by_m = by_top * top_weight + by_bottom * bottom_weight
                    if LOGITS:
                        by_m *= m * (1 - m)
                    tl.store(grad_mask + tap_at, by_m, valid)
        if grad_kernels is not None:
            by_channel = tl.sum(total, 0)[None, :, :]
            at = ((chunk * images.to(tl.int64) + image) * TAPS + tap) * CHANNELS
            tl.store(grad_kernels + at + channel, by_channel, exists)


@triton.jit(do_not_specialize=SIZES)
def kernel_gradient_kernel(
    grad_delta,  # [B, C, K] or None
    grad_weight,  # [C, K], depthwise, or None
    delta_total,  # [C, K], the sum of Δw's gradients over the images, or None
    grad_kernels,  # [chunks, B, K, C], of `sampling_gradient_kernel`
    channel_groups, images, blocks, chunks, entries,
    TAPS: tl.constexpr, ALIGN: tl.constexpr, FLOAT: tl.constexpr,
    KERNEL_CHANNELS: tl.constexpr, ROWS: tl.constexpr,
):  # fmt: skip
    """Sums of the parts for each image (Δw), and over all images (w, and Δw's total).

    The first `entries` programs own a channel block of an image, the others a tap and a channel
    block.
    """
    program = tl.program_id(0)
    channels = channel_groups * ALIGN
    if program < entries:
        image = (program // blocks).to(tl.int64)
        channel = program % blocks * KERNEL_CHANNELS + tl.arange(0, KERNEL_CHANNELS)[:, None]
        for first in range(0, TAPS, 64):
            tap = first + tl.arange(0, 64)[None, :]
            exists = (channel < channels) & (tap < TAPS)
            total = tl.zeros([KERNEL_CHANNELS, 64], FLOAT)
            for chunk in range(chunks):
                at = ((chunk * images + image) * TAPS + tap) * channels + channel
                total += tl.load(grad_kernels + at, exists, 0)
            if grad_delta is not None:
                to = grad_delta + (image * channels + channel) * TAPS + tap
                tl.store(to, total.to(grad_delta.dtype.element_ty), exists)
    elif grad_weight is not None or delta_total is not None:
        own_tap = (program - entries) // blocks
        lane = (program - entries) % blocks * KERNEL_CHANNELS + tl.arange(0, KERNEL_CHANNELS)
        parts = chunks * images
        by_part = tl.zeros([ROWS, KERNEL_CHANNELS], FLOAT)
        for first_part in range(0, parts, ROWS):
            part = first_part + tl.arange(0, ROWS)
            listed = (part < parts)[:, None] & (lane < channels)[None, :]
            row = (part.to(tl.int64) * TAPS + own_tap) * channels
            by_part += tl.load(grad_kernels + row[:, None] + lane[None, :], listed, 0)
        total = tl.sum(by_part, 0)
        at = lane * TAPS + own_tap
        if grad_weight is not None:
            tl.store(grad_weight + at, total.to(grad_weight.dtype.element_ty), lane < channels)
        if delta_total is not None:
            tl.store(delta_total + at, total.to(delta_total.dtype.element_ty), lane < channels)
