"""The classes that a stage keeps, by one kernel."""

from functools import lru_cache

import torch
import triton
import triton.language as tl
from torch import Tensor

from .device_launch import aligned, on_device
from .launching import Launch, current_stream


@triton.jit
def ordered(x):
    """Unsigned integers in the order of float32 numbers, NaN above all."""
    word = x.to(tl.int32, bitcast=True)
    # Of negative numbers all bits are turned, of others the sign.
    word = word ^ ((word >> 31) | -2147483648)
    return tl.where(x != x, 0xFFFFFFFF, word.to(tl.uint32, bitcast=True))


@triton.jit
def keep_kernel(
    logits,  # [B, N] result, or None
    kept,  # [B, N] result, bool as int8, or None if no classes are to be chosen
    share,  # [B, N] result, 1 / KEEP for kept classes, else 0, or None
    products,  # [B, N], products of image embeddings and class directions
    images,  # [B, D], image embeddings, by whose length products are divided, or None
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
    if images is not None:
        d = tl.arange(0, LENGTH_BLOCK)
        embedding = tl.load(images + image * LENGTH + d, d < LENGTH, 0)
        x /= tl.maximum(tl.sqrt(tl.sum(embedding * embedding, 0)), 1e-12)
    if before is not None:
        x = tl.where(tl.load(before + at, exists, 0) != 0, x, -float('inf'))
    if logits is not None:
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
        tl.store(share + at, tl.where(chosen, 1.0 / KEEP, 0.0), exists)


def keep_classes(
    products: Tensor, images: Tensor, before: Tensor | None, count: int | None
) -> tuple[Tensor, Tensor | None, Tensor | None]:
    """Logits of a stage, the classes that it keeps, and each one's share in a mean over them.

    Args:
        products (Tensor): Products of image embeddings and class directions, (B, N), in float32.
        images (Tensor): Image embeddings, (B, d), in float32.
        before (Tensor, optional): Whether a class may be kept, (B, N), bool; None for all.
        count (int, optional): Number of classes to keep; None if the stage is the last.

    Returns:
        tuple: Logits, (B, N), −inf for classes that may not be kept; whether a class is kept,
        (B, N), bool; 1 / `count` for the kept classes and 0 for others, (B, N). The last two are
        None without a count. Of equal classes the first ones are kept.
    """
    logits, kept, share = torch.empty_like(products), None, None
    if count is not None:
        kept, share = _choice(products)
    _keep(logits, kept, share, products, aligned(images), before, count)
    return logits, kept, share


def choose_classes(logits: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """The classes that a stage keeps, and each one's share in a mean over them; as `keep_classes`.

    Args:
        logits (Tensor): Of float32, (B, N), −inf for classes that may not be kept.
        count (int): Number of classes to keep.

    Returns:
        tuple[Tensor, Tensor]: Whether a class is kept, (B, N), bool; 1 / `count` for the kept
        classes and 0 for others, (B, N).
    """
    kept, share = _choice(logits)
    _keep(None, kept, share, logits, None, None, count)
    return kept, share


def _choice(logits: Tensor) -> tuple[Tensor, Tensor]:
    kept = torch.empty(logits.shape, dtype=torch.bool, device=logits.device)
    return kept, torch.empty_like(logits, memory_format=torch.contiguous_format)


def _keep(logits, kept, share, products, images, before, count) -> None:
    if not products.numel():
        return
    length = None if images is None else images.shape[1]
    launch = _launch(products.device, products.shape, length, count, before is not None)
    kept, before = (None if t is None else t.view(torch.int8) for t in (kept, before))
    # `launch_on_device` would take the device of the first result, which may be None.
    with on_device(products.device):
        launch(
            current_stream(products.device), logits, kept, share, aligned(products), images, before
        )


@lru_cache(maxsize=4096)
def _launch(device, shape, length, count, follows) -> Launch:
    batch, classes = shape
    length = length or 1
    values = dict(
        CLASSES=classes, KEEP=count or 0, LENGTH=length, BLOCK=triton.next_power_of_2(classes),
        LENGTH_BLOCK=triton.next_power_of_2(length),
    )  # fmt: skip
    return Launch(keep_kernel, batch, values, warps=4)
