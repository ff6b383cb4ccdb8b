"""Which kind of model a model is, and how to call it with images alone."""

import torch.nn as nn
from torch import Tensor

from mmctx.registry import base_named


def is_detector(model: nn.Module) -> bool:
    """Whether a model is a two-stage detector of mmdet."""
    return hasattr(model, 'rpn_head')


def clip_length(model: nn.Module) -> int | None:
    """Number of frames of a clip of an mmaction2 2D recognizer; None for any other model.

    It is 1 for a recognizer whose backbone processes each frame by itself.
    """
    recognizer = base_named(type(model), 'Recognizer2D')
    return getattr(model.backbone, 'num_segments', 1) if recognizer else None


class ImageNetwork(nn.Module):
    """A classifier, detector or recognizer as a network that takes images alone.

    Args:
        model (nn.Module): An mmpretrain classifier, an mmdet detector or a `Recognizer2D` of
            mmaction2.

    Attributes:
        frames (int | None): Number of frames of a clip; None if the model is not a recognizer.
    """

    def __init__(self, model: nn.Module):
        super().__init__()
        self.model = model
        self.frames = clip_length(model)

    def forward(self, images: Tensor) -> object:
        """Run the model on images, without post-processing.

        Args:
            images (Tensor): Normalised images, (B, 3, H, W); for a recognizer whole clips one after
                the other, (N·T, 3, H, W).

        Returns:
            object: Class scores of a classifier, or of a recognizer for each clip, (N, classes);
            the outputs of a detector's heads, with its region heads applied to the proposals of
            these images.
        """
        if self.frames:
            return self.model(images.unflatten(0, (-1, self.frames)), stage='head')
        if is_detector(self.model):
            return self.model(images, data_samples=blank_samples(images))
        return self.model(images)


def blank_samples(images: Tensor) -> list:
    """Make samples that tell mmdet's heads the size of images, (B, 3, H, W)."""
    from mmdet.structures import DetDataSample

    size = tuple(images.shape[2:])
    metainfo = dict(img_shape=size, ori_shape=size, pad_shape=size)
    return [DetDataSample(metainfo=metainfo) for _ in images]
