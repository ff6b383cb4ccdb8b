"""Layout in memory of the maps of a contextual network."""

import torch
from torch import Tensor

from mmctx.compat.exporting import is_exporting


def channels_last_on_cpu(x: Tensor) -> Tensor:
    """A map (B, C, H, W) channels last in memory if it is on a CPU, otherwise as it is.

    Contextual convolutions gather whole pixels, and PyTorch's own convolutions are faster in this
    layout too. A network whose layers differ in layout copies maps in between.

    A map that an exporter records is left alone, as a copy would become part of the program.
    """
    if x.device.type != 'cpu' or x.dim() != 4 or is_exporting():
        return x
    return x.contiguous(memory_format=torch.channels_last)
