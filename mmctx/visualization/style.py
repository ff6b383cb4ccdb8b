"""The one style of all figures: colours that colour-blind readers can tell apart, on white."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure

# Okabe and Ito's palette; figures say everything by a mark or a word too.
KEPT = '#0072B2'
TRUE = '#D55E00'
DROPPED = '#9A9A9A'
INK = '#222222'
# Even in lightness; black is nothing.
HEAT = 'magma'
SHARE = 'cividis'
DOTS_PER_INCH = 150
_SETTINGS: Any = {
    'font.family': 'sans-serif',
    'font.sans-serif': ['DejaVu Sans'],
    'font.size': 9,
    'axes.titlesize': 9,
    'axes.labelsize': 9,
    'axes.edgecolor': INK,
    'axes.spines.top': False,
    'axes.spines.right': False,
    'text.color': INK,
    'figure.facecolor': 'white',
    'savefig.facecolor': 'white',
    'svg.hashsalt': 'mmctx',
}


@contextmanager
def figure(width: float, height: float) -> Iterator[Figure]:
    """A figure in the style of all others, whose parts are laid out by matplotlib.

    Args:
        width (float): Width in inches.
        height (float): Height in inches.
    """
    with matplotlib.rc_context(_SETTINGS):
        # Not by pyplot, which keeps figures and asks for a display.
        yield Figure((width, height), layout='constrained')


def save(figure: Figure, path: str | os.PathLike) -> None:
    """Write a figure into a file of the type that its name ends in; its folder is made."""
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=DOTS_PER_INCH)


def show_image(axes: Axes, image, title: str = '') -> None:
    """Show an image, (H, W, 3) uint8 RGB, alone in its axes."""
    axes.imshow(image, interpolation='nearest')
    axes.set_title(title)
    axes.axis('off')


def shortened(name: str, length: int = 22) -> str:
    """A class name that fits beside a bar."""
    name = name.partition(',')[0]
    return name if len(name) <= length else f'{name[: length - 1]}…'
