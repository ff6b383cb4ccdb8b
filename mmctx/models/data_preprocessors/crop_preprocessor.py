"""Augmentation of small images, a batch at a time on the device of the model."""

import torch
import torch.nn.functional as F
from mmpretrain.models import ClsDataPreprocessor
from torch import Tensor

from mmctx.registry import MODELS


@MODELS.register_module()
class CropPreprocessor(ClsDataPreprocessor):
    """mmpretrain's preprocessor with random crops and random horizontal flips in training.

    Args:
        padding (int): Width in pixels of the black border that is added to an image before it is
            cropped to its original size.
        **kwargs: Arguments of mmpretrain's `ClsDataPreprocessor`.
    """

    def __init__(self, padding: int, **kwargs):
        super().__init__(**kwargs)
        self.padding = padding

    def forward(self, data: dict, training: bool = False) -> dict:
        """Augment and normalize a batch of images of one size, (B, 3, H, W).

        On a GPU the result is channels-last, the format in which its half-precision convolutions
        are fastest.

        Args:
            data (dict): Batch with its images as `inputs`.
            training (bool): Whether to augment. Defaults to False.

        Returns:
            dict: Batch with normalized images.
        """
        if training:
            images = random_crop(self.cast_data(data['inputs']), self.padding)
            data = dict(data, inputs=random_flip(images))
        data = super().forward(data, training)
        if data['inputs'].is_cuda:
            data['inputs'] = data['inputs'].contiguous(memory_format=torch.channels_last)
        return data


def random_crop(images: Tensor, padding: int) -> Tensor:
    """Pad images (B, C, H, W) with zeros and crop each to its original size at a random place."""
    batch, _, height, width = images.shape
    device = images.device
    top, left = torch.randint(0, 2 * padding + 1, (2, batch), device=device)
    # A view of all crops, [B, C, 2 * padding + 1, 2 * padding + 1, H, W].
    crops = F.pad(images, (padding,) * 4).unfold(2, height, 1).unfold(3, width, 1)
    return crops[torch.arange(batch, device=device), :, top, left]


def random_flip(images: Tensor) -> Tensor:
    """Flip each of the images (B, C, H, W) horizontally with probability one half."""
    flipped = torch.rand(len(images), 1, 1, 1, device=images.device) < 0.5
    columns = torch.arange(images.shape[3], device=images.device)
    columns = torch.where(flipped, columns.flip(0), columns)  # [B, 1, 1, W]
    return images.gather(3, columns.expand(images.shape))
