"""What every contextual backbone adds to its vanilla base class."""

from collections.abc import Iterable, Sequence

import torch.nn as nn
from torch import Tensor

from mmctx.layers import (
    Contextualizing,
    forward_contextual_block,
    make_contextual,
    with_zeroed_predictors,
)

PRESETS = ('paper', 'released')
OUT_TYPES = ('featmap', 'logits')


class ContextualBackbone:
    """Mixin, before a vanilla backbone of four stages in the bases of a class.

    The vanilla constructor runs first; `add_context` then replaces a convolution in some blocks and
    adds the contextualizing layers. Stages are counted from 0 here.

    Attributes:
        replaced (str): Attribute of a residual block that holds the convolution to replace.
        stride (int): Of the last stage, in pixels; smaller images are refused.
        out_type (str): `featmap` or `logits`.
    """

    replaced: str
    stride: int

    def stage_blocks(self, stage: int) -> Iterable[nn.Module]:
        """Residual blocks of a stage."""
        raise NotImplementedError

    def enter_stage(self, x: Tensor, stage: int) -> Tensor:
        """What comes before a stage's blocks: the stem or a downsampling layer."""
        raise NotImplementedError

    def leave_stage(self, x: Tensor, stage: int) -> Tensor:
        """A stage's map as the vanilla backbone outputs it."""
        return x

    def add_context(
        self,
        channels: Sequence[int],
        conv_channels: Sequence[int],
        predictors: Sequence[dict],
        every: int,
        out_type: str,
        **contextualizing,
    ) -> None:
        """Make the backbone contextual.

        Args:
            channels (Sequence[int]): Channels of each stage's map.
            conv_channels (Sequence[int]): Channels of each stage's replaced convolutions.
            predictors (Sequence[dict]): Predictor arguments of `ContextualConv2d`, for each stage.
            every (int): Every n-th block of stages 1–3, beginning with the first, is contextual.
            out_type (str): `featmap` or `logits`.
            **contextualizing: Of `Contextualizing`.
        """
        self.out_type = out_type
        prior_channels = [c // 2 for c in conv_channels[1:]]
        for stage, prior in enumerate(prior_channels, 1):
            for block in list(self.stage_blocks(stage))[::every]:
                make_contextual(block, self.replaced, prior_channels=prior, **predictors[stage])
        self.contextualizing = Contextualizing(
            channels if out_type == 'logits' else channels[:-1], prior_channels, **contextualizing
        )
        self.init_cfg = with_zeroed_predictors(self.init_cfg)
        self._freeze_stages()

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        """Run the network.

        Args:
            x (Tensor): Images, (B, 3, H, W), H and W at least the stride.

        Returns:
            tuple[Tensor, ...]: `featmap`: the maps of `out_indices`, (B, C_i, H_i, W_i), as the
            vanilla base class gives them. `logits`: four stages' logits, (B, N₁) each.

        Raises:
            ValueError: The images are smaller than the stride.
        """
        if min(x.shape[-2:]) < self.stride:
            raise ValueError(
                f'images of {x.shape[-2]}×{x.shape[-1]} pixels are smaller than the stride '
                f'{self.stride} of {type(self).__name__}: enlarge or pad them'
            )
        maps, logits = [], []
        kept = prior = None
        for stage in range(4):
            x = self.enter_stage(x, stage)
            for block in self.stage_blocks(stage):
                x = forward_contextual_block(block, self.replaced, x, prior)
            if stage in self.out_indices:
                maps.append(self.leave_stage(x, stage))
            if stage < len(self.contextualizing.classifying):
                # Without a loss on the logits nothing flows back from them.
                seen = x if self.out_type == 'logits' else x.detach()
                scores, kept, prior = self.contextualizing(seen, stage, kept)
                logits.append(scores)
        return tuple(logits if self.out_type == 'logits' else maps)

    def _freeze_stages(self):
        super()._freeze_stages()
        if not hasattr(self, 'contextualizing'):
            return  # The base class calls this before its subclass has built anything.
        frozen = list(self.contextualizing.classifying[: max(self.frozen_stages - 1, 0)])
        # What feeds a frozen stage stays as it is, too.
        frozen += self.contextualizing.merging[: max(self.frozen_stages - 1, 0)]
        if self.out_type == 'featmap':
            frozen += self.contextualizing.classifying
            self.contextualizing.logit_scale.requires_grad_(False)
        for layer in frozen:
            layer.eval()
            layer.requires_grad_(False)

    def train(self, mode: bool = True) -> nn.Module:
        """Set the mode; what is frozen stays in evaluation."""
        super().train(mode)
        return self


def check_choices(preset: str, out_type: str, every: int) -> None:
    """Raise a ValueError for arguments that no contextual backbone takes."""
    for name, value, choices in (
        ('preset', preset, PRESETS),
        ('out_type', out_type, OUT_TYPES),
    ):
        if value not in choices:
            raise ValueError(f'{name} should be one of {choices}, got {value!r}')
    if every < 1:
        raise ValueError(f'every should be at least 1, got {every}')
