"""Contextual convolutions inside vanilla residual blocks, whose own code stays as it is."""

import torch.nn as nn
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from mmctx.registry import WEIGHT_INITIALIZERS

from .contextual_conv import ContextualConv2d
from .prior import PriorConv, using_prior


def contextual_like(conv: nn.Conv2d, layer: type[nn.Conv2d], **context) -> nn.Conv2d:
    """A contextual convolution of the shape of a vanilla one, with the vanilla one's parameters.

    Args:
        conv (nn.Conv2d): The vanilla convolution.
        layer (type): `ContextualConv2d` or another layer that extends `nn.Conv2d`.
        **context: The layer's contextual arguments.

    Returns:
        nn.Conv2d: On the device of the vanilla one, of its type and in its mode.
    """
    contextual = layer(
        conv.in_channels,
        conv.out_channels,
        conv.kernel_size,
        conv.stride,
        conv.padding,
        conv.dilation,
        conv.groups,
        conv.bias is not None,
        **context,
    )
    contextual.to(conv.weight).train(conv.training)
    # The very parameters, as an optimizer may know them already.
    contextual.weight, contextual.bias = conv.weight, conv.bias
    return contextual


def make_contextual(
    block: nn.Module,
    conv_name: str,
    layer: type[nn.Conv2d] = ContextualConv2d,
    **context,
) -> None:
    """Replace a block's convolution by a contextual one of the same shape and parameter names.

    Args:
        block (nn.Module): A residual block with OpenMMLab's `with_cp` (gradient checkpointing),
            changed in place.
        conv_name (str): Attribute of the block that holds its `nn.Conv2d`.
        layer (type): Class of the new convolution. Defaults to `ContextualConv2d`.
        **context: Arguments of `layer` beyond those of `nn.Conv2d`.
    """
    setattr(block, conv_name, contextual_like(getattr(block, conv_name), layer, **context))
    # `forward_contextual_block` checkpoints instead: when the block recomputed itself, the prior
    # would be gone.
    block.context_cp, block.with_cp = block.with_cp, False


def forward_contextual_block(
    block: nn.Module, conv_name: str, x: Tensor, prior: Tensor | None
) -> Tensor:
    """Run a residual block, handing the prior to its convolution if that is contextual.

    Args:
        block (nn.Module): A residual block.
        conv_name (str): Attribute of the block that holds the convolution, dotted if a module
            wraps it.
        x (Tensor): Input of the block, (B, C, H, W).
        prior (Tensor, optional): Prior of each image, (B, P); a vanilla block does not use it.

    Returns:
        Tensor: Output of the block.
    """
    conv = block.get_submodule(conv_name)
    if not isinstance(conv, PriorConv):
        return block(x)

    def run(x: Tensor, prior: Tensor) -> Tensor:
        with using_prior(prior):
            return block(x)

    if block.context_cp and x.requires_grad:
        return checkpoint(run, x, prior, use_reentrant=False)
    return run(x, prior)


@WEIGHT_INITIALIZERS.register_module()
class ZeroPredictors:
    """Initializer that zeroes the last layer of every contextual predictor of a module.

    mmengine's initializers for `Conv2d` and `Linear` reach those layers too.
    """

    def __call__(self, module: nn.Module) -> None:
        for layer in module.modules():
            if isinstance(layer, ContextualConv2d):
                layer.zero_predictors()


def with_zeroed_predictors(init_cfg: dict | list[dict] | None) -> dict | list[dict]:
    """Add `ZeroPredictors` to an init_cfg, unless it only loads pretrained weights.

    In that case no other initializer overwrites the zeros, and base classes expect that dict alone.
    """
    if isinstance(init_cfg, dict) and init_cfg.get('type') == 'Pretrained':
        return init_cfg
    init_cfg = init_cfg if isinstance(init_cfg, list) else [init_cfg] if init_cfg else []
    return [*init_cfg, dict(type='mmctx.ZeroPredictors')]
