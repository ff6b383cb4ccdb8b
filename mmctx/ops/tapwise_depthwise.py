"""The depthwise contextual convolution in plain PyTorch: fast on a CPU, with little memory.

A tap is a weighted sum of four channels-last rows of the image, which `embedding_bag` gathers and
blends in one pass, followed by a multiply-add with the tap's kernel. Of few pixels, such as those
of a single image, calls take longer than sums: a table then holds the images times the kernels of
many taps, and one call adds up rows of the table. Backward does the same as the first from output
pixels to the image, and gets the gradients of the image and of the kernel without storing samples
or computing them again.
"""

import torch
from torch import Tensor

from .bags import (
    CORNERS,
    corner_gradients,
    even_starts,
    first_rows,
    transpose_samples,
    weighted_rows,
)
from .operator_pair import empty_gradients, operator_pair

# Most values of a table, which should stay in the cache
TABLE_VALUES = 2**20
# With fewer taps than these a table takes longer than it saves.
FEWEST_TAPS = 4
# Most entries that the backward pass sorts at once, which limits its memory
SORTED_AT_ONCE = 2**17


def taps_of_table(values: int) -> int:
    """Number of taps that a table of so many values of x holds; 0 if tables take too long."""
    taps = TABLE_VALUES // max(values, 1)
    return taps if taps >= FEWEST_TAPS else 0


def sampled_depthwise_conv(x: Tensor, indices: Tensor, corners: Tensor, kernels: Tensor) -> Tensor:
    """Depthwise convolution of bilinear samples.

    Args:
        x (Tensor): Images, channels last, (B, R, C), R pixels.
        indices (Tensor): Pixels that each tap blends, (B, P, K, 4), int32, P output pixels.
        corners (Tensor): Their weights, the mask included, (B, P, K, 4).
        kernels (Tensor): Kernel of each image and tap, (B, K, C).

    Returns:
        Tensor: (B, P, C).
    """
    if taps_of_table(x.numel()):
        return _add_rows_of_tables(x, indices, corners, kernels)
    batch, pixels, *_ = indices.shape
    out = x.new_zeros(batch, pixels, x.shape[2])
    rows = x.flatten(0, 1)
    starts = even_starts(batch * pixels, CORNERS, x.device)
    for *samples, kernel in zip(*_by_tap(x, indices, corners), kernels.unbind(1)):
        out.addcmul_(weighted_rows(rows, *samples, starts).view_as(out), kernel[:, None])
    return out


def _by_tap(x: Tensor, indices: Tensor, corners: Tensor) -> tuple[Tensor, Tensor]:
    """Indices among the rows of all images and weights of the samples of each tap, (K, B·P, 4)."""
    indices = indices.permute(2, 0, 1, 3) + first_rows(x)[:, None, None]
    return indices.flatten(1, 2), corners.permute(2, 0, 1, 3).flatten(1, 2)


def _add_rows_of_tables(x: Tensor, indices: Tensor, corners: Tensor, kernels: Tensor) -> Tensor:
    batch, pixels, taps, _ = indices.shape
    at_once = min(taps_of_table(x.numel()), taps)
    # All taps of a pixel lie together, because a thread that is given some pixels, first to fill
    # the table and then to read it, mostly finds what it wrote itself.
    table = x.new_empty(batch, x.shape[1], at_once, x.shape[2])
    places = torch.arange(taps, dtype=torch.int32, device=x.device) % at_once
    first = first_rows(x)[:, None, None] * at_once + places.repeat_interleave(CORNERS)
    rows = torch.add(first, indices.flatten(2), alpha=at_once)  # [B, P, K·4]
    weights = corners.flatten(2)
    out = x.new_zeros(batch * pixels, x.shape[2])
    for i in range(0, taps, at_once):
        some = kernels[:, None, i : i + at_once]  # [B, 1, g, C]
        torch.mul(x[:, :, None], some, out=table[:, :, : some.shape[2]])
        read = slice(CORNERS * i, CORNERS * (i + some.shape[2]))
        starts = even_starts(batch * pixels, read.stop - read.start, x.device)
        out += weighted_rows(table.flatten(0, 2), rows[..., read], weights[..., read], starts)
    return out.view(batch, pixels, x.shape[2])


def sampled_depthwise_conv_backward(
    grad: Tensor,
    x: Tensor,
    indices: Tensor,
    corners: Tensor,
    kernels: Tensor,
    needed: list[bool],
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of `sampled_depthwise_conv` by x, corners and kernels; empty if not needed."""
    needs_x, needs_corners, needs_kernels = needed
    grad_x, grad_corners, grad_kernels = grads = empty_gradients((x, corners, kernels), needed)
    batch, pixels, taps, _ = indices.shape
    indices, corners = _by_tap(x, indices, corners)  # [K, B·P, 4]
    rows, grad_rows = x.flatten(0, 1), grad.flatten(0, 1)
    if needs_x or needs_kernels:
        grad_x.zero_()
        at_once = max(SORTED_AT_ONCE // max(CORNERS * batch * pixels, 1), 1)
        for first in range(0, taps, at_once):
            some = slice(first, first + at_once)
            transposed = transpose_samples(indices[some], corners[some], len(rows))
            for tap, entries in enumerate(transposed, first):
                spread = weighted_rows(grad_rows, *entries).view_as(x)
                if needs_x:
                    grad_x.addcmul_(spread, kernels[:, tap, None])
                if needs_kernels:
                    torch.sum(spread.mul_(x), 1, out=grad_kernels[:, tap])
    if needs_corners:
        for tap, tap_indices in enumerate(indices):
            grad_samples = (grad * kernels[:, tap, None]).flatten(0, 1)
            products = corner_gradients(grad_samples, rows, tap_indices)
            grad_corners[:, :, tap] = products.view(batch, pixels, CORNERS)
    return grads


def _empty_output(x, indices, corners, kernels):
    return x.new_empty(x.shape[0], indices.shape[1], x.shape[2])


depthwise_conv = operator_pair(
    'sampled_depthwise_conv',
    'Tensor x, Tensor indices, Tensor corners, Tensor kernels',
    sampled_depthwise_conv,
    sampled_depthwise_conv_backward,
    _empty_output,
)
