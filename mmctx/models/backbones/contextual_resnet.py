"""Contextual ResNet: "Contextual Convolutional Networks" (Liang et al., ICLR 2023) on ResNet."""

from collections.abc import Sequence
from typing import Any

from mmpretrain.models import ResNet
from torch import Tensor, nn

from mmctx.errors import UserError
from mmctx.models.layers.contextual_conv import OFFSETS
from mmctx.models.layers.vector_step import names_of_training_norms
from mmctx.registry import MODELS
from mmctx.weights.vanilla import adopt_vanilla_resnet

from .contextual_backbone import ContextualBackbone, check_choices


@MODELS.register_module()
class ContextualResNet(ContextualBackbone, ResNet):
    """ResNet whose 3×3 convolutions (`conv2` of a block) follow the classes still considered.

    Args:
        depth (int): One of mmpretrain's ResNet depths. Defaults to 50.
        preset (str): `paper`, unmodulated, or `released`, the authors' code, modulated. Defaults to
            `paper`.
        num_classes (int): Classes N₁ considered at first. Defaults to 1000.
        considered (Sequence[int]): Classes N₂, N₃, N₄ kept after stages 1, 2, 3. Defaults to
            (500, 200, 50).
        embed_dims (int): Width of the class embeddings. Defaults to 256.
        selection (str): `reduce` or `rerank`, see `Contextualizing`. Defaults to `reduce`.
        every (int): Every n-th block of a contextual stage, beginning with the first, is
            contextual. Defaults to 2.
        contextual_stages (Sequence[int]): The contextual stages, counted from 1, without a gap up
            to 4 (Table 6). Stages before the one that makes the first prior do not classify; with
            stage 1 among them, its prior is all classes merged. Defaults to (2, 3, 4).
        norm (str): Norm in the predictors and in classifying: `BN` as published, `LN` for batches
            of few images. Defaults to `BN`.
        offsets (Sequence[str]): What follows the context, see `ContextualConv2d`. Defaults to both.
        prior (str): Where the prior goes (Table 4). `predictors`, the contextual convolution.
            `input`: no convolution is contextual; the prior is expanded and concatenated to the
            input of the first 1×1 convolution of each contextual stage. `none`: no prior, no class
            embeddings, predictors that see features alone. Defaults to `predictors`.
        reduction (int): Channels over hidden features in the predictors. Defaults to 4.
        out_type (str): `featmap` returns the maps of `out_indices`, as mmpretrain's ResNet. No loss
            then teaches the classifying layers and τ, so they are frozen. `logits` returns the four
            stages' logits instead, for `ContextualClsHead`. Defaults to `featmap`.
        **kwargs: Of `mmpretrain.models.ResNet`; four stages.

    Raises:
        UserError: An argument is unknown or the considered numbers do not shrink.
    """

    replaced = 'conv2'
    stem_stride = 4

    def __init__(
        self,
        depth: int = 50,
        preset: str = 'paper',
        num_classes: int = 1000,
        considered: Sequence[int] = (500, 200, 50),
        embed_dims: int = 256,
        selection: str = 'reduce',
        every: int = 2,
        norm: str = 'BN',
        offsets: Sequence[str] = OFFSETS,
        contextual_stages: Sequence[int] = (2, 3, 4),
        prior: str = 'predictors',
        reduction: int = 4,
        out_type: str = 'featmap',
        **kwargs,
    ):
        check_choices(preset, out_type, every, contextual_stages, prior)
        if depth not in self.arch_settings:
            raise UserError(f'depth should be one of {list(self.arch_settings)}, got {depth!r}')
        if kwargs.get('num_stages', 4) != 4:
            raise UserError('a contextual ResNet has four stages')
        super().__init__(depth, **kwargs)
        if prior != 'none':
            self._register_load_state_dict_pre_hook(adopt_vanilla_resnet, with_module=True)
        if prior == 'input':
            self.replaced, every = 'conv1', max(self.stage_blocks)
        last_blocks: list[Any] = [self.blocks_of(stage)[-1] for stage in range(4)]
        conv_channels = [block.conv2.out_channels for block in last_blocks]
        self.stride = self.stem_stride
        for stride in self.strides:
            self.stride *= stride
        self.add_context(
            [block.out_channels for block in last_blocks],
            conv_channels,
            [
                dict(
                    sampling_offset_hidden=max(channels // reduction, 1),
                    weight_offset_hidden=max(channels // reduction, 1),
                    modulated=preset == 'released',
                    offsets=offsets,
                    norm=norm,
                )
                for channels in conv_channels
            ],
            every,
            out_type,
            contextual_stages,
            prior,
            num_classes=num_classes,
            considered=considered,
            embed_dims=embed_dims,
            selection=selection,
            hidden_ratio=4,
            norm=norm,
        )

    def blocks_of(self, stage: int) -> nn.Sequential:
        """Blocks of a stage, counted from 0."""
        return getattr(self, self.res_layers[stage])

    def enter_stage(self, x: Tensor, stage: int) -> Tensor:
        """The stem before the first stage, nothing before the others."""
        if stage:
            return x
        x = self.stem(x) if self.deep_stem else self.relu(self.norm1(self.conv1(x)))
        return self.maxpool(x)

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        """See `ContextualBackbone.forward`; batch norm needs two images to train on."""
        if len(x) == 1 and next(names_of_training_norms(self), None) is not None:
            raise UserError("batch norm cannot train on one image: pass norm='LN' to the backbone")
        return super().forward(x)
