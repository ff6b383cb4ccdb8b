"""Grad-CAM of contextual and vanilla networks."""

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch
from torch import Tensor, nn

from mmctx.apis.image_network import ImageNetwork, is_detector
from mmctx.errors import Unavailable, UserError

from .viewer import ContextViewer, Subject


def grad_cam(
    viewer: ContextViewer, subject: Subject, label: int | None = None
) -> tuple[int, np.ndarray]:
    """Grad-CAM of the last block, by Captum.

    Args:
        viewer (ContextViewer): The network, a contextual one or a vanilla one.
        subject (Subject): The picture.
        label (int, optional): Number of the class whose map is asked for. Defaults to None,
            the likeliest.

    Returns:
        tuple[int, np.ndarray]: The class, and its map on the shown image, (H, W), 0 or more.

    Raises:
        UserError: The network is a detector, no longer considers the class, or ends in a map of
            a single pixel.
        Unavailable: Captum is not installed.
    """
    try:
        from captum.attr import LayerGradCam
    except ImportError as error:
        raise Unavailable("Grad-CAM needs Captum: pip install 'mmctx[see]'") from error
    if is_detector(viewer.model):
        raise UserError('Grad-CAM is of class scores: a classifier or recognizer has them')
    network = ImageNetwork(viewer.model)
    with torch.no_grad(), _last_map(viewer.backbone) as seen:
        scores = network(subject.inputs)[0]  # type: ignore[index]
    if not seen:
        raise UserError('the last map has a single pixel: Grad-CAM needs larger images')
    if label is None:
        label = int(scores.argmax())
    if not 0 <= label < len(scores):
        raise UserError(f'there is no class {label} among {len(scores)}')
    if scores[label] == -torch.inf:
        raise UserError(
            f'{subject.path}: the last stage no longer considers {viewer.names[label]}, so that '
            'its map would be empty; leave out the class for that of the prediction'
        )
    with torch.enable_grad():
        values = LayerGradCam(network, seen[-1]).attribute(
            subject.inputs.clone().requires_grad_(), label, relu_attributions=True
        )
    size = subject.inputs.shape[-2:]
    values = nn.functional.interpolate(values.detach().float(), size, mode='bilinear')
    height, width = subject.image.shape[:2]
    return label, values[subject.frame, 0, :height, :width].cpu().numpy()


@contextmanager
def _last_map(backbone: nn.Module) -> Iterator[list[nn.Module]]:
    """Modules of a backbone that give a map of several pixels, in the order in which they end."""
    seen: list[nn.Module] = []

    def see(module: nn.Module, args: tuple, output: object) -> None:
        if isinstance(output, Tensor) and output.ndim == 4 and output[0, 0].numel() > 1:
            seen.append(module)

    handles = [m.register_forward_hook(see) for m in backbone.modules() if m is not backbone]
    try:
        yield seen
    finally:
        for handle in handles:
            handle.remove()
