"""The classes that a stage keeps, by one kernel."""

import triton
import triton.language as tl

from .launching import Launch


@triton.jit
def ordered(x):
    """Unsigned integers in the order of float32 numbers, NaN above all."""
    word = x.to(tl.int32, bitcast=True)
    # Of negative numbers all bits are turned, of others the sign.
    word = word ^ ((word >> 31) | -2147483648)
    return tl.where(x != x, 0xFFFFFFFF, word.to(tl.uint32, bitcast=True))


@triton.jit
def keep_kernel(
    logits,  # [B, N] result, which may take the place of the products
    kept,  # [B, N] result, bool, or None if no classes are to be chosen
    top,  # [B, keep] result, numbers of the kept classes, ascending, or None
    share,  # [B, N] result, 1 / keep for kept classes, else 0, or None
    products,  # [B, N], products of image embeddings and class directions
    images,  # [B, D], image embeddings, by whose length products are divided
    before,  # [B, N], classes that may be kept, bool, or None for all
    classes, keep, length, BLOCK: tl.constexpr, LENGTH_BLOCK: tl.constexpr,
):  # fmt: skip
    """A program owns an image."""
    image = tl.program_id(0).to(tl.int64)
    n = tl.arange(0, BLOCK)
    exists = n < classes
    at = image * classes + n
    x = tl.load(products + at, exists, 0)
    # Several threads may have loaded what one of them stores in the same place.
    tl.debug_barrier()
    d = tl.arange(0, LENGTH_BLOCK)
    embedding = tl.load(images + image * length + d, d < length, 0)
    x /= tl.maximum(tl.sqrt(tl.sum(embedding * embedding, 0)), 1e-12)
    if before is not None:
        x = tl.where(tl.load(before + at, exists, 0) != 0, x, -float('inf'))
    tl.store(logits + at, x, exists)
    if kept is not None:
        key = tl.where(exists, ordered(x), 0)
        # Two bits at a time, the largest number that at least keep keys reach.
        least = tl.full([1], 0, tl.uint32)
        for i in range(16):
            bit = tl.full([1], 1, tl.uint32) << (30 - 2 * i)
            # Three counts below 2^20 in one sum, as a sum takes as long for one as for three.
            counts = tl.zeros([BLOCK], tl.int64)
            for digit in tl.static_range(1, 4):
                reaches = (key >= least + digit * bit) & exists
                counts += reaches.to(tl.int64) << (20 * (digit - 1))
            count = tl.sum(counts, 0)
            enough = tl.zeros([1], tl.uint32)
            for digit in tl.static_range(3):
                reached = (count >> (20 * digit)) & 0xFFFFF
                enough += (reached >= keep).to(tl.uint32)
            least += enough * bit
        above, equal = (key > least) & exists, (key == least) & exists
        room = keep - tl.sum(above.to(tl.int32), 0)
        chosen = above | (equal & (tl.cumsum(equal.to(tl.int32), 0) <= room))
        tl.store(kept + at, chosen, exists)
        place = tl.cumsum(chosen.to(tl.int32), 0) - 1
        tl.store(top + image * keep + place, n, chosen)
        if share is not None:
            tl.store(share + at, tl.where(chosen, 1.0 / keep, 0.0), exists)


def keep_launch(batch: int, classes: int, length: int, keep: int | None) -> Launch:
    """Launch for B images, N classes, embeddings of length D, and the number of classes to keep.

    The number is None where none are to be chosen. Of equal classes the first ones are kept.
    """
    block = triton.next_power_of_2(classes)
    values = dict(
        classes=classes, keep=keep or 0, length=length, BLOCK=block,
        LENGTH_BLOCK=triton.next_power_of_2(length),
    )  # fmt: skip
    return Launch(keep_kernel, batch, values, warps_for_row(block))


def warps_for_row(block: int) -> int:
    """Warps that hold a row of so many classes at once, 8 in each thread where there are many."""
    return min(max(block // 256, 4), 16)
