"""A network in eval mode for a while."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch.nn as nn


@contextmanager
def eval_mode(network: nn.Module) -> Iterator[None]:
    """Context in which a network is in eval mode; each module then has its own mode back."""
    modes = {module: module.training for module in network.modules()}
    network.eval()
    try:
        yield
    finally:
        for module, mode in modes.items():
            module.training = mode
