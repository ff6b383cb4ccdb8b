"""Networks without kinks, in which rounding changes gradients no more than it changes outputs.

If rounding moves a value across a kink, the gradients of all earlier parameters jump, by as much in
float16 as in bfloat16. Examples are an offset across a whole pixel, a feature across ReLU's zero,
and a class that is no longer considered. Gradients of single parameters of such a network cannot be
compared.
"""

import torch
import torch.nn as nn
from torch import Tensor
from torch.nn.modules.batchnorm import _BatchNorm

from mmctx.models.layers import ContextualConv2d, Contextualizing

# Δp in pixels: mean about halfway between two pixels, standard deviation far below the distance to
# the next one.
SAMPLING_OFFSET, SAMPLING_OFFSET_SHARE = 0.3, 0.005
# Bias of the norms before the ReLUs of the small networks, whose outputs then are above zero.
POSITIVE = 3.0
# Scale of residual branches and of Δw, at which 16 blocks pass a change on without amplifying it.
BRANCH_SCALE, WEIGHT_OFFSET_SHARE = 0.3, 0.1


def make_smooth(model: nn.Module, images: Tensor) -> nn.Module:
    """Remove the kinks from a backbone with random predictors, in place.

    Args:
        model (nn.Module): The backbone, in evaluation mode, on the device of the images.
        images (Tensor): Images, (B, 3, H, W), from which the statistics of BatchNorm are taken.

    Returns:
        nn.Module: The backbone.
    """
    with torch.no_grad():
        for name, module in [*model.named_modules()]:
            if isinstance(module, ContextualConv2d):
                _calm_predictors(module)
            elif isinstance(module, Contextualizing):
                module.considered = (module.embeddings.num_embeddings,) * len(module.considered)
            elif isinstance(module, nn.Sequential):
                # FC, norm and ReLU; the layers apply the ReLU without calling the module.
                if len(module) > 2 and isinstance(module[2], nn.ReLU):
                    module[1].bias.fill_(POSITIVE)
            elif isinstance(getattr(module, 'relu', None), nn.ReLU):
                module.relu = nn.GELU()
            if isinstance(getattr(module, 'gamma', None), nn.Parameter):
                module.gamma.fill_(BRANCH_SCALE)
            if name.endswith('.bn3'):
                module.weight.fill_(BRANCH_SCALE)
        _fit_batch_norms(model, images)
    return model


def _calm_predictors(conv: ContextualConv2d) -> None:
    if conv.sampling_offset_predictor is not None:
        conv.sampling_offset_predictor[-1].weight.mul_(SAMPLING_OFFSET_SHARE)
        conv.sampling_offset_predictor[-1].bias.fill_(SAMPLING_OFFSET)
    if conv.weight_offset_predictor is not None:
        conv.weight_offset_predictor[-1].weight.mul_(WEIGHT_OFFSET_SHARE)


def _fit_batch_norms(model: nn.Module, images: Tensor) -> None:
    """Fit the statistics of BatchNorm, without which features shrink from block to block."""
    for module in model.modules():
        if isinstance(module, _BatchNorm):
            module.momentum = 1.0
            module.train()
    model(images)
    model.eval()
