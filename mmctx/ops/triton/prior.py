"""The prior: mean of kept classes' hidden vectors, linear layer, norm and ReLU, by one kernel.

Sizes: B images, N classes of which K are kept, hidden vectors of length H, priors of length P.
"""

from functools import lru_cache

import torch
import triton
import triton.language as tl
from torch import Tensor

from .device_launch import aligned, launch_on_device
from .fixed_norm import normalized
from .launching import Launch

# Classes that a program adds at a time, and about how many weights it holds at a time.
ROWS, WEIGHTS = 64, 8192
# Parameters may be slices of a larger buffer, so their addresses may have any alignment.
VECTORS = ['bias', 'scale', 'shift']


@triton.jit(do_not_specialize_on_alignment=VECTORS)
def prior_kernel(
    prior,  # [B, P]
    raw,  # [B, P] results before the norm
    merged,  # [B, H] means, or None
    hidden,  # [N, H]
    top,  # [B, K] numbers of the kept classes
    weight,  # [P, H]
    bias, scale, shift,  # [P]
    KEEP: tl.constexpr, EPS: tl.constexpr, HIDDEN: tl.constexpr, LENGTH: tl.constexpr,
    ROWS: tl.constexpr, HIDDEN_BLOCK: tl.constexpr, COLUMNS: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """A program owns an image."""
    image = tl.program_id(0).to(tl.int64)
    h = tl.arange(0, HIDDEN_BLOCK)[None, :]
    total = tl.zeros([ROWS, HIDDEN_BLOCK], tl.float32)
    for start in range(0, KEEP, ROWS):
        k = start + tl.arange(0, ROWS)
        kept = tl.load(top + image * KEEP + k, k < KEEP, 0)[:, None]
        total += tl.load(hidden + kept * HIDDEN + h, (k < KEEP)[:, None] & (h < HIDDEN), 0)
    mean = tl.sum(total, 0, keep_dims=True) / KEEP
    if merged is not None:
        tl.store(merged + image * HIDDEN + h, mean, h < HIDDEN)
    for start in range(0, LENGTH, COLUMNS):
        p = start + tl.arange(0, COLUMNS)
        w_at = weight + p[:, None] * HIDDEN + h
        w = tl.load(w_at, (p < LENGTH)[:, None] & (h < HIDDEN), 0).to(tl.float32)
        y = tl.sum(w * mean, 1) + tl.load(bias + p, p < LENGTH, 0).to(tl.float32)
        tl.store(raw + image * LENGTH + p, y, p < LENGTH)
    # A norm takes the whole row, which other threads have written.
    tl.debug_barrier()
    p = tl.arange(0, BLOCK)[None, :]
    exists = p < LENGTH
    x = tl.load(raw + image * LENGTH + p, exists, 0)
    y = normalized(x, scale, shift, None, None, p, exists, EPS, LENGTH)
    tl.store(prior + image * LENGTH + p, y.to(prior.dtype.element_ty), exists)


def merge(
    hidden: Tensor,
    top: Tensor,
    weight: Tensor,
    bias: Tensor,
    scale: Tensor,
    shift: Tensor,
    eps: float,
    keep_merged: bool = False,
) -> tuple[Tensor, Tensor, Tensor | None]:
    """ReLU(LayerNorm(linear layer)) of the mean of the kept classes' hidden vectors.

    Args:
        hidden (Tensor): Hidden vectors of all classes, (N, H), in float32.
        top (Tensor): Numbers of the kept classes, (B, K), in int32.
        weight (Tensor): Weight of the layer, (P, H).
        bias, scale, shift (Tensor): Bias of the layer, scale and shift of the norm, (P,).
        eps (float): Epsilon of the norm.
        keep_merged (bool): Whether to return the means too. Defaults to False.

    Returns:
        tuple[Tensor, Tensor, Tensor | None]: Priors, (B, P), in the type of the parameters; the
        same before the norm, in float32; and, if wanted, the means, (B, H), in float32.
    """
    hidden, weight = aligned(hidden), aligned(weight)
    batch, length = len(top), len(weight)
    options = dict(dtype=torch.float32, device=top.device)
    prior = weight.new_empty(batch, length)
    raw = torch.empty(batch, length, **options)
    merged = torch.empty(batch, weight.shape[1], **options) if keep_merged else None
    if batch:
        launch = _launch(top.device, top.shape, weight.shape, eps, weight.dtype, keep_merged)
        launch_on_device(launch, prior, raw, merged, hidden, top, weight, bias, scale, shift)
    return prior, raw, merged


@lru_cache(maxsize=4096)
def _launch(device, top_shape, weight_shape, eps, dtype, keep_merged) -> Launch:
    batch, keep = top_shape
    length, hidden = weight_shape
    hidden_block, block = (triton.next_power_of_2(n) for n in (hidden, length))
    values = dict(
        KEEP=keep, EPS=eps, HIDDEN=hidden, LENGTH=length, HIDDEN_BLOCK=hidden_block, BLOCK=block,
        ROWS=max(min(ROWS, WEIGHTS // hidden_block), 1),
        COLUMNS=max(min(block, WEIGHTS // hidden_block), 1),
    )  # fmt: skip
    return Launch(prior_kernel, batch, values, warps=8)
