"""The classes that a stage keeps, by one kernel."""

from functools import lru_cache
from typing import NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor

from .device_launch import aligned, launch_on_device
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
    logits,  # [B, N] result
    kept,  # [B, N] result, bool as int8, or None if no classes are to be chosen
    top,  # [B, KEEP] result, numbers of the kept classes, ascending, or None
    share,  # [B, N] result, 1 / KEEP for kept classes, else 0, or None
    products,  # [B, N], products of image embeddings and class directions
    images,  # [B, D], image embeddings, by whose length products are divided
    before,  # [B, N], classes that may be kept, bool as int8, or None for all
    CLASSES: tl.constexpr, KEEP: tl.constexpr, LENGTH: tl.constexpr, BLOCK: tl.constexpr,
    LENGTH_BLOCK: tl.constexpr,
):  # fmt: skip
    """A program owns an image."""
    image = tl.program_id(0).to(tl.int64)
    n = tl.arange(0, BLOCK)
    exists = n < CLASSES
    at = image * CLASSES + n
    x = tl.load(products + at, exists, 0)
    d = tl.arange(0, LENGTH_BLOCK)
    embedding = tl.load(images + image * LENGTH + d, d < LENGTH, 0)
    x /= tl.maximum(tl.sqrt(tl.sum(embedding * embedding, 0)), 1e-12)
    if before is not None:
        x = tl.where(tl.load(before + at, exists, 0) != 0, x, -float('inf'))
    tl.store(logits + at, x, exists)
    if kept is not None:
        key = tl.where(exists, ordered(x), 0)
        # Bit by bit, the largest number that at least KEEP keys reach.
        least = tl.full([1], 0, tl.uint32)
        for i in range(32):
            more = least | (tl.full([1], 1, tl.uint32) << (31 - i))
            enough = tl.sum(((key >= more) & exists).to(tl.int32), 0) >= KEEP
            least = tl.where(enough, more, least)
        above, equal = (key > least) & exists, (key == least) & exists
        room = KEEP - tl.sum(above.to(tl.int32), 0)
        chosen = above | (equal & (tl.cumsum(equal.to(tl.int32), 0) <= room))
        tl.store(kept + at, chosen.to(tl.int8), exists)
        place = tl.cumsum(chosen.to(tl.int32), 0) - 1
        tl.store(top + image * KEEP + place, n, chosen)
        if share is not None:
            tl.store(share + at, tl.where(chosen, 1.0 / KEEP, 0.0), exists)


class Kept(NamedTuple):
    """The classes that a stage keeps.

    Attributes:
        mask (Tensor): Whether a class is kept, (B, N), bool.
        top (Tensor): Numbers of the kept classes, ascending, (B, K), int32.
        share (Tensor, optional): Each class's share in a mean over them, 1/K or 0, (B, N); None
            where it was not asked for.
    """

    mask: Tensor
    top: Tensor
    share: Tensor | None


def keep_classes(
    products: Tensor,
    images: Tensor,
    before: Tensor | None,
    count: int | None,
    with_share: bool = False,
) -> tuple[Tensor, Kept | None]:
    """Logits of a stage and the classes that it keeps.

    Args:
        products (Tensor): Products of image embeddings and class directions, (B, N), in float32.
        images (Tensor): Image embeddings, (B, d), in float32.
        before (Tensor, optional): Whether a class may be kept, (B, N), bool; None for all.
        count (int, optional): Number of classes to keep; None if the stage is the last.
        with_share (bool): Whether to return shares, too. Defaults to False.

    Returns:
        tuple[Tensor, Kept | None]: Logits, (B, N), −inf for classes that may not be kept; the
        classes kept, None without a count. Of equal classes the first ones are kept.
    """
    logits, kept = torch.empty_like(products), None
    mask = top = share = None
    if count is not None:
        mask = torch.empty(products.shape, dtype=torch.bool, device=products.device)
        top = torch.empty(len(products), count, dtype=torch.int32, device=products.device)
        share = torch.empty_like(products) if with_share else None
        kept = Kept(mask, top, share)
    if products.numel():
        launch = _launch(
            products.device, products.shape, images.shape[1], count, before is not None, with_share
        )
        mask, before = (None if t is None else aligned(t).view(torch.int8) for t in (mask, before))
        launch_on_device(launch, logits, mask, top, share, products, images, before)
    return logits, kept


@lru_cache(maxsize=4096)
def _launch(device, shape, length, count, follows, with_share) -> Launch:
    batch, classes = shape
    values = dict(
        CLASSES=classes, KEEP=count or 0, LENGTH=length, BLOCK=triton.next_power_of_2(classes),
        LENGTH_BLOCK=triton.next_power_of_2(length),
    )  # fmt: skip
    return Launch(keep_kernel, batch, values, warps=4)
