"""Recognizers of clips, measured as networks of images."""

import torch.nn as nn
from torch import Tensor


def clip_length(model: nn.Module) -> int | None:
    """Frames of a clip of a 2D recognizer of mmaction2; None of any other model.

    A recognizer whose backbone sees each frame by itself is measured on one.
    """
    if not any(cls.__name__ == 'Recognizer2D' for cls in type(model).__mro__):
        return None
    return getattr(model.backbone, 'num_segments', 1)


class FrameBatch(nn.Module):
    """A 2D recognizer, up to its class scores, that takes frames as a batch of images.

    Args:
        recognizer (nn.Module): mmaction2's `Recognizer2D`.
    """

    def __init__(self, recognizer: nn.Module):
        super().__init__()
        self.recognizer = recognizer
        self.frames = clip_length(recognizer)

    def forward(self, images: Tensor) -> Tensor:
        """Class scores, (N, classes), of whole clips, (N·T, 3, H, W), one after the other."""
        return self.recognizer(images.unflatten(0, (-1, self.frames)), stage='head')
