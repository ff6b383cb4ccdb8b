"""A contextual backbone with torchvision's feature pyramid, for torchvision's detectors."""

import torch.nn as nn
from torch import Tensor
from torchvision.ops import FeaturePyramidNetwork
from torchvision.ops.feature_pyramid_network import LastLevelMaxPool

from mmctx.errors import UserError


class FeaturePyramid(nn.Module):
    """Backbone and feature pyramid, as torchvision's `FasterRCNN` and `MaskRCNN` take them.

    "Feature Pyramid Networks for Object Detection" (Lin et al., CVPR 2017), with the last map
    pooled once more; from the maps of four stages it makes the five that these detectors expect.

    Args:
        backbone (nn.Module): A network with `feature_info` that returns a tuple of maps.
        out_channels (int): Channels of all maps of the pyramid. Defaults to 256.

    Raises:
        UserError: The backbone returns averages instead of maps.
    """

    def __init__(self, backbone: nn.Module, out_channels: int = 256):
        if getattr(backbone, 'gap_before_final_norm', False):
            raise UserError(
                'a pyramid needs maps: pass gap_before_final_norm=False to the backbone'
            )
        super().__init__()
        self.backbone = backbone
        self.out_channels = out_channels
        channels = [info['num_chs'] for info in backbone.feature_info]
        self.pyramid = FeaturePyramidNetwork(channels, out_channels, LastLevelMaxPool())

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        """Maps of images, (B, 3, H, W), by their names `0`, `1`, … and `pool`."""
        maps = self.backbone(images)
        return self.pyramid({str(index): each for index, each in enumerate(maps)})
