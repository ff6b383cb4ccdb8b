"""Tables for the other kernels: samples, which all channels share, and kernels channels last."""

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


@triton.jit
def bits(value):
    """A float16 as the low 16 bits of a 64-bit integer."""
    return value.to(tl.float16).to(tl.uint16, bitcast=True).to(tl.int64)


@triton.jit
def store_weights(weights, at, valid, planes, w00, w01, w10, w11, HALF: tl.constexpr):
    """Store the weights of the four corners of samples, as four float16 in an integer or planes."""
    if HALF:
        word = bits(w00) | (bits(w01) << 16) | (bits(w10) << 32) | (bits(w11) << 48)
        tl.store(weights + at, word, valid)
    else:
        tl.store(weights + at, w00, valid)
        tl.store(weights + at + planes, w01, valid)
        tl.store(weights + at + 2 * planes, w10, valid)
        tl.store(weights + at + 3 * planes, w11, valid)


@triton.jit
def half_weight(words, corner):
    """Weight of one corner, 0 to 3, in the integers that `store_weights` stores."""
    return (words >> (16 * corner)).to(tl.uint16).to(tl.float16, bitcast=True)


@triton.jit
def load_weights(weights, at, keep, planes, HALF: tl.constexpr):
    """Load the weights that `store_weights` stored; `keep` is None for all."""
    other: tl.constexpr = None if keep is None else 0
    if HALF:
        word = tl.load(weights + at, keep, other)
        w00, w01 = half_weight(word, 0), half_weight(word, 1)
        w10, w11 = half_weight(word, 2), half_weight(word, 3)
    else:
        w00 = tl.load(weights + at, keep, other)
        w01 = tl.load(weights + at + planes, keep, other)
        w10 = tl.load(weights + at + 2 * planes, keep, other)
        w11 = tl.load(weights + at + 3 * planes, keep, other)
    return w00, w01, w10, w11


@triton.jit
def load_samples(index, weights, at, planes, HALF: tl.constexpr):
    """Load the first pixel and the weights of samples from the tables of `prepare_kernel`.

    Without predicates, which would be a tenth of the reading kernels' instructions: the tables have
    spare entries at their ends instead.
    """
    return tl.load(index + at), load_weights(weights, at, None, planes, HALF)


@triton.jit
def store_matrix_row(matrix, dense, output, channels, weight_output, weight_input, weight_row,
                     weight_column, TAPS: tl.constexpr, KERNEL_WIDTH: tl.constexpr,
                     FLOAT: tl.constexpr, ONES: tl.constexpr, BLOCK: tl.constexpr):  # fmt: skip
    """Store the taps of one output channel, [K, C_in], and ones behind them."""
    length = TAPS * channels + ONES
    for start in range(0, length, BLOCK):
        at = start + tl.arange(0, BLOCK)
        tap, channel = at // channels, at % channels
        tap_at = tap // KERNEL_WIDTH * weight_row + tap % KERNEL_WIDTH * weight_column
        dense_at = dense + output * weight_output + channel * weight_input + tap_at
        value = tl.where(tap < TAPS, tl.load(dense_at, tap < TAPS, 0).to(FLOAT), 1)
        tl.store(matrix + output * length + at, value.to(matrix.dtype.element_ty), at < length)


@triton.jit(do_not_specialize=SIZES, do_not_specialize_on_alignment=CALLERS)
def prepare_kernel(
    index,  # [B, K, P] int32, the first pixel that each sample reads, then PIXELS zeros, then P
    # entries that nothing sets, as they are loaded ahead but not used; or None
    weights,  # [B, K, P] int64 of four float16 for x of 16 bits, else [4, B, K, P]; with the mask,
    # and as many spare entries behind them
    kernels,  # [B or 1, K, C], w + Δw depthwise, Δw dense, or None
    matrix,  # [C_out, K·C_in + ONES], w as the dense product takes it, or None
    offset,  # [B, 2K, H_out, W_out] of any strides, or None
    mask,  # [B, K, H_out, W_out] of any strides, or None
    weight,  # w, [C, K] depthwise, None dense
    delta,  # Δw, [B, C, K], or None
    dense,  # w, [C_out, C_in, kh, kw] of any strides; None depthwise
    height, width, out_height, out_width, stride_y, stride_x, padding_y, padding_x,
    dilation_y, dilation_x, offset_image, offset_channel, offset_row, offset_column,
    mask_image, mask_channel, mask_row, mask_column, channel_groups,
    images, chunks, tap_groups, group_taps, blocks, sample_programs, kernel_programs,
    weight_output, weight_input, weight_row, weight_column,
    TAPS: tl.constexpr, KERNEL_WIDTH: tl.constexpr, LOGITS: tl.constexpr, ALIGN: tl.constexpr,
    FLOAT: tl.constexpr, HALF: tl.constexpr, PIXELS: tl.constexpr, KERNEL_CHANNELS: tl.constexpr,
    ONES: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """A program owns a pixel tile and some taps, a channel block of kernels, or a matrix row."""
    program = tl.program_id(0)
    if program >= sample_programs + kernel_programs:
        if matrix is not None:
            output = program - sample_programs - kernel_programs
            store_matrix_row(matrix, dense, output, channel_groups * ALIGN, weight_output,
                             weight_input, weight_row, weight_column, TAPS, KERNEL_WIDTH, FLOAT,
                             ONES, BLOCK)  # fmt: skip
    elif program >= sample_programs:
        if kernels is not None:
            program -= sample_programs
            image = (program // blocks).to(tl.int64)
            channels = channel_groups * ALIGN
            channel = program % blocks * KERNEL_CHANNELS + tl.arange(0, KERNEL_CHANNELS)[:, None]
            for tap in range(0, TAPS, 64):
                taps = tap + tl.arange(0, 64)[None, :]
                exists = (channel < channels) & (taps < TAPS)
                at = channel * TAPS + taps
                value = tl.zeros([KERNEL_CHANNELS, 64], FLOAT)
                if weight is not None:
                    value += tl.load(weight + at, exists, 0).to(FLOAT)
                if delta is not None:
                    delta_at = delta + image * channels * TAPS
                    value += tl.load(delta_at + at, exists, 0).to(FLOAT)
                to = kernels + (image * TAPS + taps) * channels + channel
                tl.store(to, value.to(kernels.dtype.element_ty), exists)
    elif index is not None:
        tap_group = program % tap_groups
        tile = program // tap_groups % chunks
        image = (program // tap_groups // chunks).to(tl.int64)
        pixels = out_height * out_width
        planes = images.to(tl.int64) * TAPS * pixels
        if program == 0:
            tl.store(index + planes + tl.arange(0, PIXELS), tl.zeros([PIXELS], tl.int32))
        pixel, row, column, valid = tile_pixels(tile, out_height, out_width, PIXELS)
        offset_index = map_index(image, row, column, offset_image, offset_row, offset_column)
        mask_index = map_index(image, row, column, mask_image, mask_row, mask_column)
        for tap in range(tap_group * group_taps, tl.minimum((tap_group + 1) * group_taps, TAPS)):
            y, x = tap_position(row, column, valid, offset, offset_index, tap, offset_channel,
                                stride_y, stride_x, padding_y, padding_x, dilation_y, dilation_x,
                                KERNEL_WIDTH, FLOAT)  # fmt: skip
            top, top_weight, bottom_weight, _ = axis_pair(y, height)
            left, left_weight, right_weight, _ = axis_pair(x, width)
            m = tap_mask(valid, mask, mask_index, tap, mask_channel, LOGITS, FLOAT)
            top_weight *= m
            bottom_weight *= m
            at = (image * TAPS + tap) * pixels + pixel
            tl.store(index + at, top * width + left, valid)
            w00, w01 = top_weight * left_weight, top_weight * right_weight
            w10, w11 = bottom_weight * left_weight, bottom_weight * right_weight
            store_weights(weights, at, valid, planes, w00, w01, w10, w11, HALF)
