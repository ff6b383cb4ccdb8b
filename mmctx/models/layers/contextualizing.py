"""The contextualizing layers: score the considered classes, keep the likely ones, merge them."""

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn as nn
import torch.nn.functional as F
from mmengine.model import BaseModule
from mmpretrain.models.utils import build_norm_layer
from torch import Tensor

from mmctx.errors import UserError
from mmctx.ops.autocasting import without_autocast
from mmctx.ops.contextualizing import (
    MOST_CLASSES,
    choose_kept_classes,
    infer_kept_classes,
    unit_vectors,
)
from mmctx.ops.pooling import pooled
from mmctx.ops.predicting import infers_in_kernels, launches_kernels

from .contextual_conv import VECTOR_NORMS
from .merging import Merging
from .reporting import current_listener
from .vector_step import run_vector_step

SELECTIONS = ('reduce', 'rerank')


class StageContext(NamedTuple):
    """What one stage concludes.

    Attributes:
        logits (Tensor): s/τ in class order, (B, N₁); −inf for classes no longer considered.
        kept (Tensor, optional): Whether a class stays considered, (B, N₁), bool. None after the
            last stage.
        prior (Tensor, optional): For the next stage's convolutions, (B, P). None after the last.
    """

    logits: Tensor
    kept: Tensor | None
    prior: Tensor | None


class Contextualizing(BaseModule):
    """Classifying and merging after each stage over one table of class embeddings (Sec. 3.2).

    Nothing is permuted: the considered set is a mask over the N₁ classes in class order, since
    cross entropy and the mean in merging do not depend on an order.

    Args:
        in_channels (Sequence[int]): Channels of the feature map of each stage that classifies.
        prior_channels (Sequence[int]): Length of the prior of each of the first three stages.
        num_classes (int): N₁. Defaults to 1000.
        considered (Sequence[int]): N₂, N₃, N₄. Defaults to (500, 200, 50).
        embed_dims (int): Width d of the class embeddings. Defaults to 256.
        selection (str): `reduce`, the considered set really shrinks, or `rerank`, every stage
            scores all classes and only the prior narrows. Defaults to `reduce`.
        hidden_ratio (int): Channels over hidden features in classifying. Defaults to 1.
        norm (str): Norm in classifying, `LN` or `BN`. Defaults to `LN`.
        merging (dict, optional): Options of `Merging`: `hidden`, `temperature`, `normalize`.
            Defaults to None, the paper's merging.

    Raises:
        UserError: The considered numbers do not shrink from N₁, or are not one for each prior, or
            `embed_dims`, `selection`, `norm` or `merging` is not possible.
    """

    def __init__(
        self,
        in_channels: Sequence[int],
        prior_channels: Sequence[int],
        num_classes: int = 1000,
        considered: Sequence[int] = (500, 200, 50),
        embed_dims: int = 256,
        selection: str = 'reduce',
        hidden_ratio: int = 1,
        norm: str = 'LN',
        merging: dict | None = None,
    ):
        super().__init__()
        _check_considered(num_classes, considered, len(prior_channels))
        if embed_dims < 1:
            raise UserError(f'embed_dims should be at least 1, got {embed_dims}')
        if selection not in SELECTIONS:
            raise UserError(f'selection should be one of {SELECTIONS}, got {selection!r}')
        if norm not in VECTOR_NORMS:
            raise UserError(f'norm should be one of {list(VECTOR_NORMS)}, got {norm!r}')
        self.considered = tuple(considered)
        self.selection = selection
        self.embeddings = nn.Embedding(num_classes, embed_dims)
        nn.init.normal_(self.embeddings.weight, std=0.02)
        # log(1/τ)
        self.logit_scale = nn.Parameter(torch.tensor(math.log(1 / 0.07)))
        self._register_load_state_dict_pre_hook(_shape_logit_scale, with_module=True)
        self.classifying = nn.ModuleList()
        for channels in in_channels:
            hidden = channels // hidden_ratio
            self.classifying.append(
                nn.Sequential(
                    nn.Linear(channels, hidden),
                    build_norm_layer(VECTOR_NORMS[norm], hidden),
                    nn.ReLU(inplace=True),
                    nn.Linear(hidden, embed_dims),
                )
            )
        self.merging = nn.ModuleList(
            Merging(embed_dims, channels, **(merging or {})) for channels in prior_channels
        )

    def forward(
        self, x: Tensor, stage_index: int, kept: Tensor | None = None, classes: Tensor | None = None
    ) -> StageContext:
        """Classify the features of a stage and, but for the last, make the next stage's prior.

        Args:
            x (Tensor): Features, (B, C, H, W).
            stage_index (int): Index of the stage among those that classify, from 0.
            kept (Tensor, optional): What the stage before kept. Defaults to None, all classes.
            classes (Tensor, optional): `class_directions()`, which whoever runs several stages
                computes once. Defaults to None, computed here.

        Returns:
            StageContext: Scores, kept classes and prior.
        """
        # Half precision cannot tell likely classes apart at the top of the ranking, and casting the
        # parameters would take longer than it saves.
        with without_autocast(x):
            if self._infers_in_kernels(x):
                context = self._infer(x, stage_index, kept, classes)
            else:
                context = self._conclude(x, stage_index, kept, classes)
        listener = current_listener()
        if listener is not None:
            listener(self, (stage_index, context))
        return context

    def _conclude(
        self, x: Tensor, stage_index: int, kept: Tensor | None, classes: Tensor | None
    ) -> StageContext:
        logits = self.classify(x, stage_index, classes)
        if self.selection == 'reduce' and kept is not None:
            logits = torch.where(kept, logits, -math.inf)
        if stage_index == len(self.merging):
            return StageContext(logits, None, None)
        if logits.dtype == torch.float32 and self._keeps_in_kernels(x):
            kept, shares = choose_kept_classes(logits.detach(), self.considered[stage_index])
            prior = self.merging[stage_index](self.embeddings.weight, None, logits, shares)
            return StageContext(logits, kept, prior)
        top = self.keep(logits, stage_index)
        kept = torch.zeros_like(logits, dtype=torch.bool).scatter_(1, top, 1)
        return StageContext(logits, kept, self.merge(top, stage_index, logits))

    def _infers_in_kernels(self, x: Tensor) -> bool:
        return infers_in_kernels(x) and self._is_plain()

    def _keeps_in_kernels(self, x: Tensor) -> bool:
        return launches_kernels(x) and self._is_plain()

    def _is_plain(self) -> bool:
        """Whether the kernels do what the methods of these layers do."""
        plain = all(merging.temperature is None for merging in self.merging)
        # The kernels do what these methods do here, not what a subclass makes of them.
        own = type(self)
        plain &= own.classify is Contextualizing.classify and own.keep is Contextualizing.keep
        plain &= own.merge is Contextualizing.merge
        return plain and self.embeddings.num_embeddings <= MOST_CLASSES

    def _infer(
        self, x: Tensor, stage_index: int, kept: Tensor | None, classes: Tensor | None
    ) -> StageContext:
        """`_conclude` in inference, in half as many kernels."""
        if classes is None:
            classes = self.class_directions()
        last = stage_index == len(self.merging)
        logits, kept, shares = infer_kept_classes(
            self.embed_image(x, stage_index),
            classes,
            kept if self.selection == 'reduce' else None,
            None if last else self.considered[stage_index],
        )
        if shares is None:
            return StageContext(logits, None, None)
        prior = self.merging[stage_index](self.embeddings.weight, None, logits, shares)
        return StageContext(logits, kept, prior)

    def keep(self, logits: Tensor, stage_index: int) -> Tensor:
        """Numbers of the classes that stay considered after a stage, (B, N), of logits (B, N₁)."""
        return logits.detach().topk(self.considered[stage_index], dim=1, sorted=False).indices

    def class_directions(self) -> Tensor:
        """Class embeddings of length 1/τ, (N₁, d), in float32 at least; the same in every stage."""
        return unit_vectors(at_least_float32(self.embeddings.weight), self.logit_scale)

    def classify(self, x: Tensor, stage_index: int, classes: Tensor | None = None) -> Tensor:
        """Cosine similarities to all classes over τ, (B, N₁), in float32 at least."""
        if classes is None:
            classes = self.class_directions()
        return unit_vectors(self.embed_image(x, stage_index)) @ classes.t()

    def embed_image(self, x: Tensor, stage_index: int) -> Tensor:
        """Image embeddings, (B, d), in float32 at least, of features (B, C, H, W)."""
        layers = self.classifying[stage_index]
        hidden = run_vector_step(layers, pooled(x, layers[0].weight.dtype))
        return at_least_float32(F.linear(hidden, layers[3].weight, layers[3].bias))

    def merge(self, top: Tensor, stage_index: int, logits: Tensor) -> Tensor:
        """Prior (B, P) from the classes kept, (B, N) indices, and the logits (B, N₁) of all."""
        return self.merging[stage_index](self.embeddings.weight, top, logits)


def usually_considered(num_classes: int) -> tuple[int, int, int]:
    """N₂, N₃, N₄ in the paper's proportions to N₁: 500, 200 and 50 of 1000 classes."""
    half, fifth, twentieth = (max(num_classes // n, 1) for n in (2, 5, 20))
    return half, fifth, twentieth


def at_least_float32(x: Tensor) -> Tensor:
    """x in float32, or as it is where it is more precise."""
    return x.to(torch.promote_types(x.dtype, torch.float32))


def _shape_logit_scale(module: Contextualizing, state_dict: dict, prefix: str, *_) -> None:
    """Let a scale of one element, as runs with FSDP save it, load as a scalar, and vice versa."""
    scale = state_dict.get(f'{prefix}logit_scale')
    if scale is not None and scale.numel() == 1:
        state_dict[f'{prefix}logit_scale'] = scale.reshape(module.logit_scale.shape)


def _check_considered(num_classes: int, considered: Sequence[int], stages: int) -> None:
    whole = isinstance(considered, Sequence) and all(isinstance(n, int) for n in considered)
    if not whole or len(considered) != stages:
        raise UserError(f'considered needs {stages} whole numbers, got {considered!r}')
    for before, after in zip((num_classes, *considered), considered):
        if not 1 <= after <= before:
            raise UserError(
                f'considered={tuple(considered)} of num_classes={num_classes}: {after} classes '
                f'cannot be kept of {before}'
            )
