"""Weighted sums of rows by `embedding_bag`, and what their gradients need.

A bilinear sample is a bag of four rows. Its transpose, which spreads gradients back over the rows,
is made of bags too, once the samples are sorted by the row that they read: no two threads ever add
to one place, so the sums do not depend on their number.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

CORNERS = 4


def blend(rows: Tensor, indices: Tensor, weights: Tensor, starts: Tensor) -> Tensor:
    """Bag n: the sum of rows (R, C) at indices[starts[n]:starts[n + 1]] by weights -> (N, C)."""
    # Detached, as embedding_bag prepares for its own backward wherever the rows require gradients.
    return F.embedding_bag(
        indices, rows.detach(), starts, mode='sum', per_sample_weights=weights.detach(),
        include_last_offset=True,
    )  # fmt: skip


def sample_starts(indices: Tensor, samples: int) -> Tensor:
    """Where the bags of `blend` start that hold the four corners of each sample."""
    return torch.arange(0, CORNERS * samples + 1, CORNERS, device=indices.device)


def transpose_samples(
    indices: Tensor, corners: Tensor, row_count: int
) -> tuple[Tensor, Tensor, Tensor]:
    """Sort samples by the row that they read.

    Args:
        indices, corners (Tensor): Of T lots of N samples, (T, N, 4).
        row_count (int): Rows R.

    Returns:
        tuple[Tensor, Tensor, Tensor]: For each lot the sample behind each entry, (T, 4N), its
        weight, (T, 4N), and where the entries of each row start, (T, R + 1).
    """
    lots, samples, _ = indices.shape
    lot = torch.arange(lots, device=indices.device)[:, None]
    keys = (indices.flatten(1) + lot * row_count).flatten()
    order = keys.sort(stable=True).indices
    ends = keys.bincount(minlength=lots * row_count).view(lots, row_count).cumsum(1)
    sources = (order >> 2).view(lots, CORNERS * samples) - lot * samples
    return sources, corners.flatten()[order].view_as(sources), F.pad(ends, (1, 0))


def corner_gradients(grad: Tensor, rows: Tensor, indices: Tensor, starts: Tensor) -> Tensor:
    """Inner products of gradients (N, C) with the rows that each sample reads -> (N, 4)."""
    bags = torch.arange(len(indices), device=indices.device).repeat_interleave(CORNERS)
    # What autograd calls for embedding_bag; autograd itself is not at hand inside an operator.
    return torch.ops.aten._embedding_bag_per_sample_weights_backward(
        grad, rows, indices.flatten(), starts[:-1], bags, 0
    ).view(-1, CORNERS)
