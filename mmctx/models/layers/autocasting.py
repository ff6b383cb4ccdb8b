"""What autocast would do to a map, done once for all that read it."""

from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor


def autocast_input(x: Tensor) -> Tensor:
    """x in the type that autocast, where it is on, would give a convolution's input."""
    device = x.device.type
    if device == 'meta' or not torch.is_autocast_enabled(device) or x.dtype == torch.float64:
        return x
    return x.to(torch.get_autocast_dtype(device))


def without_autocast(x: Tensor) -> AbstractContextManager:
    """A context without autocast on x's device; costs nothing where it is off already."""
    device = x.device.type
    if device == 'meta' or not torch.is_autocast_enabled(device):
        return nullcontext()
    return torch.autocast(device, enabled=False)
