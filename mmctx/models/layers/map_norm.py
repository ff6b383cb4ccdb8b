"""mmpretrain's norm over the channels of a map, without its copy."""

import torch
from mmpretrain.models.utils import LayerNorm2d
from torch import Tensor

from mmctx.registry import MODELS


@MODELS.register_module()
class MapLayerNorm(LayerNorm2d):
    """`LN2d` that leaves a map channels last in memory if it is.

    mmpretrain's makes each result contiguous, so that a channels-last network copies its maps, and
    its first stage adds maps of two layouts.
    """

    def forward(self, x: Tensor, data_format: str = 'channel_first') -> Tensor:
        """Normalise a map.

        Args:
            x (Tensor): Map, (B, C, H, W), or (B, H, W, C) where `data_format` is `channel_last`.
            data_format (str): `channel_first` or `channel_last`. Defaults to `channel_first`.

        Returns:
            Tensor: Map of the shape of x.
        """
        if data_format == 'channel_first' and x.is_contiguous(memory_format=torch.channels_last):
            return super().forward(x.permute(0, 2, 3, 1), 'channel_last').permute(0, 3, 1, 2)
        return super().forward(x, data_format)
