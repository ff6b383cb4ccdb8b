"""Weighted sums of rows by `embedding_bag`, and what their gradients need.

A bilinear sample is a bag of four rows. Its transpose, which adds gradients back to the rows,
consists of bags as well, once the samples are sorted by the row that they read. No two threads ever
add to the same place, so the sums do not depend on the number of threads.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

CORNERS = 4


def blend(rows: Tensor, indices: Tensor, weights: Tensor, starts: Tensor) -> Tensor:
    """Weighted sum of rows (R, C) for each bag n, indices[starts[n]:starts[n + 1]] -> (N, C)."""
    # Detached, because embedding_bag prepares its own backward if the rows require gradients.
    return F.embedding_bag(
        indices, rows.detach(), starts, mode='sum', per_sample_weights=weights.detach(),
        include_last_offset=True,
    )  # fmt: skip


def sample_starts(indices: Tensor, samples: int) -> Tensor:
    """Starts for `blend` of the bags that hold the four corners of each sample."""
    return torch.arange(0, CORNERS * samples + 1, CORNERS, device=indices.device)


def transpose_samples(
    indices: Tensor, corners: Tensor, row_count: int
) -> tuple[Tensor, Tensor, Tensor]:
    """Sort samples by the row that they read.

    Args:
        indices (Tensor): Rows that T groups of N samples read, (T, N, 4).
        corners (Tensor): Weights of these rows, (T, N, 4).
        row_count (int): Number of rows, R.

    Returns:
        tuple[Tensor, Tensor, Tensor]: For each group the entries in order of their rows: the sample
        of each entry, (T, 4N), its weight, (T, 4N), and the start of each row's entries,
        (T, R + 1).
    """
    groups, samples, _ = indices.shape
    group = torch.arange(groups, device=indices.device)[:, None]
    keys = (indices.flatten(1) + group * row_count).flatten()
    order = keys.sort(stable=True).indices
    ends = keys.bincount(minlength=groups * row_count).view(groups, row_count).cumsum(1)
    sources = (order >> 2).view(groups, CORNERS * samples) - group * samples
    return sources, corners.flatten()[order].view_as(sources), F.pad(ends, (1, 0))


def corner_gradients(grad: Tensor, rows: Tensor, indices: Tensor, starts: Tensor) -> Tensor:
    """Inner products of gradients (N, C) with the rows that each sample reads -> (N, 4)."""
    bags = torch.arange(len(indices), device=indices.device).repeat_interleave(CORNERS)
    # Autograd calls this function for embedding_bag, but does not work inside an operator.
    return torch.ops.aten._embedding_bag_per_sample_weights_backward(
        grad, rows, indices.flatten(), starts[:-1], bags, 0
    ).view(-1, CORNERS)
