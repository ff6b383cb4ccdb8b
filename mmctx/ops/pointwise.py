"""Linear layers of the pixels of a map."""

import torch
import torch.nn.functional as F
from torch import Tensor

from mmctx.compat.exporting import is_exporting


def linear_of_pixels(x: Tensor, weight: Tensor) -> Tensor:
    """Apply a linear layer without bias to each pixel of a map.

    Args:
        x (Tensor): Map, (B, C, H, W); channels last in memory it is not copied.
        weight (Tensor): Weight, (C', C), of the type of x.

    Returns:
        Tensor: (B, H, W, C').
    """
    if x.device.type != 'cpu' or x.dtype != torch.float32 or is_exporting():
        return F.linear(x.permute(0, 2, 3, 1), weight)
    # On an AMD CPU oneDNN's convolutions are twice as fast as MKL's products. The dilation does not
    # change a kernel of one pixel, but with one thread PyTorch gives a 1×1 convolution of few
    # images to oneDNN only if it is dilated.
    return F.conv2d(x, weight[:, :, None, None], dilation=2).permute(0, 2, 3, 1)
