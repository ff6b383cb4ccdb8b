"""A network in another mode for a while."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch.nn as nn


@contextmanager
def modes_kept(network: nn.Module) -> Iterator[None]:
    """Context after which each module of a network has its own mode again."""
    modes = {module: module.training for module in network.modules()}
    try:
        yield
    finally:
        for module, mode in modes.items():
            module.training = mode


@contextmanager
def eval_mode(network: nn.Module) -> Iterator[None]:
    """Context in which a network is in eval mode; each module then has its own mode back."""
    with modes_kept(network):
        network.eval()
        yield
