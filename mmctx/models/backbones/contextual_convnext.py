"""Contextual ConvNeXt: "Contextual Convolutional Networks" (Liang et al., ICLR 2023) on ConvNeXt.

Stage 1 is vanilla. The contextual convolutions of each later stage depend on a prior, made of the
classes that the stage before it kept.
"""

from collections.abc import Sequence

from mmpretrain.models import ConvNeXt
from torch import Tensor, nn

from mmctx.errors import UserError
from mmctx.models.layers.contextual_conv import OFFSETS
from mmctx.registry import MODELS
from mmctx.weights.vanilla import adopt_vanilla_convnext

from .contextual_backbone import ContextualBackbone, check_choices


@MODELS.register_module()
class ContextualConvNeXt(ContextualBackbone, ConvNeXt):
    """ConvNeXt whose depthwise convolutions follow the classes still considered.

    Args:
        arch (str | dict): One of mmpretrain's ConvNeXt names (`tiny`, `small`, `base` are the
            paper's), or a dict of four `depths` and four `channels`. Defaults to `tiny`.
        preset (str): Layout of the predictors. `paper` reproduces the parameters and FLOPs of the
            paper's tables; `released` is that of the authors' code, with modulation, which the
            authors' checkpoints need. Defaults to `paper`.
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
            `first` with `prior='input'`, 3 otherwise.
        contextual_stages (Sequence[int]): The contextual stages, counted from 1, without a gap up
            to 4. Defaults to (2, 3, 4).
        norm (str): Norm in the predictors and in classifying: `LN`, or `BN`, which needs batches of
            two images or more to train. Defaults to `LN`.
        offsets (Sequence[str]): Which offsets are predicted: `sampling`, `weight` or both. Defaults
            to both.
        prior (str): What takes the prior: `predictors`, `input` or `none`, see `ContextualResNet`.
            `input` needs `linear_pw_conv=False`, as mmpretrain's blocks otherwise have linear
            layers instead of 1×1 convolutions. Defaults to `predictors`.
        out_type (str): What is returned. `featmap`: the maps of `out_indices` (which counts stages
            from 0), as from mmpretrain's ConvNeXt; the classifying layers and τ are frozen, because
            no loss trains them. `logits`: the logits of each stage that classifies, for
            `ContextualClsHead`. Defaults to `featmap`.
        **kwargs: Arguments of `mmpretrain.models.ConvNeXt`. `norm_cfg` defaults to
            `MapLayerNorm`, which is mmpretrain's `LN2d` without its copies.

    Raises:
        UserError: An argument is unknown, or the numbers of considered classes do not decrease.
    """

    replaced, pointwise = 'depthwise_conv', 'pointwise_conv1'

    def __init__(
        self,
        arch: str | dict = 'tiny',
        preset: str = 'paper',
        num_classes: int = 1000,
        considered: Sequence[int] | None = None,
        embed_dims: int = 256,
        selection: str = 'reduce',
        merging: dict | None = None,
        every: int | str | None = None,
        norm: str = 'LN',
        offsets: Sequence[str] = OFFSETS,
        contextual_stages: Sequence[int] = (2, 3, 4),
        prior: str = 'predictors',
        out_type: str = 'featmap',
        **kwargs,
    ):
        if every is None:
            every = 'first' if prior == 'input' else 3
        check_choices(preset, out_type, every, contextual_stages, prior)
        if prior == 'input' and kwargs.get('linear_pw_conv', True):
            raise UserError("prior='input' needs 1×1 convolutions: pass linear_pw_conv=False")
        if not isinstance(arch, dict) and arch not in self.arch_settings:
            raise UserError(
                f'arch should be one of {list(self.arch_settings)} or a dict, got {arch!r}'
            )
        if not 0 <= kwargs.get('frozen_stages', 0) <= 4:
            raise UserError(f'frozen_stages should be 0 to 4, got {kwargs["frozen_stages"]}')
        if isinstance(arch, dict) and any(
            len(arch.get(k, ())) != 4 for k in ('depths', 'channels')
        ):
            raise UserError(f'an arch dict needs four `depths` and four `channels`, got {arch}')
        if out_type == 'logits':
            kwargs['out_indices'] = ()
        elif isinstance(kwargs.get('out_indices'), Sequence):
            # The base class resolves negative indices in place.
            kwargs['out_indices'] = list(kwargs['out_indices'])
        kwargs.setdefault('norm_cfg', dict(type='mmctx.MapLayerNorm', eps=1e-6))
        super().__init__(arch=arch, **kwargs)
        self.stride = 8 * self.downsample_layers[0][0].stride[0]
        self._register_load_state_dict_pre_hook(adopt_vanilla_convnext, with_module=True)
        self.add_context(
            self.channels,
            self.channels,
            [_predictors(preset, sum(self.depths), channels) for channels in self.channels],
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
        )

    def blocks_of(self, stage: int) -> nn.Sequential:
        """Blocks of a stage, 1 to 4."""
        return self.stages[stage - 1]

    def enter_stage(self, x: Tensor, stage: int) -> Tensor:
        """The stem before stage 1, a downsampling layer before the others."""
        return self.downsample_layers[stage - 1](x)

    def leave_stage(self, x: Tensor, stage: int) -> Tensor:
        """Normalised map, (B, C, H, W), or (B, C) with `gap_before_final_norm`."""
        norm = getattr(self, f'norm{stage - 1}')
        if self.gap_before_final_norm:
            return norm(x.mean((-2, -1), keepdim=True)).flatten(1)
        return norm(x)


def _predictors(preset: str, depth: int, channels: int) -> dict:
    if preset == 'released':
        hidden = max(channels // 16, 1)
        return dict(sampling_offset_hidden=hidden, weight_offset_hidden=hidden, modulated=True)
    # The ratios that reproduce the paper's parameter counts, of T and of S and B.
    ratio = 32 if depth <= 18 else 128
    return dict(depthwise_predictor=True, weight_offset_hidden=max(channels // ratio, 1))
