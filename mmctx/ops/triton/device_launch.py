"""Launches on the device that holds the tensors."""

from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor

from .launching import Launch, current_stream

_NO_SWITCH: AbstractContextManager = nullcontext()


def on_device(device: torch.device) -> AbstractContextManager:
    """Context in which a device is the current one; it does nothing if that is so already."""
    if device.type != 'cuda' or device.index == torch.cuda.current_device():
        return _NO_SWITCH
    return torch.cuda.device(device)


def launch_on_device(launch: Launch, first: Tensor, *others: Tensor | None) -> None:
    """Run a launch on the device of its first tensor."""
    with on_device(first.device):
        launch(current_stream(first.device), first, *others)


def aligned(tensor: Tensor) -> Tensor:
    """Make a tensor contiguous, at an address from which 16 bytes can be read at a time."""
    tensor = tensor.contiguous()
    return tensor if tensor.data_ptr() % 16 == 0 else tensor.clone()
