"""What autocast would do to a map, done once for all that read it."""

from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor


def autocast_input(x: Tensor) -> Tensor:
    """Cast x to the type that autocast, if it is on, gives a convolution's input."""
    device = x.device.type
    if device == 'meta' or not torch.is_autocast_enabled(device) or x.dtype == torch.float64:
        return x
    return x.to(torch.get_autocast_dtype(device))


def without_autocast(x: Tensor) -> AbstractContextManager:
    """Context without autocast on x's device; costs nothing if autocast is off already."""
    device = x.device.type
    if device == 'meta' or not torch.is_autocast_enabled(device):
        return nullcontext()
    return torch.autocast(device, enabled=False)
