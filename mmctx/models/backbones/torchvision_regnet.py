"""RegNetY of "Designing Network Design Spaces" (CVPR 2020), which mmpretrain lacks."""

from mmpretrain.models.backbones.base_backbone import BaseBackbone
from torch import Tensor
from torchvision.models.regnet import BlockParams, RegNet

from mmctx.errors import UserError
from mmctx.registry import MODELS

# Depths, widths and group width as published. torchvision names no RegNetY-4G, and its rounding of
# widths to whole groups makes stage 1 of the 4G and 8G networks wider than published.
ARCHS = {
    '4gf': ((2, 6, 12, 2), (128, 192, 512, 1088), 64),
    '8gf': ((2, 4, 10, 1), (168, 448, 896, 2016), 56),
    '16gf': ((2, 4, 11, 1), (224, 448, 1232, 3024), 112),
}


@MODELS.register_module()
class TorchvisionRegNetY(BaseBackbone):
    """torchvision's RegNetY as a backbone of mmpretrain, with torchvision's parameter names.

    Args:
        arch (str): Size of the network in billions of multiply-adds at 224×224 pixels: `4gf`,
            `8gf` or `16gf`. Defaults to `4gf`.
        init_cfg (dict, optional): Initialization config of mmengine's `BaseModule`. Defaults to
            None, torchvision's own initialization.

    Raises:
        UserError: `arch` is unknown.
    """

    def __init__(self, arch: str = '4gf', init_cfg: dict | None = None):
        super().__init__(init_cfg)
        if arch not in ARCHS:
            raise UserError(f'arch should be one of {list(ARCHS)}, got {arch!r}')
        depths, widths, group_width = ARCHS[arch]
        stages = len(depths)
        network = RegNet(
            BlockParams(
                depths, widths, [group_width] * stages, [1.0] * stages, [2] * stages, se_ratio=0.25
            )
        )
        self.stem, self.trunk_output = network.stem, network.trunk_output

    def forward(self, x: Tensor) -> tuple[Tensor]:
        """Compute the map of the last stage, (B, C, H / 32, W / 32), of images (B, 3, H, W)."""
        return (self.trunk_output(self.stem(x)),)
