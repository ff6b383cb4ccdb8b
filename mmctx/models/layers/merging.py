"""Merging: how the classes that a stage keeps become the prior of the next one (Sec. 3.2)."""

import torch
import torch.nn as nn
from mmpretrain.models.utils import build_norm_layer
from torch import Tensor

from mmctx.compat.exporting import is_exporting
from mmctx.errors import UserError

from .contextual_conv import VECTOR_NORMS
from .vector_step import VectorStep

LEAST_HIDDEN = 128


class Merging(nn.ModuleDict):
    """FC, LayerNorm and ReLU of each kept class, their mean, and the same once more.

    The paper's mean is the default. Where many classes are kept it hardly depends on which ones;
    the options let more of their order through. They change no shape but `hidden`'s.

    Args:
        embed_dims (int): Width d of the class embeddings.
        prior_channels (int): Length P of the prior.
        hidden (int, optional): Width that embeddings are merged at. Defaults to None, d/4 or 128,
            whichever is more.
        temperature (float, optional): The mean is weighted by the softmax of the kept classes'
            logits s/τ, divided by this; the higher it is, the closer to the plain mean. Gradients
            reach the scores through the weights. Defaults to None, the plain mean.
        normalize (bool): Scale each embedding to length √d first, at which the FC's bias no longer
            outweighs it; embeddings start at a fiftieth of that. Defaults to False.

    Raises:
        UserError: `hidden` or `temperature` is not positive.
    """

    def __init__(
        self,
        embed_dims: int,
        prior_channels: int,
        hidden: int | None = None,
        temperature: float | None = None,
        normalize: bool = False,
    ):
        for name, value in (('hidden', hidden), ('temperature', temperature)):
            if value is not None and not value > 0:
                raise UserError(f'{name} of merging should be more than 0, got {value!r}')
        hidden = max(embed_dims // 4, LEAST_HIDDEN) if hidden is None else hidden
        super().__init__(dict(each=_step(embed_dims, hidden), joint=_step(hidden, prior_channels)))
        self.temperature = temperature
        self.normalize = normalize

    def forward(self, embeddings: Tensor, top: Tensor, logits: Tensor) -> Tensor:
        """Merge the kept classes of each image.

        Args:
            embeddings (Tensor): Of all classes, (N₁, d).
            top (Tensor): Numbers of the kept classes, (B, N).
            logits (Tensor): s/τ of all classes, (B, N₁).

        Returns:
            Tensor: The prior, (B, P).
        """
        weights = None
        if self.temperature is not None:
            weights = (logits.gather(1, top) / self.temperature).softmax(1)  # [B, N]
        # What is exported takes one way, for batches of any size.
        if not is_exporting() and top.numel() < len(embeddings):
            each = self._each(embeddings[top.flatten()]).unflatten(0, top.shape)  # [B, N, hidden]
            if weights is None:
                merged = each.mean(1)
            else:
                merged = (weights.to(each.dtype)[..., None] * each).sum(1)
        else:
            # Each class once rather than once an image: a mean over a set is a product.
            each = self._each(embeddings)  # [N₁, hidden]
            share = torch.zeros_like(logits, dtype=each.dtype)  # [B, N₁]
            if weights is None:
                # Divided afterwards: where it is traced, a length is no plain number to scatter.
                merged = share.scatter_(1, top, 1.0) @ each / top.shape[1]
            else:
                merged = share.scatter(1, top, weights.to(each.dtype)) @ each
        # Called as a module, so that hooks see the prior.
        return self['joint'](merged)

    def merge_all(self, embeddings: Tensor) -> Tensor:
        """Prior of all classes alike, (1, P), from their embeddings, (N₁, d)."""
        return self['joint'](self._each(embeddings).mean(0, keepdim=True))

    def _each(self, embeddings: Tensor) -> Tensor:
        if self.normalize:
            embeddings = nn.functional.normalize(embeddings, dim=1) * embeddings.shape[1] ** 0.5
        return self['each'](embeddings)


def _step(in_features: int, out_features: int) -> VectorStep:
    return VectorStep(
        nn.Linear(in_features, out_features),
        build_norm_layer(VECTOR_NORMS['LN'], out_features),
        nn.ReLU(inplace=True),
    )
