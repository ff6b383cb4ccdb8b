"""Gradient of x, gathered from lists of the samples that read each pixel (`sample_lists`).

No gradient is added atomically. `input_gradient_product` does the same by products of matrices.
"""

import triton
import triton.language as tl

from .coordinates import SIZES, tile_channels
from .prepare import half_weight
from .sample_lists import list_bounds


@triton.jit
def load_weight(weights, at, keep, planes, corner, HALF: tl.constexpr):
    """Load the weight of one corner, 0 to 3, that `store_weights` wrote."""
    if HALF:
        weight = half_weight(tl.load(weights + at, keep, 0), corner)
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
        _, begin, middle, end = list_bounds(
            starts + first_slot, counts + first_slot, pixel, below, valid, width
        )
        for step in range(0, tl.max(end - begin, 0), AT_ONCE):
            for extra in tl.static_range(AT_ONCE):
                entry = begin + step + extra
                listed = entry < end
                at = image * entries + entry
                corner = 2 * below + (entry < middle).to(tl.int32)
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
