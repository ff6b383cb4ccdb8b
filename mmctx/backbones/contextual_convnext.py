"""Contextual ConvNeXt: "Contextual Convolutional Networks" (Liang et al., ICLR 2023) on ConvNeXt.

A vanilla stage 1; then each stage's blocks are bent by a prior made of the classes that the stage
before still considers.
"""

from collections.abc import Sequence

import torch.nn as nn
from mmpretrain.models import ConvNeXt
from torch import Tensor

from mmctx.layers import (
    Contextualizing,
    forward_contextual_block,
    make_contextual,
    with_zeroed_predictors,
)
from mmctx.registry import MODELS

from .vanilla_names import adopt_vanilla_names

PRESETS = ('paper', 'released')
OUT_TYPES = ('featmap', 'logits')
REPLACED = 'depthwise_conv'


def _predictors(preset: str, arch: str | dict, channels: int) -> dict:
    """Arguments of `ContextualConv2d` that a preset fixes (METHOD of each: see the README)."""
    if preset == 'released':
        hidden = max(channels // 16, 1)
        return dict(offset_hidden=hidden, delta_hidden=hidden, modulated=True)
    ratio = 128 if arch in ('small', 'base') else 32
    return dict(offset_hidden=None, delta_hidden=max(channels // ratio, 1), modulated=False)


@MODELS.register_module()
class ContextualConvNeXt(ConvNeXt):
    """ConvNeXt whose depthwise convolutions follow the classes still considered.

    Args:
        arch (str | dict): One of mmpretrain's ConvNeXt names (`tiny`, `small`, `base` are the
            paper's), or a dict of four `depths` and four `channels`. Defaults to `tiny`.
        preset (str): Layout of the predictors. `paper` reproduces the paper's columns of parameters
            and FLOPs; `released` is the authors' code, modulated, which its checkpoints need.
            Defaults to `paper`.
        num_classes (int): Classes N₁ considered at first. Defaults to 1000.
        considered (Sequence[int]): Classes N₂, N₃, N₄ kept after stages 1, 2, 3. Defaults to
            (500, 200, 50).
        embed_dims (int): Width of the class embeddings. Defaults to 256.
        selection (str): `reduce` or `rerank`, see `Contextualizing`. Defaults to `reduce`.
        every (int): Every n-th block of stages 2–4, beginning with the first, is contextual.
            Defaults to 3.
        out_type (str): `featmap` returns the maps of `out_indices`, as mmpretrain's ConvNeXt. No
            loss then teaches the classifying layers and τ, so they are frozen. `logits` returns the
            four stages' logits instead, for `ContextualClsHead`. Defaults to `featmap`.
        **kwargs: Of `mmpretrain.models.ConvNeXt`.

    Raises:
        ValueError: An argument is unknown or the considered numbers do not shrink.
    """

    def __init__(
        self,
        arch: str | dict = 'tiny',
        preset: str = 'paper',
        num_classes: int = 1000,
        considered: Sequence[int] = (500, 200, 50),
        embed_dims: int = 256,
        selection: str = 'reduce',
        every: int = 3,
        out_type: str = 'featmap',
        **kwargs,
    ):
        _check_arguments(arch, self.arch_settings, preset, every, out_type)
        if out_type == 'logits':
            kwargs['out_indices'] = ()
        elif isinstance(kwargs.get('out_indices'), Sequence):
            # The base class resolves negative indices in place.
            kwargs['out_indices'] = list(kwargs['out_indices'])
        super().__init__(arch=arch, **kwargs)
        self.out_type = out_type
        self.stride = 8 * self.downsample_layers[0][0].stride[0]
        prior_channels = [channels // 2 for channels in self.channels[1:]]
        for stage, channels, prior in zip(self.stages[1:], self.channels[1:], prior_channels):
            for block in stage[::every]:
                make_contextual(
                    block, REPLACED, prior_channels=prior, **_predictors(preset, arch, channels)
                )
        self.contextualizing = Contextualizing(
            self.channels if out_type == 'logits' else self.channels[:-1],
            prior_channels,
            num_classes=num_classes,
            considered=considered,
            embed_dims=embed_dims,
            selection=selection,
        )
        if out_type == 'featmap':
            self.contextualizing.classifying.requires_grad_(False)
            self.contextualizing.logit_scale.requires_grad_(False)
        self.init_cfg = with_zeroed_predictors(self.init_cfg)
        self._register_load_state_dict_pre_hook(adopt_vanilla_names, with_module=True)
        self._freeze_stages()

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        """Run the network.

        Args:
            x (Tensor): Images, (B, 3, H, W), H and W at least the stride, 32.

        Returns:
            tuple[Tensor, ...]: `featmap`: one map (B, C_i, H_i, W_i) for each of `out_indices`, or
            (B, C_i) with `gap_before_final_norm`. `logits`: four stages' logits, (B, N₁) each.

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
        for i, stage in enumerate(self.stages):
            x = self.downsample_layers[i](x)
            for block in stage:
                x = forward_contextual_block(block, REPLACED, x, prior)
            if i in self.out_indices:
                maps.append(self._final_norm(x, i))
            if i < len(self.contextualizing.classifying):
                # Without a loss on the logits nothing flows back from them.
                seen = x if self.out_type == 'logits' else x.detach()
                stage_logits, kept, prior = self.contextualizing(seen, i, kept)
                logits.append(stage_logits)
        return tuple(logits if self.out_type == 'logits' else maps)

    def _final_norm(self, x: Tensor, stage: int) -> Tensor:
        norm = getattr(self, f'norm{stage}')
        if self.gap_before_final_norm:
            return norm(x.mean((-2, -1), keepdim=True)).flatten(1)
        return norm(x)

    def _freeze_stages(self):
        super()._freeze_stages()
        if not hasattr(self, 'contextualizing'):
            return  # The base class calls this before its subclass has built anything.
        for i in range(self.frozen_stages - 1):
            # What feeds a frozen stage stays as it is, too.
            for layer in (self.contextualizing.classifying[i], self.contextualizing.merging[i]):
                layer.eval()
                layer.requires_grad_(False)

    def train(self, mode: bool = True) -> nn.Module:
        """Set the mode; frozen stages stay in evaluation."""
        super().train(mode)
        return self


def _check_arguments(arch, known_archs, preset, every, out_type):
    if isinstance(arch, str) and arch not in known_archs:
        raise ValueError(f'arch should be one of {list(known_archs)} or a dict, got {arch!r}')
    if isinstance(arch, dict) and any(len(arch.get(k, ())) != 4 for k in ('depths', 'channels')):
        raise ValueError(f'an arch dict needs four `depths` and four `channels`, got {arch}')
    if preset not in PRESETS:
        raise ValueError(f'preset should be one of {PRESETS}, got {preset!r}')
    if out_type not in OUT_TYPES:
        raise ValueError(f'out_type should be one of {OUT_TYPES}, got {out_type!r}')
    if every < 1:
        raise ValueError(f'every should be at least 1, got {every}')
