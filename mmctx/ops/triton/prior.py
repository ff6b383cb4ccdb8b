"""The prior: mean of kept classes' hidden vectors, linear layer, norm and ReLU, by one kernel.

Sizes: B images, N classes of which K are kept, hidden vectors of length H, priors of length P.
"""

import triton
import triton.language as tl

from .fixed_norm import normalized
from .launching import Launch

# Classes that a program adds at a time, and about how many weights it holds at a time.
ROWS, WEIGHTS = 64, 16384
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
    keep, width, length, EPS: tl.constexpr,
    ROWS: tl.constexpr, WIDTH_BLOCK: tl.constexpr, COLUMNS: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """A program owns an image."""
    image = tl.program_id(0).to(tl.int64)
    h = tl.arange(0, WIDTH_BLOCK)[None, :]
    total = tl.zeros([ROWS, WIDTH_BLOCK], tl.float32)
    # Unrolled, so that vectors of several steps are under way at once.
    for start in tl.range(0, keep, ROWS, loop_unroll_factor=2):
        k = start + tl.arange(0, ROWS)
        kept = tl.load(top + image * keep + k, k < keep, 0)[:, None]
        total += tl.load(hidden + kept * width + h, (k < keep)[:, None] & (h < width), 0)
    mean = tl.sum(total, 0, keep_dims=True) / keep
    if merged is not None:
        tl.store(merged + image * width + h, mean, h < width)
    for start in range(0, length, COLUMNS):
        p = start + tl.arange(0, COLUMNS)
        w_at = weight + p[:, None] * width + h
        w = tl.load(w_at, (p < length)[:, None] & (h < width), 0).to(tl.float32)
        y = tl.sum(w * mean, 1) + tl.load(bias + p, p < length, 0).to(tl.float32)
        tl.store(raw + image * length + p, y, p < length)
    # A norm takes the whole row, which other threads have written.
    tl.debug_barrier()
    p = tl.arange(0, BLOCK)[None, :]
    exists = p < length
    x = tl.load(raw + image * length + p, exists, 0)
    y = normalized(x, scale, shift, None, None, p, exists, EPS, length)
    tl.store(prior + image * length + p, y.to(prior.dtype.element_ty), exists)


def prior_launch(batch: int, keep: int, hidden: int, length: int, eps: float) -> Launch:
    """Launch for B images, K kept classes, hidden vectors and priors of lengths H and P."""
    hidden_block, block = (triton.next_power_of_2(n) for n in (hidden, length))
    values = dict(
        keep=keep, width=hidden, length=length, EPS=eps, WIDTH_BLOCK=hidden_block, BLOCK=block,
        ROWS=max(min(ROWS, WEIGHTS // hidden_block), 1),
        COLUMNS=max(min(block, WEIGHTS // hidden_block), 1),
    )  # fmt: skip
    return Launch(prior_kernel, batch, values, warps=8)
