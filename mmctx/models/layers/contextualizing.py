"""The contextualizing layers: score the considered classes, keep the likely ones, merge them."""

import math
from collections.abc import Sequence
from functools import lru_cache
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
    ClassVectors,
    make_class_vectors,
    run_stage,
    runs_stage_in_kernels,
    unit_vectors,
)
from mmctx.ops.pooling import pooled
from mmctx.ops.predicting import launches_kernels

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
        self,
        x: Tensor,
        stage_index: int,
        kept: Tensor | None = None,
        classes: ClassVectors | None = None,
    ) -> StageContext:
        """Classify the features of a stage and, but for the last, make the next stage's prior.

        Args:
            x (Tensor): Features, (B, C, H, W).
            stage_index (int): Index of the stage among those that classify, from 0.
            kept (Tensor, optional): What the stage before kept. Defaults to None, all classes.
            classes (ClassVectors, optional): `class_vectors()`, which whoever runs several stages
                computes once. Defaults to None, computed here.

        Returns:
            StageContext: Scores, kept classes and prior.
        """
        if classes is None:
            classes = self.class_vectors()
        before = kept if self.selection == 'reduce' else None
        classifying = self.classifying[stage_index]
        if classes.hidden is not None and runs_stage_in_kernels(x, classifying):
            joint = hidden = count = None
            if stage_index < len(self.merging):
                joint = self.merging[stage_index]['joint']
                hidden, count = classes.hidden[stage_index], self.considered[stage_index]
            context = StageContext(
                *run_stage(x, classes.directions, hidden, before, count, classifying, joint)
            )
        else:
            # Half precision cannot tell likely classes apart at the top of the ranking, and casting
            # the parameters would take longer than it saves.
            with without_autocast(x):
                context = self._conclude(x, stage_index, before, classes)
        listener = current_listener()
        if listener is not None:
            listener(self, (stage_index, context))
        return context

    def _conclude(
        self, x: Tensor, stage_index: int, before: Tensor | None, classes: ClassVectors
    ) -> StageContext:
        logits = self.classify(x, stage_index, classes.directions)
        if before is not None:
            logits = torch.where(before, logits, -math.inf)
        if stage_index == len(self.merging):
            return StageContext(logits, None, None)
        top = self.keep(logits, stage_index)
        kept = torch.zeros_like(logits, dtype=torch.bool).scatter_(1, top, 1)
        return StageContext(logits, kept, self.merge(top, stage_index, logits))

    def class_vectors(self) -> ClassVectors:
        """What the stages need of the classes alone, the same for all images and stages."""
        embeddings = self.embeddings.weight
        if launches_kernels(embeddings) and self._is_plain():
            steps = [merging['each'] for merging in self.merging]
            normalize = any(merging.normalize for merging in self.merging)
            vectors = make_class_vectors(embeddings, self.logit_scale, steps, normalize)
            if vectors is not None:
                return vectors
        return ClassVectors(self.class_directions(), None)

    def _is_plain(self) -> bool:
        """Whether the kernels do what these layers and whoever hooks them do."""
        for merging in self.merging:
            if merging.temperature is not None or is_hooked(merging, *merging.values()):
                return False
        return _keeps_methods(type(self))

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


@lru_cache
def _keeps_methods(kind: type[Contextualizing]) -> bool:
    """Whether a subclass leaves the methods alone whose work the kernels do."""
    names = ('keep', 'class_directions', 'classify', 'embed_image', 'merge')
    return all(getattr(kind, name) is getattr(Contextualizing, name) for name in names)


def is_hooked(*modules: nn.Module) -> bool:
    """Whether functions are called before or after any of the modules."""
    return any(m._forward_hooks or m._forward_pre_hooks for m in modules)


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
