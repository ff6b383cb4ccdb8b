"""Priors that a network could not make itself: controls of what a prior is worth."""

from contextlib import contextmanager

import torch
import torch.nn as nn
from torch import Tensor

from mmctx.models.backbones import ContextualResNet_CIFAR
from mmctx.models.layers import Contextualizing
from mmctx.models.layers.merging import Merging
from mmctx.registry import MODELS


class _Told(Contextualizing):
    """Contextualizing that is told the labels before each forward pass.

    Attributes:
        target (Tensor): One-hot labels, (B, N₁).
    """

    target: Tensor

    def label(self) -> Tensor:
        """Numbers of the true classes, (B, 1)."""
        return self.target.argmax(1, keepdim=True)


class TrueClassKept(_Told):
    """Keeps the true class, too, in the place of the last one where it would be lost."""

    def keep(self, logits: Tensor, stage: int) -> Tensor:
        """See `Contextualizing.keep`."""
        top = logits.detach().topk(self.considered[stage], dim=1).indices
        label = self.label()
        there = (top == label).any(1, keepdim=True)
        return torch.cat([top[:, :-1], torch.where(there, top[:, -1:], label)], dim=1)


class TrueClassAlone(_Told):
    """Keeps nothing but the true class: a leak, on purpose."""

    def keep(self, logits: Tensor, stage: int) -> Tensor:
        """See `Contextualizing.keep`."""
        return self.label()


@MODELS.register_module()
class TrueClassKeptResNet(ContextualResNet_CIFAR):
    """Network with `TrueClassKept`."""

    contextualizing_type = TrueClassKept


@MODELS.register_module()
class TrueClassAloneResNet(ContextualResNet_CIFAR):
    """Network with `TrueClassAlone`."""

    contextualizing_type = TrueClassAlone


def tell(model: nn.Module, target: Tensor) -> None:
    """Hand one-hot labels, (B, N₁), to a network that wants them; nothing else happens."""
    for module in model.modules():
        if isinstance(module, _Told):
            module.target = target


@contextmanager
def priors_of_another_image(model: nn.Module):
    """Inside, each image of a batch is given the priors that were made for the one before it."""
    hooks = [
        module.register_forward_hook(lambda module, args, prior: prior.roll(1, 0))
        for module in model.modules()
        if isinstance(module, Merging)
    ]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()
