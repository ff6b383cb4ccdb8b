"""Weighted sums of rows by `embedding_bag`, and what their gradients need.

A bilinear sample is a bag of four rows. Its transpose, which adds gradients back to the rows,
consists of bags as well, once the samples are sorted by the row that they read. No two threads ever
add to the same place, so the sums do not depend on the number of threads.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

CORNERS = 4


def first_rows(images: Tensor) -> Tensor:
    """First row of each image, (B, R, C), among the rows of all, (B,), int32."""
    batch, rows, _ = images.shape
    return torch.arange(batch, dtype=torch.int32, device=images.device) * rows


def weighted_rows(rows: Tensor, indices: Tensor, weights: Tensor, starts: Tensor) -> Tensor:
    """Weighted sum of rows (R, C) for each bag n, indices[starts[n]:starts[n + 1]] -> (N, C)."""
    # Detached, because embedding_bag prepares its own backward if either requires gradients.
    return torch.embedding_bag(
        rows.detach(), indices.flatten().to(starts.dtype), starts, mode=0,
        per_sample_weights=weights.detach().flatten(), include_last_offset=True,
    )[0]  # fmt: skip


def even_starts(bags: int, size: int, device: torch.device) -> Tensor:
    """Starts for `weighted_rows` of bags that hold `size` entries each, (N + 1,)."""
    dtype = torch.int32 if bags * size < 2**31 else torch.int64
    return torch.arange(0, bags * size + 1, size, dtype=dtype, device=device)


def transpose_samples(
    indices: Tensor, corners: Tensor, row_count: int
) -> list[tuple[Tensor, Tensor, Tensor]]:
    """Sort samples by the row that they read.

    Args:
        indices (Tensor): Rows that T groups of N samples read, (T, N, 4).
        corners (Tensor): Weights of these rows, (T, N, 4).
        row_count (int): Number of rows, R.

    Returns:
        list[tuple[Tensor, Tensor, Tensor]]: For each group what `weighted_rows` takes to add to
        rows instead of reading them: in order of their rows the samples that read them, (4N,),
        their weights, (4N,), and the start of each row's entries, (R + 1,).
    """
    groups, samples, _ = indices.shape
    group = torch.arange(groups, device=indices.device)[:, None]
    keys = (indices.flatten(1) + group * row_count).flatten()
    order = keys.sort(stable=True).indices
    counts = keys.bincount(minlength=groups * row_count).view(groups, row_count)
    starts = F.pad(counts.cumsum(1), (1, 0))
    sources = (order >> 2).view(groups, CORNERS * samples) - group * samples
    return list(zip(sources, corners.flatten()[order].view_as(sources), starts))


def corner_gradients(grad: Tensor, rows: Tensor, indices: Tensor) -> Tensor:
    """Inner products of gradients (N, C) with the rows that samples (N, 4) read -> (N, 4)."""
    samples = torch.arange(len(indices), dtype=indices.dtype, device=indices.device)
    samples = samples.repeat_interleave(CORNERS)
    # Autograd calls this function for embedding_bag, but does not work inside an operator. It reads
    # no starts where each entry's sample is given.
    starts, mode = samples[:0], 0
    return torch.ops.aten._embedding_bag_per_sample_weights_backward(
        grad, rows, indices.flatten(), starts, samples, mode
    ).view(indices.shape)
