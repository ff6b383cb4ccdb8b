"""Sizes of the networks: those of the configs on a GPU, narrow ones on a CPU to try the check."""

from pathlib import Path
from typing import NamedTuple

from mmengine.config import ConfigDict

CONVNEXT = dict(arch=dict(depths=[1, 1, 4, 1], channels=[16, 24, 32, 48]), embed_dims=32)
RESNET = dict(stem_channels=8, base_channels=8)


class Place(NamedTuple):
    """Device and folder of a check.

    Attributes:
        device (str): Device of the check, 'cuda' or 'cpu'.
        out (Path): Folder for logs, work dirs and rendered data.
    """

    device: str
    out: Path

    @property
    def small(self) -> bool:
        """Whether networks are narrow and images few."""
        return self.device == 'cpu'

    @property
    def data(self) -> Path:
        """Folder of the rendered data."""
        return self.out / 'data'


def narrow(backbone: ConfigDict, width: int = 1) -> dict:
    """Settings that make a backbone narrow.

    Args:
        backbone (ConfigDict): Backbone of one of mmctx's configs.
        width (int): Factor on all numbers of channels. Defaults to 1.

    Returns:
        dict: Settings that replace those of the backbone.
    """
    if 'ConvNeXt' in backbone.type:
        arch = dict(CONVNEXT['arch'])
        arch['channels'] = [width * channels for channels in arch['channels']]
        return dict(arch=arch, embed_dims=width * CONVNEXT['embed_dims'])
    found = {key: width * RESNET[key] for key in ('stem_channels', 'base_channels')}
    if backbone.get('prior') != 'none':
        found['embed_dims'] = width * backbone.get('embed_dims', 256) // 8
    return found
