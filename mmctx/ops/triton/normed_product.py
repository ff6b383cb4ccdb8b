"""The last three layers of classifying after a product: norm, ReLU and linear layer, by one kernel.

Sizes: B vectors of H channels, results of length D.
"""

import triton
import triton.language as tl

from .fixed_norm import normalized
from .launching import Launch
from .settings import PRECISE, STAGES

# Vectors and results of a program, channels that it multiplies and those that it sums at a time.
ROWS, COLUMNS, INNER, WIDE = 16, 32, 64, 256
# Parameters may be slices of a larger buffer, so their addresses may have any alignment.
VECTORS = ['bias', 'scale', 'shift', 'mean', 'variance', 'last_bias']


@triton.jit
def row_moments(vectors, bias, row, count, channels, EPS: tl.constexpr,
                ROWS: tl.constexpr, WIDE: tl.constexpr):  # fmt: skip
    """Mean and 1/σ of rows, [ROWS, 1], of vectors + bias."""
    total = tl.zeros([ROWS, WIDE], tl.float32)
    for start in range(0, channels, WIDE):
        channel = (start + tl.arange(0, WIDE))[None, :]
        exists = channel < channels
        at = row.to(tl.int64) * channels + channel
        total += tl.load(vectors + at, (row < count) & exists, 0).to(tl.float32)
        total += tl.load(bias + channel, exists, 0).to(tl.float32)
    centre = tl.sum(total, 1, keep_dims=True) / channels
    total = tl.zeros([ROWS, WIDE], tl.float32)
    for start in range(0, channels, WIDE):
        channel = (start + tl.arange(0, WIDE))[None, :]
        exists = channel < channels
        at = row.to(tl.int64) * channels + channel
        x = tl.load(vectors + at, (row < count) & exists, 0).to(tl.float32)
        x += tl.load(bias + channel, exists, 0).to(tl.float32)
        x = tl.where(exists, x - centre, 0)
        total += x * x
    return centre, tl.rsqrt(tl.sum(total, 1, keep_dims=True) / channels + EPS)


@triton.jit(do_not_specialize=['count', 'blocks'], do_not_specialize_on_alignment=VECTORS)
def normed_product_kernel(
    out,  # [B, D]
    hidden,  # [B, H] result of norm and ReLU, or None
    vectors,  # [B, H] without the bias
    bias, scale, shift, mean, variance,  # [H]; mean and variance are None for a layer norm
    last_weight,  # [D, H]
    last_bias,  # [D]
    count, blocks, channels, length,
    EPS: tl.constexpr,
    ROWS: tl.constexpr, COLUMNS: tl.constexpr, INNER: tl.constexpr, WIDE: tl.constexpr,
    STAGES: tl.constexpr,
):  # fmt: skip
    """A program owns some results of some vectors."""
    tile, block = tl.program_id(0) // blocks, tl.program_id(0) % blocks
    row = (tile * ROWS + tl.arange(0, ROWS))[:, None]
    column = block * COLUMNS + tl.arange(0, COLUMNS)
    if mean is None:
        centre, deviation = row_moments(vectors, bias, row, count, channels, EPS, ROWS, WIDE)
    total = tl.zeros([ROWS, COLUMNS], tl.float32)
    for start in tl.range(0, channels, INNER, num_stages=STAGES):
        channel = (start + tl.arange(0, INNER))[None, :]
        exists = channel < channels
        at, valid = row.to(tl.int64) * channels + channel, (row < count) & exists
        y = tl.load(vectors + at, valid, 0).to(tl.float32)
        y += tl.load(bias + channel, exists, 0).to(tl.float32)
        if mean is not None:
            y = normalized(y, scale, shift, mean, variance, channel, exists, EPS, 1)
        else:
            y = (y - centre) * deviation * tl.load(scale + channel, exists, 0).to(tl.float32)
            y += tl.load(shift + channel, exists, 0).to(tl.float32)
            # Not `tl.maximum(y, 0)`, which would hide a NaN.
            y = tl.where(y <= 0, 0, y)
        if hidden is not None:
            tl.store(hidden + at, y, valid & (block == 0))
        # Neighbouring threads read neighbouring numbers, so the weight is turned afterwards.
        w_at = last_weight + column[:, None] * channels + channel
        w = tl.load(w_at, (column < length)[:, None] & exists, 0).to(tl.float32)
        total = tl.dot(y, tl.trans(w), total, input_precision=PRECISE)
    column = column[None, :]
    total += tl.load(last_bias + column, column < length, 0).to(tl.float32)
    at = out + row.to(tl.int64) * length + column
    tl.store(at, total, (row < count) & (column < length))


def normed_product_launch(count: int, channels: int, length: int, eps: float) -> Launch:
    """Launch for B vectors of H channels, results of length D, and the epsilon of the norm."""
    blocks = triton.cdiv(length, COLUMNS)
    values = dict(
        count=count, blocks=blocks, EPS=eps, channels=channels, length=length, ROWS=ROWS,
        COLUMNS=COLUMNS, INNER=INNER, WIDE=WIDE, STAGES=STAGES,
    )  # fmt: skip
    return Launch(normed_product_kernel, triton.cdiv(count, ROWS) * blocks, values, warps=8)
