"""Augmentation of small images, a batch at a time on the device of the model."""

import torch
import torch.nn.functional as F
from mmpretrain.models import ClsDataPreprocessor
from torch import Tensor

from mmctx.registry import MODELS


@MODELS.register_module()
class CropPreprocessor(ClsDataPreprocessor):
    """mmpretrain's preprocessor, which in training first crops and mirrors at random.

    Args:
        padding (int): Images are cropped to their size after padding by so many black pixels.
        **kwargs: Of mmpretrain's `ClsDataPreprocessor`.
    """

    def __init__(self, padding: int, **kwargs):
        super().__init__(**kwargs)
        self.padding = padding

    def forward(self, data: dict, training: bool = False) -> dict:
        """Augment and normalize a batch whose images are of one size, (B, 3, H, W)."""
        if training:
            images = random_crop(self.cast_data(data['inputs']), self.padding)
            data = dict(data, inputs=random_flip(images))
        return super().forward(data, training)


def random_crop(images: Tensor, padding: int) -> Tensor:
    """Pad images (B, C, H, W) with zeros and crop each to its size at a place of its own."""
    batch, _, height, width = images.shape
    device = images.device
    top, left = torch.randint(0, 2 * padding + 1, (2, batch, 1, 1), device=device)
    rows = top + torch.arange(height, device=device)[:, None]  # [B, H, 1]
    columns = left + torch.arange(width, device=device)  # [B, 1, W]
    padded = F.pad(images, (padding,) * 4).permute(0, 2, 3, 1)
    which = torch.arange(batch, device=device)[:, None, None]
    return padded[which, rows, columns].permute(0, 3, 1, 2).contiguous()


def random_flip(images: Tensor) -> Tensor:
    """Mirror each of the images (B, C, H, W) with probability one half."""
    mirrored = torch.rand(len(images), 1, 1, 1, device=images.device) < 0.5
    return torch.where(mirrored, images.flip(3), images)
