"""Figure of instance segmentation: image, ground truth and prediction side by side.

mmdet's own visualizer is made for photographs: on small images its labels are hardly legible, and
it colours an object at random, so that one and the same object differs between the panels.
"""

import os
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.patches import Rectangle

from .style import INK, figure, save, show_image

HEADINGS = ('image', 'ground truth', 'prediction')
TINT = 0.25
# Of a panel, in inches.
SIDE = 2.6


class Instance(NamedTuple):
    """An object of an image.

    Attributes:
        label (int): Number of its class.
        box (Sequence[float]): x1, y1, x2, y2 in pixels.
        mask (np.ndarray): Bool, (H, W).
        score (float, optional): Score of a predicted object. Defaults to None, a true one.
    """

    label: int
    box: Sequence[float]
    mask: np.ndarray
    score: float | None = None


def draw_instances(
    scenes: Sequence[tuple[np.ndarray, Sequence[Instance], Sequence[Instance]]],
    classes: Sequence[str],
    palette: Sequence[tuple[int, int, int]],
    path: str | os.PathLike,
    columns: int = 1,
) -> None:
    """Draw each image untouched, with its true objects and with the predicted ones.

    Args:
        scenes (Sequence[tuple]): Image, (H, W, 3) uint8 RGB, true objects and predicted ones; later
            objects are drawn on top.
        classes (Sequence[str]): Name of each class.
        palette (Sequence[tuple[int, int, int]]): RGB colour of each class, 0 to 255.
        path (str | os.PathLike): The picture, a `.png`, `.svg` or `.pdf`.
        columns (int): Number of scenes side by side. Defaults to 1.
    """
    rows = -(-len(scenes) // columns)
    with figure(3 * SIDE * columns, (SIDE + 0.3) * rows) as page:
        panels = page.subplots(rows, 3 * columns, squeeze=False).reshape(-1, 3)
        for axes in panels[len(scenes) :].flat:
            axes.axis('off')
        for line, (image, *objects) in zip(panels, scenes):
            for axes, heading, instances in zip(line, HEADINGS, ((), *objects)):
                show_image(axes, image, heading)
                axes.autoscale(False)
                for instance in instances:
                    _draw(axes, instance, classes[instance.label], palette[instance.label])
        save(page, path)


def _draw(axes: Axes, instance: Instance, name: str, colour: tuple[int, int, int]) -> None:
    rgb = tuple(channel / 255 for channel in colour)
    mask, score = instance.mask, instance.score
    # Light enough for the colours beneath to be recognised.
    axes.imshow(np.dstack([np.broadcast_to(rgb, (*mask.shape, 3)), TINT * mask]))
    if mask.any():
        axes.contour(mask, [0.5], colors=[rgb], linewidths=1)
    # The first pixel has its centre at 0.
    x1, y1, x2, y2 = (side - 0.5 for side in instance.box)
    axes.add_patch(Rectangle((x1, y1), x2 - x1, y2 - y1, fill=False, edgecolor=rgb, linewidth=0.8))
    # To the inside of the picture.
    left, below = x1 < mask.shape[1] / 2, y1 < mask.shape[0] / 8
    bright = np.dot(rgb, (0.299, 0.587, 0.114)) > 0.55
    axes.text(
        x1 if left else x2, y1, name if score is None else f'{name} {score:.2f}', fontsize=7,
        color=INK if bright else 'white', ha='left' if left else 'right',
        va='top' if below else 'bottom', bbox=dict(facecolor=rgb, edgecolor='none', pad=1.5),
        in_layout=False,
    )  # fmt: skip
