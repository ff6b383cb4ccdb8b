"""Linear layer, norm and ReLU on vectors: the step that classifying, merging and Δw share."""

from collections.abc import Iterator

import torch.nn as nn
import torch.nn.functional as F
from torch import Tensor

from mmctx.errors import UserError
from mmctx.ops.contextualizing import (
    infer_vector_step,
    train_batch_norm_step,
    trains_batch_norm_in_kernels,
)
from mmctx.ops.predicting import infers_in_kernels


class VectorStep(nn.Sequential):
    """Linear layer, norm and ReLU, run by `run_vector_step`."""

    def forward(self, x: Tensor) -> Tensor:
        """Run the step on vectors, (N, C_in)."""
        return run_vector_step(self, x)


def run_vector_step(step: nn.Sequential, x: Tensor) -> Tensor:
    """The first three layers of `step`, which are `nn.Linear`, a norm and ReLU, in few kernels.

    Args:
        step (nn.Sequential): Layers that begin with these three.
        x (Tensor): Vectors, (N, C_in), of any floating-point type.

    Returns:
        Tensor: Results, (N, C_out), in the type of the parameters.

    Raises:
        UserError: A batch norm trains, and there is one vector.
    """
    fc, norm = step[0], step[1]
    x = x.to(fc.weight.dtype)
    if infers_in_kernels(x, norm):
        return infer_vector_step(x, fc.weight, fc.bias, norm)
    if isinstance(norm, nn.LayerNorm):
        hidden = F.linear(x, fc.weight, fc.bias)
        shape, eps = norm.normalized_shape, norm.eps
        return F.layer_norm(hidden, shape, norm.weight, norm.bias, eps).relu_()
    if isinstance(norm, nn.BatchNorm1d) and norm.training and len(x) == 1:
        raise UserError("batch norm cannot train on one image: pass norm='LN' to the backbone")
    if trains_batch_norm_in_kernels(x, norm):
        return train_batch_norm_step(x, fc.weight, fc.bias, norm)
    hidden = F.linear(x, fc.weight, fc.bias)
    # Called as a module, because BatchNorm may have been replaced by SyncBatchNorm.
    return norm(hidden).relu_()


def names_of_training_norms(model: nn.Module) -> Iterator[str]:
    """Names of the batch norms over vectors that train, which one image is too few for."""
    for name, module in model.named_modules():
        if isinstance(module, nn.BatchNorm1d) and module.training:
            yield name
