"""Figure of Grad-CAM, the contextual network's beside the vanilla one's (Figures 1 and 4)."""

import os
from collections.abc import Sequence

import matplotlib
import numpy as np

from .style import HEAT, figure, save, show_image


def draw_cams(
    image: np.ndarray, maps: Sequence[tuple[str, np.ndarray]], path: str | os.PathLike
) -> None:
    """Draw an image beside class activation maps of it.

    Args:
        image (np.ndarray): The image as the network sees it, (H, W, 3) uint8 RGB.
        maps (Sequence[tuple[str, np.ndarray]]): Heading and map of each network, (H, W), 0 or more.
        path (str | os.PathLike): The picture, a `.png`, `.svg` or `.pdf`.
    """
    height, width = image.shape[:2]
    side = 2.4
    with figure((1 + len(maps)) * side, side * height / width + 0.5) as page:
        first, *others = page.subplots(1, 1 + len(maps))
        show_image(first, image, 'image')
        for axes, (heading, values) in zip(others, maps):
            show_image(axes, overlay(image, values), heading)
        save(page, path)


def overlay(image: np.ndarray, values: np.ndarray) -> np.ndarray:
    """An image, (H, W, 3) uint8, tinted the more the higher a map, (H, W), is; uint8."""
    values = values / max(float(values.max()), 1e-12)
    tint = matplotlib.colormaps[HEAT](0.3 + 0.7 * values)[..., :3] * 255
    share = 0.8 * values[..., None]
    return np.rint(image * (1 - share) + tint * share).astype(np.uint8)
