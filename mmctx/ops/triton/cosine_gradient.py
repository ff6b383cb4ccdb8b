"""Gradients behind the logits of a stage: one kernel before the products with the directions, one
after them that also goes through the linear layer that made the image embeddings.

Sizes: B images, N classes, embeddings of length D, H channels before them.
"""

from functools import lru_cache

import torch
import triton
import triton.language as tl
from torch import Tensor

from .device_launch import aligned, launch_on_device
from .launching import Launch

# Images and channels of a program, and values of an embedding that it multiplies at a time.
ROWS, COLUMNS, INNER = 16, 64, 64


@triton.jit
def logits_backward_kernel(
    grad_products,  # [B, N]
    along,  # [B], what of the embedding is to be taken off its gradient
    grad,  # [B, N] of the logits
    logits,  # [B, N], −∞ where there is no gradient
    images,  # [B, D]
    CLASSES: tl.constexpr, LENGTH: tl.constexpr, BLOCK: tl.constexpr, LENGTH_BLOCK: tl.constexpr,
):  # fmt: skip
    """A program owns an image."""
    image = tl.program_id(0).to(tl.int64)
    d, n = tl.arange(0, LENGTH_BLOCK), tl.arange(0, BLOCK)
    embedding = tl.load(images + image * LENGTH + d, d < LENGTH, 0)
    length = tl.maximum(tl.sqrt(tl.sum(embedding * embedding, 0)), 1e-12)
    at = image * CLASSES + n
    x = tl.load(logits + at, n < CLASSES, -float('inf'))
    considered = x != -float('inf')
    g = tl.where(considered, tl.load(grad + at, considered, 0), 0) / length
    tl.store(grad_products + at, g, n < CLASSES)
    tl.store(along + image, tl.sum(g * tl.where(considered, x, 0), 0) / length)


@triton.jit(do_not_specialize=['count', 'blocks'])
def embedding_backward_kernel(
    grad_images,  # [B, D]
    grad_hidden,  # [B, H]
    grad,  # [B, D], products of the logits' gradients and the directions
    along,  # [B]
    images,  # [B, D]
    weight,  # [D, H]
    count, blocks,
    LENGTH: tl.constexpr, CHANNELS: tl.constexpr,
    ROWS: tl.constexpr, COLUMNS: tl.constexpr, INNER: tl.constexpr,
):  # fmt: skip
    """A program owns some channels of some images; the first of an image, its embedding as well."""
    tile, block = tl.program_id(0) // blocks, tl.program_id(0) % blocks
    row = (tile * ROWS + tl.arange(0, ROWS))[:, None]
    channel = (block * COLUMNS + tl.arange(0, COLUMNS))[None, :]
    part = tl.load(along + row, row < count, 0)
    total = tl.zeros([ROWS, COLUMNS], tl.float32)
    for start in range(0, LENGTH, INNER):
        d = start + tl.arange(0, INNER)
        at = row.to(tl.int64) * LENGTH + d[None, :]
        valid = (row < count) & (d < LENGTH)[None, :]
        g = tl.load(grad + at, valid, 0) - part * tl.load(images + at, valid, 0)
        tl.store(grad_images + at, g, valid & (block == 0))
        w_at = weight + d[:, None] * CHANNELS + channel
        w = tl.load(w_at, (d < LENGTH)[:, None] & (channel < CHANNELS), 0)
        total = tl.dot(g, w, total, input_precision='ieee')
    at = row.to(tl.int64) * CHANNELS + channel
    tl.store(grad_hidden + at, total, (row < count) & (channel < CHANNELS))


def logits_backward(grad: Tensor, logits: Tensor, images: Tensor) -> tuple[Tensor, Tensor]:
    """Gradients of the products of image embeddings and class directions.

    Args:
        grad (Tensor): Gradients of the logits, (B, N), in float32.
        logits (Tensor): Products over the length of the embeddings, (B, N), in float32; −∞ where a
            class was not considered.
        images (Tensor): Image embeddings, (B, D), in float32.

    Returns:
        tuple[Tensor, Tensor]: Gradients of the products, (B, N); by how much of each embedding its
        gradient is less than they say, as its length does not matter, (B,).
    """
    grad = aligned(grad)
    grad_products = torch.empty_like(logits)
    along = torch.empty(len(logits), dtype=torch.float32, device=logits.device)
    launch = _logits_launch(logits.device, logits.shape, images.shape[1])
    launch_on_device(launch, grad_products, along, grad, logits, images)
    return grad_products, along


def embedding_backward(
    grad: Tensor, along: Tensor, images: Tensor, weight: Tensor
) -> tuple[Tensor, Tensor]:
    """Gradients of image embeddings, and of the input of the linear layer that made them.

    Args:
        grad (Tensor): Gradients of the embeddings but for their length, (B, D), in float32.
        along (Tensor): See `logits_backward`, (B,).
        images (Tensor): Image embeddings, (B, D), in float32.
        weight (Tensor): Weight of the linear layer, (D, H), in float32.

    Returns:
        tuple[Tensor, Tensor]: Gradients of the embeddings, (B, D), and of the input, (B, H).
    """
    weight = aligned(weight)
    grad_images = torch.empty_like(images)
    grad_hidden = torch.empty(
        len(images), weight.shape[1], dtype=torch.float32, device=images.device
    )
    launch = _embedding_launch(images.device, images.shape, weight.shape[1])
    launch_on_device(launch, grad_images, grad_hidden, grad, along, images, weight)
    return grad_images, grad_hidden


@lru_cache(maxsize=4096)
def _logits_launch(device, shape, length) -> Launch:
    batch, classes = shape
    values = dict(
        CLASSES=classes, LENGTH=length, BLOCK=triton.next_power_of_2(classes),
        LENGTH_BLOCK=triton.next_power_of_2(length),
    )  # fmt: skip
    return Launch(logits_backward_kernel, batch, values)


@lru_cache(maxsize=4096)
def _embedding_launch(device, shape, channels) -> Launch:
    count, length = shape
    blocks = triton.cdiv(channels, COLUMNS)
    values = dict(
        count=count, blocks=blocks, LENGTH=length, CHANNELS=channels, ROWS=ROWS, COLUMNS=COLUMNS,
        INNER=INNER,
    )  # fmt: skip
    return Launch(embedding_backward_kernel, triton.cdiv(count, ROWS) * blocks, values)
