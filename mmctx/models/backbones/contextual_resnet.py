"""Contextual ResNet: "Contextual Convolutional Networks" (Liang et al., ICLR 2023) on ResNet."""

import math
from collections.abc import Sequence
from typing import Any

from mmpretrain.models import ResNet
from torch import Tensor, nn

from mmctx.errors import UserError
from mmctx.models.layers.contextual_conv import OFFSETS
from mmctx.registry import MODELS
from mmctx.weights.vanilla import adopt_vanilla_resnet

from .contextual_backbone import ContextualBackbone, check_choices


@MODELS.register_module()
class ContextualResNet(ContextualBackbone, ResNet):
    """ResNet whose 3×3 convolutions (`conv2` of a block) follow the classes still considered.

    Args:
        depth (int): One of mmpretrain's ResNet depths. Defaults to 50.
        preset (str): Layout of the predictors: `paper` without modulation, or `released`, that of
            the authors' code, with modulation. Defaults to `paper`.
        num_classes (int): Number of all classes, N₁. Defaults to 1000.
        considered (Sequence[int], optional): Numbers of classes N₂, N₃, N₄ kept after stages 1, 2,
            3. Defaults to None, as in the paper a half, a fifth and a twentieth of all classes:
            (500, 200, 50) of 1000.
        embed_dims (int): Width of the class embeddings. Defaults to 256.
        selection (str): How classes are selected: `reduce` or `rerank`, see `Contextualizing`.
            Defaults to `reduce`.
        merging (dict, optional): Options of `Merging`, which makes the prior of the kept classes.
            Defaults to None, as in the paper.
        every (int | str, optional): Which blocks of a contextual stage are contextual: n for every
            n-th one, beginning with the first; `first` for the first one only. Defaults to None:
            `first` with `prior='input'`, 2 otherwise.
        contextual_stages (Sequence[int]): The contextual stages, counted from 1, without a gap up
            to 4 (Table 6). Stages before the one that makes the first prior do not classify. If
            stage 1 is contextual, its prior is all classes merged. Defaults to (2, 3, 4).
        norm (str): Norm in the predictors and in classifying: `BN` as in the paper, `LN` for
            batches of few images. Defaults to `BN`.
        offsets (Sequence[str]): Which offsets are predicted (Table 5): `sampling`, `weight` or
            both. Defaults to both.
        prior (str): What takes the prior (Table 4). `predictors`: the predictors of contextual
            convolutions. `input`: no convolution is contextual; the prior is expanded and
            concatenated to the input of the first 1×1 convolution of the blocks that `every`
            chooses. `none`: there are no prior and no class embeddings, and the predictors see
            features only. Defaults to `predictors`.
        reduction (int): Ratio of channels to hidden features in the predictors. Defaults to 4.
        out_type (str): What is returned. `featmap`: the maps of `out_indices` (which counts stages
            from 0), as from mmpretrain's ResNet; the classifying layers and τ are frozen, because
            no loss trains them. `logits`: the logits of each stage that classifies, for
            `ContextualClsHead`. Defaults to `featmap`.
        **kwargs: Arguments of `mmpretrain.models.ResNet`; `num_stages` must be 4.

    Raises:
        UserError: An argument is unknown, or the numbers of considered classes do not decrease.
    """

    replaced, pointwise = 'conv2', 'conv1'
    stem_stride = 4

    def __init__(
        self,
        depth: int = 50,
        preset: str = 'paper',
        num_classes: int = 1000,
        considered: Sequence[int] | None = None,
        embed_dims: int = 256,
        selection: str = 'reduce',
        merging: dict | None = None,
        every: int | str | None = None,
        norm: str = 'BN',
        offsets: Sequence[str] = OFFSETS,
        contextual_stages: Sequence[int] = (2, 3, 4),
        prior: str = 'predictors',
        reduction: int = 4,
        out_type: str = 'featmap',
        **kwargs,
    ):
        if every is None:
            every = 'first' if prior == 'input' else 2
        check_choices(preset, out_type, every, contextual_stages, prior)
        if depth not in self.arch_settings:
            raise UserError(f'depth should be one of {list(self.arch_settings)}, got {depth!r}')
        if kwargs.get('num_stages', 4) != 4:
            raise UserError('a contextual ResNet has four stages')
        super().__init__(depth, **kwargs)
        self._register_load_state_dict_pre_hook(adopt_vanilla_resnet, with_module=True)
        last_blocks: list[Any] = [self.blocks_of(stage)[-1] for stage in range(1, 5)]
        conv_channels = [block.conv2.out_channels for block in last_blocks]
        self.stride = self.stem_stride * math.prod(self.strides)
        self.add_context(
            [block.out_channels for block in last_blocks],
            conv_channels,
            [
                dict(
                    sampling_offset_hidden=max(channels // reduction, 1),
                    weight_offset_hidden=max(channels // reduction, 1),
                    modulated=preset == 'released',
                )
                for channels in conv_channels
            ],
            every,
            out_type,
            contextual_stages,
            prior,
            offsets,
            norm,
            num_classes=num_classes,
            considered=considered,
            embed_dims=embed_dims,
            selection=selection,
            merging=merging,
            hidden_ratio=4,
        )

    def blocks_of(self, stage: int) -> nn.Sequential:
        """Blocks of a stage, 1 to 4."""
        return getattr(self, self.res_layers[stage - 1])

    def enter_stage(self, x: Tensor, stage: int) -> Tensor:
        """The stem before stage 1, nothing before the others."""
        if stage > 1:
            return x
        x = self.stem(x) if self.deep_stem else self.relu(self.norm1(self.conv1(x)))
        return self.maxpool(x)
