"""Figure of the cascade: which classes remain after each stage, N₁ → N₂ → N₃ → N₄ → 1."""

import os
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from matplotlib.axes import Axes

from .style import DROPPED, INK, KEPT, TRUE, figure, save, shortened, show_image

# Most classes of a stage that are listed.
ROWS = 10


class Step(NamedTuple):
    """What one stage made of an image.

    Attributes:
        stage (int): Its number, from 1.
        scores (np.ndarray): Score of each class, the softmax over the classes that the stage
            scores, (N₁,); 0 for the others.
        kept (np.ndarray): Whether a class remains after the stage, (N₁,), bool; after the last
            stage that is the predicted one alone.
    """

    stage: int
    scores: np.ndarray
    kept: np.ndarray


class Entry(NamedTuple):
    """A line of a step.

    Attributes:
        label (int): Number of the class.
        rank (int): Its place by score, from 1.
        score (float): Its score.
        kept (bool): Whether it remains.
    """

    label: int
    rank: int
    score: float
    kept: bool


def fell_out(steps: Sequence[Step], label: int | None) -> int | None:
    """Number of the first stage that did not keep a class; None if all did, or without a class."""
    if label is None:
        return None
    return next((step.stage for step in steps if not step.kept[label]), None)


def entries_of(step: Step, label: int | None, rows: int) -> list[Entry]:
    """The likeliest classes of a step that remain, and the true class wherever it is.

    Args:
        step (Step): The step.
        label (int, optional): The true class.
        rows (int): Most lines.

    Returns:
        list[Entry]: In the order of their scores; the true one is last where it is not among the
        likeliest.
    """
    order = np.argsort(-step.scores, kind='stable')
    ranks = {int(number): rank for rank, number in enumerate(order, 1)}
    best = [int(number) for number in order if step.kept[number]][:rows]
    if label is not None and label not in best:
        best = [*best[: rows - 1], label]
    return [Entry(n, ranks[n], float(step.scores[n]), bool(step.kept[n])) for n in best]


def draw_cascade(
    image: np.ndarray,
    steps: Sequence[Step],
    names: Sequence[str],
    label: int | None,
    path: str | os.PathLike,
) -> None:
    """Draw the cascade of one image into a file.

    Args:
        image (np.ndarray): The image as the network sees it, (H, W, 3) uint8 RGB.
        steps (Sequence[Step]): The stages that classify, in order.
        names (Sequence[str]): Name of each class.
        label (int, optional): The true class, which is marked.
        path (str | os.PathLike): The picture, a `.png`, `.svg` or `.pdf`.
    """
    listed = [entries_of(step, label, ROWS) for step in steps]
    longest = max(map(len, listed))
    with figure(2.2 + 2.1 * len(steps), max(0.75 + 0.22 * longest, 2.1)) as page:
        ratios = [1.0, *[1.15] * len(steps)]
        first, *others = page.subplots(1, 1 + len(steps), width_ratios=ratios)
        show_image(first, image, f'{len(names)} classes')
        first.set_anchor('N')
        if label is not None:
            first.text(
                0.5, -0.04, f'true class:\n{shortened(names[label])}', color=TRUE,
                ha='center', va='top', transform=first.transAxes,
            )  # fmt: skip
        for axes, step, entries in zip(others, steps, listed):
            _draw_step(axes, step, entries, names, label, longest)
        fate = _fate(steps, label)
        if fate:
            colour = INK if fell_out(steps, label) is None else TRUE
            page.suptitle(fate, x=0.01, ha='left', fontsize=9, color=colour)
        save(page, path)


def _fate(steps: Sequence[Step], label: int | None) -> str:
    """What became of the true class, in words."""
    if label is None:
        return ''
    stage = fell_out(steps, label)
    if stage is None:
        return 'The true class remains to the end.'
    if stage == steps[-1].stage and steps[-1].kept.sum() == 1:
        return 'The true class is considered to the end, but another one is likelier.'
    return f'The true class falls out after stage {stage}.'


def _draw_step(
    axes: Axes,
    step: Step,
    entries: Sequence[Entry],
    names: Sequence[str],
    label: int | None,
    lines: int,
) -> None:
    count = int(step.kept.sum())
    axes.set_title(f'→ {count} after stage {step.stage}', loc='left', fontweight='bold')
    axes.set_xlim(0, 1)
    axes.set_ylim(lines - 0.4, -0.6)
    axes.axis('off')
    largest = max(float(step.scores.max()), 1e-12)
    for row, entry in enumerate(entries):
        true = entry.label == label
        colour = TRUE if true else KEPT
        if entry.kept:
            axes.barh(row + 0.32, entry.score / largest, height=0.22, color=colour, alpha=0.85)
        else:
            axes.barh(row + 0.32, 1, height=0.05, color=DROPPED, alpha=0.8)
        mark = '' if not true else '✓ ' if entry.kept else '✗ '
        # Classes that were dropped before share the last place.
        place = f' ({entry.rank}.)' if row + 1 != entry.rank and entry.score else ''
        axes.text(
            0, row, f'{mark}{shortened(names[entry.label])}{place}', color=TRUE if true else INK,
            va='center', fontweight='bold' if true else 'normal', fontsize=8,
        )  # fmt: skip
        axes.text(1, row, _number(entry.score), va='center', ha='right', fontsize=8)


def _number(score: float) -> str:
    return f'{score:.2f}' if score >= 0.005 else f'{score:.0e}' if score else '0'
