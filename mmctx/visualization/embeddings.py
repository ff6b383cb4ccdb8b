"""Figures of the class embeddings: t-SNE with what each stage keeps (Figure 5), similarities."""

import os
from collections.abc import Sequence

import numpy as np

from .cascade import Step
from .style import DROPPED, KEPT, TRUE, figure, save, shortened, show_image

MOST_LABELS = 30


def draw_tsne(
    image: np.ndarray,
    places: np.ndarray,
    steps: Sequence[Step],
    names: Sequence[str],
    label: int | None,
    path: str | os.PathLike,
) -> None:
    """Draw the classes as points, those kept at each stage in blue and the true one in red.

    Args:
        image (np.ndarray): The image as the network sees it, (H, W, 3) uint8 RGB.
        places (np.ndarray): Places of the classes on a plane, (N₁, 2).
        steps (Sequence[Step]): The stages that classify, in order.
        names (Sequence[str]): Name of each class.
        label (int, optional): The true class.
        path (str | os.PathLike): The picture, a `.png`, `.svg` or `.pdf`.
    """
    side = 2.3
    with figure((1 + len(steps)) * side, side + 0.25) as page:
        first, *others = page.subplots(1, 1 + len(steps))
        show_image(first, image, '' if label is None else shortened(names[label], 30))
        size = 26 if len(places) <= 100 else 9
        for axes, step in zip(others, steps):
            kept = step.kept
            axes.scatter(*places[~kept].T, s=size, c=DROPPED, alpha=0.55, linewidths=0)
            axes.scatter(*places[kept].T, s=size * 1.5, c=KEPT, edgecolors='white', linewidths=0.4)
            if label is not None:
                axes.scatter(
                    *places[label], s=size * 5, c=TRUE, marker='*', edgecolors='white',
                    linewidths=0.5, zorder=3,
                )  # fmt: skip
            axes.set_title(f'{int(kept.sum())} after stage {step.stage}')
            axes.set_xticks([])
            axes.set_yticks([])
            axes.spines[:].set(visible=True, color=DROPPED)
            axes.set_box_aspect(1)
        save(page, path)


def draw_similarities(
    matrices: Sequence[tuple[str, np.ndarray]], names: Sequence[str], path: str | os.PathLike
) -> None:
    """Draw cosine similarities of classes, of each network in a panel.

    Args:
        matrices (Sequence[tuple[str, np.ndarray]]): Heading and similarities, (N₁, N₁).
        names (Sequence[str]): Name of each class.
        path (str | os.PathLike): The picture, a `.png`, `.svg` or `.pdf`.
    """
    # Ticks of many classes have no room for labels.
    labelled = range(len(names)) if len(names) <= MOST_LABELS else ()
    side = max(3.4, 0.2 * len(labelled) + 1.2)
    with figure(side * len(matrices) + 0.8, side + 0.3) as page:
        (row,) = page.subplots(1, len(matrices), squeeze=False)
        # Apart from the diagonal, which is always 1.
        highest = max(np.abs(m - np.eye(len(m))).max() for _, m in matrices)
        for axes, (heading, values) in zip(row, matrices):
            seen = axes.imshow(
                values, cmap='RdBu_r', vmin=-highest, vmax=highest, interpolation='nearest'
            )
            axes.set_title(heading)
            axes.set_xticks(labelled, [shortened(names[i]) for i in labelled], rotation=90)
            axes.set_yticks(labelled, [shortened(names[i]) for i in labelled])
            axes.tick_params(labelsize=7)
        page.colorbar(seen, ax=row, shrink=0.8, label='cosine similarity')
        save(page, path)
