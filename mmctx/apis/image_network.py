"""What kind of model a model is, and how it is called on images alone."""

import torch.nn as nn
from torch import Tensor


def is_detector(model: nn.Module) -> bool:
    """Whether a model is a two-stage detector of mmdet."""
    return hasattr(model, 'rpn_head')


def clip_length(model: nn.Module) -> int | None:
    """Frames of a clip of a 2D recognizer of mmaction2; None of any other model.

    A recognizer whose backbone sees each frame by itself is measured on one.
    """
    if not any(cls.__name__ == 'Recognizer2D' for cls in type(model).__mro__):
        return None
    return getattr(model.backbone, 'num_segments', 1)


class ImageNetwork(nn.Module):
    """A classifier, detector or recognizer of the three frameworks as a network of images.

    Args:
        model (nn.Module): An mmpretrain classifier, an mmdet detector or a `Recognizer2D` of
            mmaction2.

    Attributes:
        frames (int | None): Frames of a clip; None of a model that is no recognizer.
    """

    def __init__(self, model: nn.Module):
        super().__init__()
        self.model = model
        self.frames = clip_length(model)

    def forward(self, images: Tensor) -> object:
        """What the model makes of images, without post-processing.

        Args:
            images (Tensor): Normalised images, (B, 3, H, W); for a recognizer whole clips, one
                after the other, (N·T, 3, H, W).

        Returns:
            object: A classifier's scores; of a detector the outputs of its heads, those of the
            regions for the proposals of these images; class scores of clips, (N, classes).
        """
        if self.frames:
            return self.model(images.unflatten(0, (-1, self.frames)), stage='head')
        if is_detector(self.model):
            return self.model(images, data_samples=blank_samples(images))
        return self.model(images)


def blank_samples(images: Tensor) -> list:
    """What mmdet's heads need to know of images, (B, 3, H, W): their size."""
    from mmdet.structures import DetDataSample

    size = tuple(images.shape[2:])
    metainfo = dict(img_shape=size, ori_shape=size, pad_shape=size)
    return [DetDataSample(metainfo=metainfo) for _ in images]
