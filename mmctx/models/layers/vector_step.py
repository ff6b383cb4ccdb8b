"""FC, norm and ReLU of vectors, the step that all small networks of the context are made of."""

from collections.abc import Iterator

import torch.nn as nn
import torch.nn.functional as F
from torch import Tensor


def run_vector_step(step: nn.Sequential, x: Tensor) -> Tensor:
    """The first three layers of `step`, which are `nn.Linear`, a norm and ReLU, in few kernels.

    Args:
        step (nn.Sequential): Begins with these layers.
        x (Tensor): (N, C_in), of any floating-point type.

    Returns:
        Tensor: (N, C_out), of the parameters' type.
    """
    fc, norm = step[0], step[1]
    hidden = F.linear(x.to(fc.weight.dtype), fc.weight, fc.bias)
    if isinstance(norm, nn.LayerNorm):
        shape, eps = norm.normalized_shape, norm.eps
        return F.layer_norm(hidden, shape, norm.weight, norm.bias, eps).relu_()
    # By the layer itself, as BatchNorm may have been replaced by one that synchronises.
    return norm(hidden).relu_()


def names_of_training_norms(model: nn.Module) -> Iterator[str]:
    """Names of the batch norms over vectors that train, which one image is too few for."""
    for name, module in model.named_modules():
        if isinstance(module, nn.BatchNorm1d) and module.training:
            yield name
