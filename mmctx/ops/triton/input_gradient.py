"""Gradient of x: by atomic additions, or by a matrix product that gives the same sum every time."""

import triton
import triton.language as tl

from .coordinates import (
    SIZES,
    SLICES,
    axis_corners,
    map_index,
    tap_mask,
    tap_position,
    tile_channels,
    tile_pixels,
)
from .sampling_gradient import sample_gradient, tap_kernel


@triton.jit(do_not_specialize=SIZES, do_not_specialize_on_alignment=SLICES)
def scatter_kernel(
    grad_x,  # [B, H·W, C], zero, at least float32
    grad,  # [B, P, C] depthwise, [B, P, K, C] dense
    grad_sum,  # [B, P] dense, None depthwise
    kernels,  # [B or 1, K, C] or None
    offset,  # [B, 2K, H_out, W_out] of any strides, or None
    mask,  # [B, K, H_out, W_out] of any strides, or None
    height, width, out_height, out_width, stride_y, stride_x, padding_y, padding_x,
    dilation_y, dilation_x, offset_image, offset_channel, offset_row, offset_column,
    mask_image, mask_channel, mask_row, mask_column, channel_groups,
    blocks, chunks,
    TAPS: tl.constexpr, KERNEL_WIDTH: tl.constexpr, LOGITS: tl.constexpr, ALIGN: tl.constexpr,
    WHOLE: tl.constexpr, OWN_KERNELS: tl.constexpr, INDEX: tl.constexpr, FLOAT: tl.constexpr,
    GROUPS: tl.constexpr, PIXELS: tl.constexpr, LANES: tl.constexpr,
):  # fmt: skip
    """A program adds what a pixel tile of a channel block sends to its corners, tap by tap."""
    program = tl.program_id(0)
    tile = program % chunks
    block = program // chunks % blocks
    image = (program // chunks // blocks).to(tl.int64)
    channels = channel_groups * ALIGN
    stride = channels.to(INDEX)
    channel, exists = tile_channels(block, channels, GROUPS, LANES, WHOLE)
    pixel, row, column, valid = tile_pixels(tile, out_height, out_width, PIXELS)
    offset_index = map_index(image, row, column, offset_image, offset_row, offset_column)
    mask_index = map_index(image, row, column, mask_image, mask_row, mask_column)
    keep = exists & valid[:, None, None]
    to = grad_x + image * height * width * channels + channel
    image_pixel = image * out_height * out_width + pixel
    for tap in range(TAPS):
        at_y, at_x = tap_position(row, column, valid, offset, offset_index, tap, offset_channel,
                                  stride_y, stride_x, padding_y, padding_x, dilation_y, dilation_x,
                                  KERNEL_WIDTH, FLOAT)  # fmt: skip
        top, bottom, top_weight, bottom_weight, top_is, bottom_is = axis_corners(at_y, height)
        left, right, left_weight, right_weight, left_is, right_is = axis_corners(at_x, width)
        m = tap_mask(valid, mask, mask_index, tap, mask_channel, LOGITS, FLOAT)
        kernel = tap_kernel(kernels, image, tap, channels, channel, exists, OWN_KERNELS, TAPS,
                            FLOAT)  # fmt: skip
        by_sample, _ = sample_gradient(grad, grad_sum, image_pixel, valid, tap, kernel, channels,
                                       channel, exists, TAPS, FLOAT)  # fmt: skip
        by_sample *= m[:, None, None]
        tl.atomic_add(to + ((top * width + left) * stride)[:, None, None],
                      by_sample * (top_weight * left_weight)[:, None, None],
                      keep & (top_is & left_is)[:, None, None], sem='relaxed')  # fmt: skip
        tl.atomic_add(to + ((top * width + right) * stride)[:, None, None],
                      by_sample * (top_weight * right_weight)[:, None, None],
                      keep & (top_is & right_is)[:, None, None], sem='relaxed')  # fmt: skip
        tl.atomic_add(to + ((bottom * width + left) * stride)[:, None, None],
                      by_sample * (bottom_weight * left_weight)[:, None, None],
                      keep & (bottom_is & left_is)[:, None, None], sem='relaxed')  # fmt: skip
        tl.atomic_add(to + ((bottom * width + right) * stride)[:, None, None],
                      by_sample * (bottom_weight * right_weight)[:, None, None],
                      keep & (bottom_is & right_is)[:, None, None], sem='relaxed')  # fmt: skip


@triton.jit
def square_tile(tile, tiles_x, height, width, SIDE: tl.constexpr):
    """Pixels of a square tile of a map: row, column and whether they exist, [SIDE²] each."""
    index = tl.arange(0, SIDE * SIDE)
    row = tile // tiles_x * SIDE + index // SIDE
    column = tile % tiles_x * SIDE + index % SIDE
    return row, column, (row < height) & (column < width)


@triton.jit(do_not_specialize=SIZES, do_not_specialize_on_alignment=SLICES)
def reach_kernel(
    reach,  # [B, output tiles, K + 1, 4]: least and most y, least and most x; last of all taps
    offset,  # [B, 2K, H_out, W_out] of any strides, or None
    out_height, out_width, stride_y, stride_x, padding_y, padding_x, dilation_y, dilation_x,
    offset_image, offset_channel, offset_row, offset_column, out_tiles, out_tiles_x,
    TAPS: tl.constexpr, KERNEL_WIDTH: tl.constexpr, FLOAT: tl.constexpr, SIDE: tl.constexpr,
):  # fmt: skip
    """A program finds where the taps of a square tile of output pixels read."""
    tile = tl.program_id(0) % out_tiles
    image = (tl.program_id(0) // out_tiles).to(tl.int64)
    row, column, valid = square_tile(tile, out_tiles_x, out_height, out_width, SIDE)
    offset_index = map_index(image, row, column, offset_image, offset_row, offset_column)
    to = reach + (image * out_tiles + tile) * (TAPS + 1) * 4
    far = float('inf')
    top, bottom = tl.full([], far, FLOAT), tl.full([], -far, FLOAT)
    left, right = tl.full([], far, FLOAT), tl.full([], -far, FLOAT)
    for tap in range(TAPS):
        y, x = tap_position(row, column, valid, offset, offset_index, tap, offset_channel,
                            stride_y, stride_x, padding_y, padding_x, dilation_y, dilation_x,
                            KERNEL_WIDTH, FLOAT)  # fmt: skip
        tap_top, tap_bottom = tl.min(tl.where(valid, y, far)), tl.max(tl.where(valid, y, -far))
        tap_left, tap_right = tl.min(tl.where(valid, x, far)), tl.max(tl.where(valid, x, -far))
        tl.store(to + tap * 4, tap_top)
        tl.store(to + tap * 4 + 1, tap_bottom)
        tl.store(to + tap * 4 + 2, tap_left)
        tl.store(to + tap * 4 + 3, tap_right)
        top, bottom = tl.minimum(top, tap_top), tl.maximum(bottom, tap_bottom)
        left, right = tl.minimum(left, tap_left), tl.maximum(right, tap_right)
    tl.store(to + TAPS * 4, top)
    tl.store(to + TAPS * 4 + 1, bottom)
    tl.store(to + TAPS * 4 + 2, left)
    tl.store(to + TAPS * 4 + 3, right)


@triton.jit
def reaches(reach, top, left, SIDE: tl.constexpr):
    """Whether positions within the four bounds may blend a pixel of the square tile at a corner."""
    return (
        (tl.load(reach) < top + SIDE)
        & (tl.load(reach + 1) > top - 1)
        & (tl.load(reach + 2) < left + SIDE)
        & (tl.load(reach + 3) > left - 1)
    )


@triton.jit(do_not_specialize=SIZES, do_not_specialize_on_alignment=SLICES)
def gather_kernel(
    grad_x,  # [B, H·W, C]
    grad,  # [B, P, C] depthwise, [B, P, K, C] dense
    grad_sum,  # [B, P] dense, None depthwise
    kernels,  # [B or 1, K, C] or None
    reach,  # [B, output tiles, K + 1, 4], of `reach_kernel`
    offset,  # [B, 2K, H_out, W_out] of any strides, or None
    mask,  # [B, K, H_out, W_out] of any strides, or None
    height, width, out_height, out_width, stride_y, stride_x, padding_y, padding_x,
    dilation_y, dilation_x, offset_image, offset_channel, offset_row, offset_column,
    mask_image, mask_channel, mask_row, mask_column, channel_groups,
    blocks, chunks, tiles_x, out_tiles, out_tiles_x,
    TAPS: tl.constexpr, KERNEL_WIDTH: tl.constexpr, LOGITS: tl.constexpr, ALIGN: tl.constexpr,
    OWN_KERNELS: tl.constexpr, FLOAT: tl.constexpr, PRECISION: tl.constexpr,
    SIDE: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """A program owns a square tile of x and a channel block; nothing is scattered.

    A tap's samples are x times a matrix of hats, S[p, q] = m_p · max(0, 1 - |y_p - y_q|) ·
    max(0, 1 - |x_p - x_q|), which all channels share; the gradient is its transpose times the
    samples' gradient. Tiles of output pixels that read nowhere near are passed over.
    """
    program = tl.program_id(0)
    block = program % blocks
    tile = program // blocks % chunks
    image = (program // blocks // chunks).to(tl.int64)
    channels = channel_groups * ALIGN
    channel = block * BLOCK + tl.arange(0, BLOCK)[None, :]
    exists = channel < channels
    x_row, x_column, x_valid = square_tile(tile, tiles_x, height, width, SIDE)
    top, left = tile // tiles_x * SIDE, tile % tiles_x * SIDE

    total = tl.zeros([SIDE * SIDE, BLOCK], FLOAT)
    for out_tile in range(out_tiles):
        tile_reach = reach + (image * out_tiles + out_tile) * (TAPS + 1) * 4
        if reaches(tile_reach + TAPS * 4, top, left, SIDE):
            row, column, valid = square_tile(out_tile, out_tiles_x, out_height, out_width, SIDE)
            offset_index = map_index(image, row, column, offset_image, offset_row, offset_column)
            mask_index = map_index(image, row, column, mask_image, mask_row, mask_column)
            keep = exists & valid[:, None]
            image_pixel = image * out_height * out_width + row * out_width + column
            if grad_sum is None:
                values = tl.load(grad + (image_pixel * channels)[:, None] + channel, keep, 0)
            for tap in range(TAPS):
                if reaches(tile_reach + tap * 4, top, left, SIDE):
                    y, x = tap_position(row, column, valid, offset, offset_index, tap,
                                        offset_channel, stride_y, stride_x, padding_y, padding_x,
                                        dilation_y, dilation_x, KERNEL_WIDTH, FLOAT)  # fmt: skip
                    m = tap_mask(valid, mask, mask_index, tap, mask_channel, LOGITS, FLOAT)
                    hats = tl.maximum(1 - tl.abs(y[None, :] - x_row[:, None]), 0)
                    hats *= tl.maximum(1 - tl.abs(x[None, :] - x_column[:, None]), 0) * m[None, :]
                    hats = hats.to(grad.dtype.element_ty)  # [x's pixels, output pixels]
                    kernel = tap_kernel(kernels, image, tap, channels, channel, exists, OWN_KERNELS,
                                        TAPS, FLOAT)  # fmt: skip
                    if grad_sum is None:
                        total += kernel * tl.dot(hats, values, input_precision=PRECISION,
                                                 out_dtype=FLOAT)  # fmt: skip
                    else:
                        at = grad + ((image_pixel * TAPS + tap) * channels)[:, None] + channel
                        by_sample = tl.load(at, keep, 0).to(FLOAT)
                        by_sample += kernel * tl.load(grad_sum + image_pixel, valid, 0)[:, None]
                        total = tl.dot(hats, by_sample.to(grad.dtype.element_ty), total,
                                       input_precision=PRECISION, out_dtype=FLOAT)  # fmt: skip
    to = grad_x + ((image * height + x_row) * width + x_column)[:, None] * channels + channel
    tl.store(to, total.to(grad_x.dtype.element_ty), exists & x_valid[:, None])
