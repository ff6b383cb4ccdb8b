"""Launches on the device that holds the tensors."""

import torch
from torch import Tensor

from .launching import Launch, current_stream


def launch_on_device(launch: Launch, first: Tensor, *others: Tensor | None) -> None:
    """Run a launch where its first tensor is; a switch of devices only where one is needed."""
    device = first.device
    if device.type != 'cuda' or device.index == torch.cuda.current_device():
        launch(current_stream(device), first, *others)
        return
    with torch.cuda.device(device):
        launch(current_stream(device), first, *others)


def aligned(tensor: Tensor) -> Tensor:
    """The tensor, contiguous and on an address that may be read 16 bytes at a time."""
    tensor = tensor.contiguous()
    return tensor if tensor.data_ptr() % 16 == 0 else tensor.clone()
