"""Matrix products in the type of their factors, whether or not autocast is on.

Autocast does not change a product that is written to a given tensor, and a context without it takes
the host longer.
"""

import torch
from torch import Tensor


def multiply(a: Tensor, b: Tensor) -> Tensor:
    """a @ b, (N, M), of (N, K) and (K, M)."""
    return torch.mm(a, b, out=a.new_empty(a.shape[0], b.shape[1]))


def multiply_onto(total: Tensor | None, a: Tensor, b: Tensor) -> Tensor:
    """Add `multiply` to a matrix in place, if there is one yet."""
    return multiply(a, b) if total is None else torch.addmm(total, a, b, out=total)
