"""Contextual ResNet with temporal shift, for mmaction2's 2D recognizers (Table 2)."""

import torch.nn as nn
from torch import Tensor

from mmctx.errors import UserError
from mmctx.registry import MODELS

from .contextual_resnet import ContextualResNet

# With this many blocks in stage 3 or more, TSM and mmaction2 shift in every second block only.
MANY_BLOCKS = 23


@MODELS.register_module()
class ContextualResNetTSM(ContextualResNet):
    """`ContextualResNet` on clips, with TSM's temporal shift in the residual branches.

    "TSM: Temporal Shift Module for Efficient Video Understanding" (Lin et al., ICCV 2019): before
    the first convolution of each residual block, an eighth of the channels is taken from the next
    frame and an eighth from the frame before. The shift is mmaction2's own `TemporalShift`, which
    wraps that convolution (`conv1.net`); weights of networks without a shift load as well. Depths
    101 and 152 shift in every second block, as mmaction2's `ResNetTSM` does.

    The frames of all clips form one batch, so each frame has its own considered classes.

    Args:
        depth (int): One of mmpretrain's ResNet depths. Defaults to 50.
        num_segments (int): Number of frames T of a clip. Defaults to 16.
        shift_div (int): Divisor n of the channels: one n-th is shifted forward in time and one n-th
            backward. Defaults to 8.
        average_prior (bool): Whether all frames of a clip take the mean of their priors p_i, (P,),
            which is computed after the merging layers. If not, each frame takes its own prior, as
            in the paper. Defaults to False.
        **kwargs: Further arguments of `ContextualResNet`.

    Raises:
        UserError: An argument is unknown or out of range.
        ImportError: mmaction2 is not installed.
    """

    def __init__(
        self,
        depth: int = 50,
        num_segments: int = 16,
        shift_div: int = 8,
        average_prior: bool = False,
        **kwargs,
    ):
        # Networks for images must not depend on whether mmaction2 can be imported.
        from mmaction.models.backbones.resnet_tsm import TemporalShift

        for name, value in (('num_segments', num_segments), ('shift_div', shift_div)):
            if not isinstance(value, int) or value < 1:
                raise UserError(f'{name} should be a whole number of at least 1, got {value!r}')
        super().__init__(depth, **kwargs)
        self.num_segments = num_segments
        self.average_prior = average_prior
        every = 2 if self.stage_blocks[2] >= MANY_BLOCKS else 1
        self.shifted = [
            f'layer{stage}.{block}.conv1'
            for stage in range(1, 5)
            for block in range(0, len(self.blocks_of(stage)), every)
        ]
        for name in self.shifted:
            block = self.get_submodule(name.rpartition('.')[0])
            block.conv1 = TemporalShift(block.conv1, num_segments, shift_div)
            block.conv1.register_forward_pre_hook(_make_contiguous)
        if self.replaced == 'conv1':
            self.replaced = 'conv1.net'
        self._register_load_state_dict_pre_hook(_adopt_unshifted, with_module=True)

    def refine_prior(self, prior: Tensor) -> Tensor:
        """The prior of each frame, (N·T, P), or with `average_prior` its mean over the clip."""
        if not self.average_prior:
            return prior
        clips = prior.unflatten(0, (-1, self.num_segments))  # [N, T, P]
        return clips.mean(1, keepdim=True).expand_as(clips).flatten(0, 1)

    def forward(  # type: ignore[override]
        self, x: Tensor
    ) -> Tensor | tuple[Tensor, ...]:
        """Run the network.

        Args:
            x (Tensor): Frames of all clips, one clip after the other, (N·T, 3, H, W).

        Returns:
            Tensor | tuple[Tensor, ...]: With `out_type='featmap'` the map of the stage in
            `out_indices`, (N·T, C, H', W'), as mmaction2's recognizers expect it, or a tuple of
            maps if there are several stages. With `logits` the logits of each frame, as
            `ContextualResNet` returns them.

        Raises:
            UserError: The frames are not whole clips, or smaller than the stride.
        """
        if x.shape[0] % self.num_segments:
            raise UserError(
                f'{len(x)} frames do not make whole clips of num_segments={self.num_segments}: '
                "give the pipeline's frame sampling, the backbone and the head the same number"
            )
        outputs = super().forward(x)
        return outputs[0] if self.out_type == 'featmap' and len(outputs) == 1 else outputs


def _make_contiguous(module: nn.Module, args: tuple[Tensor]) -> tuple[Tensor]:
    """Make the input contiguous, as mmaction2's shift views it as (N, T, C, H·W)."""
    return (args[0].contiguous(),)


def _adopt_unshifted(module: ContextualResNetTSM, state_dict: dict, prefix: str, *_) -> None:
    """Rename, in place, the weights of the convolutions of a network without temporal shift."""
    for name in module.shifted:
        for own in module.get_submodule(f'{name}.net').state_dict():
            plain = f'{prefix}{name}.{own}'
            if plain in state_dict:
                state_dict[f'{prefix}{name}.net.{own}'] = state_dict.pop(plain)
