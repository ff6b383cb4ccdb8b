"""Figure of how much Δw changes the kernels, by class."""

import os
from collections.abc import Sequence

import numpy as np

from .style import SHARE, figure, save, shortened


def draw_kernel_changes(
    changes: np.ndarray,
    likeness: np.ndarray,
    classes: Sequence[str],
    layers: Sequence[str],
    layer: str,
    path: str | os.PathLike,
) -> None:
    """Draw |Δw| relative to |w| by class and layer, and how alike the Δw of classes are.

    Args:
        changes (np.ndarray): |Δw| / |w|, (classes, layers).
        likeness (np.ndarray): Cosine similarity of the classes' Δw, less what all have in common,
            in one layer, (classes, classes).
        classes (Sequence[str]): Names of the classes that the images show.
        layers (Sequence[str]): Names of the contextual convolutions.
        layer (str): The one whose Δw are compared.
        path (str | os.PathLike): The picture, a `.png`, `.svg` or `.pdf`.
    """
    names = [shortened(name) for name in classes]
    tall = max(0.24 * len(names), 1.2)
    with figure(3.2 + 0.5 * len(layers) + tall + 1.6, tall + 1.9) as page:
        ratios = [max(0.5 * len(layers), 1.0), tall]
        left, right = page.subplots(1, 2, width_ratios=ratios)
        seen = left.imshow(100 * changes, cmap=SHARE, vmin=0, aspect='auto')
        left.set_title('size of Δw, in percent of w')
        left.set_xticks(range(len(layers)), layers, rotation=45, ha='right', fontsize=7)
        left.set_yticks(range(len(names)), names, fontsize=8)
        page.colorbar(seen, ax=left, shrink=0.8)
        if len(names) <= 12:
            middle = 50 * changes.max()
            for row, column in np.ndindex(*changes.shape):
                value = 100 * changes[row, column]
                left.text(
                    column,
                    row,
                    f'{value:.0f}' if value >= 1 else f'{value:.1g}',
                    ha='center',
                    va='center',
                    fontsize=7,
                    color='white' if value < middle else 'black',
                )
        seen = right.imshow(likeness, cmap='RdBu_r', vmin=-1, vmax=1)
        right.set_title(f'likeness of Δw in {layer}', fontsize=8)
        right.set_xticks(range(len(names)), names, rotation=45, ha='right', fontsize=7)
        right.set_yticks(range(len(names)), [])
        page.colorbar(seen, ax=right, shrink=0.8)
        save(page, path)
