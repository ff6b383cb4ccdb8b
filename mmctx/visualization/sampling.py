"""Figure of where a contextual convolution samples, and of what it sees of the image."""

import os
from collections.abc import Sequence
from typing import NamedTuple

import matplotlib
import numpy as np
from matplotlib.axes import Axes

from .style import HEAT, KEPT, TRUE, figure, save, show_image


class SamplingView(NamedTuple):
    """Sampling points of one output position, in pixels of the image.

    Attributes:
        centre (np.ndarray): The position itself, (x, y).
        regular (np.ndarray): Points of the regular grid, (K, 2), as (x, y).
        shifted (np.ndarray): Points with Δp, (K, 2).
        mask (np.ndarray, optional): Modulation of each point, (K,), from 0 to 1.
        regular_field (np.ndarray): Effective receptive field of the position on the regular grid:
            size of its output's gradient at each pixel, (H, W).
        shifted_field (np.ndarray): The same with Δp.
    """

    centre: np.ndarray
    regular: np.ndarray
    shifted: np.ndarray
    mask: np.ndarray | None
    regular_field: np.ndarray
    shifted_field: np.ndarray


def draw_sampling(
    image: np.ndarray, views: Sequence[SamplingView], title: str, path: str | os.PathLike
) -> None:
    """Draw sampling points and effective receptive fields of some positions into a file.

    Args:
        image (np.ndarray): The image as the network sees it, (H, W, 3) uint8 RGB.
        views (Sequence[SamplingView]): The positions, a row of the figure each.
        title (str): Which convolution it is.
        path (str | os.PathLike): The picture, a `.png`, `.svg` or `.pdf`.
    """
    height, width = image.shape[:2]
    side = 2.3
    panel = (side - 0.07) * height / width
    with figure(4 * side, 0.55 + len(views) * (panel + 0.06)) as page:
        page.suptitle(title, x=0.01, ha='left', fontsize=9)
        headings = (
            'regular grid',
            'sampling points',
            'receptive field, regular grid',
            'receptive field, sampling points',
        )
        panels = page.subplots(len(views), 4, squeeze=False)
        for row, (line, view) in enumerate(zip(panels, views)):
            for axes, heading in zip(line, headings):
                show_image(axes, image, heading if row == 0 else '')
                axes.set_xlim(-0.5, width - 0.5)
                axes.set_ylim(height - 0.5, -0.5)
            # One scale for both, so that they can be compared.
            highest = max(view.regular_field.max(), view.shifted_field.max(), 1e-12)
            _draw_points(line[0], view.regular, view.centre)
            _draw_points(line[1], view.shifted, view.centre, view.regular, view.mask)
            _draw_field(line[2], image, view.regular_field / highest)
            _draw_field(line[3], image, view.shifted_field / highest)
        save(page, path)


def _draw_points(
    axes: Axes,
    points: np.ndarray,
    centre: np.ndarray,
    origins: np.ndarray | None = None,
    mask: np.ndarray | None = None,
) -> None:
    size = 26 if len(points) < 20 else 14
    if origins is not None:
        for (x, y), (old_x, old_y) in zip(points, origins):
            axes.plot([old_x, x], [old_y, y], color='white', linewidth=1.8, zorder=2)
            axes.plot([old_x, x], [old_y, y], color=KEPT, linewidth=0.9, zorder=2)
    axes.scatter(
        points[:, 0], points[:, 1], s=size if mask is None else size * (0.25 + 1.5 * mask), c=KEPT,
        edgecolors='white', linewidths=0.7, zorder=3,
    )  # fmt: skip
    axes.scatter(
        centre[0], centre[1], marker='P', s=60, c=TRUE, edgecolors='white', linewidths=0.8, zorder=4
    )


def _draw_field(axes: Axes, image: np.ndarray, field: np.ndarray) -> None:
    """Tint a grey image by a field from 0 to 1."""
    grey = image.mean(2, keepdims=True).repeat(3, 2) / 255
    # The root, as most of a field is faint.
    strength = np.sqrt(field)[..., None]
    tint = matplotlib.colormaps[HEAT](0.15 + 0.85 * strength[..., 0])[..., :3]
    share = np.clip(1.6 * strength, 0, 0.9)
    axes.imshow(grey * 0.75 * (1 - share) + tint * share, interpolation='nearest')
