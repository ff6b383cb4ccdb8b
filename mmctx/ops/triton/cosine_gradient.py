"""Gradients before the logits of a stage, by a kernel on either side of products with directions.

The second one also goes through the linear layer that made the image embeddings.

Sizes: B images, N classes, embeddings of length D, H channels before them.
"""

import triton
import triton.language as tl

from .keeping import warps_for_row
from .launching import Launch
from .settings import PRECISE

# Images and channels of a program, and values of an embedding that it multiplies at a time.
ROWS, COLUMNS, INNER = 16, 64, 32


@triton.jit
def logits_backward_kernel(
    grad_products,  # [B, N]
    along,  # [B], what of the embedding is to be taken off its gradient
    grad,  # [B, N] of the logits
    logits,  # [B, N], −∞ where there is no gradient
    images,  # [B, D]
    classes, length, BLOCK: tl.constexpr, LENGTH_BLOCK: tl.constexpr,
):  # fmt: skip
    """A program owns an image."""
    image = tl.program_id(0).to(tl.int64)
    d, n = tl.arange(0, LENGTH_BLOCK), tl.arange(0, BLOCK)
    embedding = tl.load(images + image * length + d, d < length, 0)
    length = tl.maximum(tl.sqrt(tl.sum(embedding * embedding, 0)), 1e-12)
    at = image * classes + n
    x = tl.load(logits + at, n < classes, -float('inf'))
    considered = x != -float('inf')
    g = tl.where(considered, tl.load(grad + at, considered, 0), 0) / length
    tl.store(grad_products + at, g, n < classes)
    tl.store(along + image, tl.sum(g * tl.where(considered, x, 0), 0) / length)


@triton.jit(do_not_specialize=['count', 'blocks'])
def rows_product_kernel(
    out,  # [B, H]
    corrected,  # [B, D] result, the rows without what is to be taken off
    rows,  # [B, D]
    along,  # [B], how much of each embedding is to be taken off
    images,  # [B, D], embeddings
    weight,  # [D, H]
    count, blocks, length, channels,
    ROWS: tl.constexpr, COLUMNS: tl.constexpr, INNER: tl.constexpr,
):  # fmt: skip
    """A program owns some channels of some rows; the first of a row corrects it as well."""
    tile, block = tl.program_id(0) // blocks, tl.program_id(0) % blocks
    row = (tile * ROWS + tl.arange(0, ROWS))[:, None]
    channel = (block * COLUMNS + tl.arange(0, COLUMNS))[None, :]
    total = tl.zeros([ROWS, COLUMNS], tl.float32)
    for start in range(0, length, INNER):
        d = start + tl.arange(0, INNER)
        at = row.to(tl.int64) * length + d[None, :]
        valid = (row < count) & (d < length)[None, :]
        g = tl.load(rows + at, valid, 0)
        g -= tl.load(along + row, row < count, 0) * tl.load(images + at, valid, 0)
        tl.store(corrected + at, g, valid & (block == 0))
        w_at = weight + d[:, None] * channels + channel
        w = tl.load(w_at, (d < length)[:, None] & (channel < channels), 0)
        total = tl.dot(g, w, total, input_precision=PRECISE)
    at = row.to(tl.int64) * channels + channel
    tl.store(out + at, total.to(out.dtype.element_ty), (row < count) & (channel < channels))


def logits_backward_launch(batch: int, classes: int, length: int) -> Launch:
    """Launch for B images, N classes and embeddings of length D."""
    block = triton.next_power_of_2(classes)
    values = dict(
        classes=classes, length=length, BLOCK=block, LENGTH_BLOCK=triton.next_power_of_2(length)
    )
    return Launch(logits_backward_kernel, batch, values, warps_for_row(block))


def rows_product_launch(count: int, length: int, channels: int) -> Launch:
    """Launch for B rows of length D, and results of H channels."""
    blocks = triton.cdiv(channels, COLUMNS)
    values = dict(
        count=count, blocks=blocks, length=length, channels=channels, ROWS=ROWS,
        COLUMNS=COLUMNS, INNER=INNER,
    )  # fmt: skip
    return Launch(rows_product_kernel, triton.cdiv(count, ROWS) * blocks, values)
