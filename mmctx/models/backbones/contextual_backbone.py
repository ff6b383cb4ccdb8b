"""Base class of contextual backbones: what they add to a vanilla backbone."""

import math
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

import torch.nn as nn
from torch import Tensor

from mmctx.errors import UserError
from mmctx.models.layers import (
    Contextualizing,
    ZeroPredictors,
    forward_contextual_block,
    make_contextual,
    with_zeroed_predictors,
)
from mmctx.models.layers.contextual_conv import OFFSETS, ContextualConv2d, PriorInputConv2d
from mmctx.models.layers.contextualizing import usually_considered
from mmctx.models.layers.merging import Merging
from mmctx.ops.layout import channels_last_on_cpu

if TYPE_CHECKING:
    from mmengine.model import BaseModule as Vanilla
else:
    Vanilla = object

PRESETS = ('paper', 'released')
OUT_TYPES = ('featmap', 'logits')
PRIORS = ('predictors', 'input', 'none')


class ContextualBackbone(Vanilla):
    """Mixin that makes a vanilla backbone of four stages contextual.

    It comes before the vanilla class in the bases of a backbone. The vanilla constructor runs
    first; `add_context` then replaces a convolution in some blocks and adds the contextualizing
    layers. Stages count from 1; only `out_indices` counts them from 0, as in mmpretrain.

    Attributes:
        replaced (str): Attribute of a residual block that holds the convolution to replace.
        pointwise (str): Attribute of a residual block that holds its first 1×1 convolution, which
            `prior='input'` replaces instead.
        stride (int): Stride of the last stage, in pixels; smaller images are refused.
        strides (Sequence[int]): Stride of each stage over the one before, of the first over the
            stem.
        out_type (str): `featmap` or `logits`.
        contextualizing_type (type): Class of the contextualizing layers.
    """

    contextualizing_type: type[Contextualizing] = Contextualizing
    replaced: str
    pointwise: str
    stride: int
    strides: Sequence[int] = (1, 2, 2, 2)
    init_cfg: dict | list[dict] | None
    contextualizing: Contextualizing | None
    first_merging: Merging | None

    def blocks_of(self, stage: int) -> Iterable[nn.Module]:
        """Residual blocks of a stage, 1 to 4."""
        raise NotImplementedError

    def enter_stage(self, x: Tensor, stage: int) -> Tensor:
        """Run the layers before the blocks of a stage, 1 to 4: the stem or a downsampling layer."""
        raise NotImplementedError

    def leave_stage(self, x: Tensor, stage: int) -> Tensor:
        """Turn the map of a stage, 1 to 4, into the backbone's output; here they are the same."""
        return x

    def add_context(
        self,
        channels: Sequence[int],
        conv_channels: Sequence[int],
        predictors: Sequence[dict],
        every: int | str,
        out_type: str,
        contextual_stages: Sequence[int] = (2, 3, 4),
        prior: str = 'predictors',
        offsets: Sequence[str] = OFFSETS,
        norm: str = 'LN',
        **contextualizing,
    ) -> None:
        """Make the backbone contextual.

        Args:
            channels (Sequence[int]): Channels of each stage's map.
            conv_channels (Sequence[int]): Channels of each stage's replaced convolutions.
            predictors (Sequence[dict]): Arguments of `ContextualConv2d` that set the sizes of its
                predictors, for each stage.
            every (int | str): Which blocks of a contextual stage are contextual: n for every n-th
                one, beginning with the first; `first` for the first one only.
            out_type (str): What the backbone returns: `featmap` or `logits`.
            contextual_stages (Sequence[int]): The contextual stages, counted from 1, without a gap
                up to 4. Defaults to (2, 3, 4).
            prior (str): What takes the prior: `predictors`; `input`, the replaced 1×1 convolution
                as further channels; `none`, so that the predictors see features only. Defaults to
                `predictors`.
            offsets (Sequence[str]): Which offsets are predicted: `sampling`, `weight` or both.
                Defaults to both.
            norm (str): Norm in the predictors and in classifying, `LN` or `BN`. Defaults to `LN`.
            **contextualizing: Arguments of `Contextualizing`. `considered` is None or has three
                entries, even if not all of the first three stages classify.

        Raises:
            UserError: `out_indices` has an entry that is not 0 to 3.
        """
        if not all(0 <= index < 4 for index in self.out_indices):
            raise UserError(
                f'out_indices should be 0 to 3, for stages 1 to 4, got {self.out_indices}'
            )
        self.out_type = out_type
        self.stage_channels = tuple(channels)
        first = contextual_stages[0]
        # How many of the first stages neither classify nor narrow the considered set.
        self.skipped = max(first - 2, 0)
        prior_channels = [c // 2 for c in conv_channels]
        layer: type[nn.Conv2d] = ContextualConv2d
        if prior == 'input':
            layer, self.replaced = PriorInputConv2d, self.pointwise
        for stage in range(first, 5):
            context: dict[str, Any] = dict(prior_channels=prior_channels[stage - 1])
            if prior == 'none':
                context['prior_channels'] = 0
            if prior != 'input':
                context.update(predictors[stage - 1], offsets=offsets, norm=norm)
            blocks = list(self.blocks_of(stage))
            for block in blocks[:1] if isinstance(every, str) else blocks[::every]:
                make_contextual(block, self.replaced, layer, **context)
        self.contextualizing = self.first_merging = None
        if prior != 'none':
            considered = contextualizing.pop('considered')
            if considered is None:
                considered = usually_considered(contextualizing['num_classes'])
            contextualizing['considered'] = (
                considered[self.skipped :] if self.skipped else considered
            )
            self.contextualizing = self.contextualizing_type(
                (channels if out_type == 'logits' else channels[:-1])[self.skipped :],
                prior_channels[self.skipped + 1 :],
                norm=norm,
                **contextualizing,
            )
            if first == 1:
                self.first_merging = Merging(
                    self.contextualizing.embeddings.embedding_dim,
                    prior_channels[0],
                    **(contextualizing.get('merging') or {}),
                )
        self.init_cfg = with_zeroed_predictors(self.init_cfg)
        self._freeze_stages()

    @property
    def feature_info(self) -> list[dict[str, Any]]:
        """What is known of the returned maps beforehand, in the terms of timm.

        Returns:
            list[dict]: For each of `out_indices` its channels `num_chs`, its stride `reduction` in
            pixels, and the path of its stage, `module`.
        """
        found = []
        for index in self.out_indices:
            blocks = self.blocks_of(index + 1)
            found.append(
                dict(
                    num_chs=self.stage_channels[index],
                    reduction=self.stride // math.prod(self.strides[index + 1 :]),
                    module=next(name for name, part in self.named_modules() if part is blocks),
                )
            )
        return found

    def init_weights(self) -> None:
        """Initialize the weights; zero the predictors again if a parent's initializer ran first."""
        if not self.is_init:
            ZeroPredictors()(self)
        super().init_weights()

    def first_prior(self, x: Tensor) -> Tensor | None:
        """Prior of the first stage, (B, P).

        Returns:
            Tensor | None: All classes merged; empty, (B, 0), without class embeddings; None if the
            first stage is vanilla.
        """
        if self.contextualizing is None:
            return x.new_zeros(x.shape[0], 0)
        if self.first_merging is None:
            return None
        merged = self.first_merging.merge_all(self.contextualizing.embeddings.weight)
        return merged.expand(x.shape[0], -1)

    def refine_prior(self, prior: Tensor) -> Tensor:
        """Change the prior of the next stage, (B, P), before it is used; here it stays the same."""
        return prior

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        """Run the network.

        Args:
            x (Tensor): Images, (B, 3, H, W). H and W are at least the stride; training with
                `norm='BN'` takes two images or more.

        Returns:
            tuple[Tensor, ...]: With `out_type='featmap'` the maps of `out_indices`,
            (B, C_i, H_i, W_i), as the vanilla base class returns them. With `logits` the logits of
            each stage that classifies, (B, N₁), in order up to stage 4.

        Raises:
            UserError: The images are smaller than the stride, or batch norm is trained on a single
                image.
        """
        if x.shape[-2] < self.stride or x.shape[-1] < self.stride:
            raise UserError(
                f'images of {x.shape[-2]}×{x.shape[-1]} pixels are smaller than the stride '
                f'{self.stride} of {type(self).__name__}: enlarge or pad them'
            )
        x = channels_last_on_cpu(x)
        maps, logits = [], []
        kept, prior = None, self.first_prior(x)
        classifying: nn.ModuleList | tuple[()] = ()
        classes = None
        if self.contextualizing is not None:
            classifying = self.contextualizing.classifying
            classes = self.contextualizing.class_vectors()
        for stage in range(1, 5):
            x = self.enter_stage(x, stage)
            for block in self.blocks_of(stage):
                x = forward_contextual_block(block, self.replaced, x, prior)
            if stage - 1 in self.out_indices:
                maps.append(self.leave_stage(x, stage))
            index = stage - 1 - self.skipped
            if 0 <= index < len(classifying):
                # `featmap` has no loss on the logits, so no gradients come back from them.
                features = x if self.out_type == 'logits' else x.detach()
                scores, kept, prior = self.contextualizing(  # type: ignore[misc]
                    features, index, kept, classes
                )
                logits.append(scores)
                if prior is not None:
                    prior = self.refine_prior(prior)
        return tuple(logits if self.out_type == 'logits' else maps)

    def _freeze_stages(self):
        super()._freeze_stages()
        # The base class calls this before its subclass has built anything.
        if getattr(self, 'contextualizing', None) is None:
            return
        # The layers that make the prior of a frozen stage are frozen as well.
        feeding = max(self.frozen_stages - 1 - self.skipped, 0)
        frozen = list(self.contextualizing.classifying[:feeding])
        frozen += self.contextualizing.merging[:feeding]
        if self.first_merging is not None and self.frozen_stages > 0:
            frozen.append(self.first_merging)
        if feeding or self.first_merging in frozen:
            frozen.append(self.contextualizing.embeddings)
        if self.out_type == 'featmap':
            frozen += self.contextualizing.classifying
            self.contextualizing.logit_scale.requires_grad_(False)
        for layer in frozen:
            layer.eval()
            layer.requires_grad_(False)

    def train(self, mode: bool = True) -> nn.Module:
        """Set the mode, and return the backbone, which mmpretrain's own classes do not."""
        super().train(mode)
        return self


def check_choices(
    preset: str,
    out_type: str,
    every: int | str,
    contextual_stages: Sequence[int] = (2, 3, 4),
    prior: str = 'predictors',
) -> None:
    """Raise a UserError for arguments that no contextual backbone takes."""
    for name, value, choices in (
        ('preset', preset, PRESETS),
        ('out_type', out_type, OUT_TYPES),
        ('prior', prior, PRIORS),
    ):
        if value not in choices:
            raise UserError(f'{name} should be one of {choices}, got {value!r}')
    if every != 'first' and (not isinstance(every, int) or every < 1):
        raise UserError(f"every should be a whole number of at least 1 or 'first', got {every!r}")
    if tuple(contextual_stages) not in [tuple(range(n, 5)) for n in (1, 2, 3, 4)]:
        raise UserError(
            'contextual_stages should be stages of 1 to 4 without a gap up to 4, '
            f'got {tuple(contextual_stages)}'
        )
    if prior == 'none' and out_type == 'logits':
        raise UserError("prior='none' leaves no class embeddings: use out_type='featmap'")
