"""How a video is to be shown, which its container says besides its pixels.

Phones record lying frames and a matrix that turns or mirrors them; pixels of DV, DVDs and many
broadcasts are not square.
"""

from typing import NamedTuple

import numpy as np


class Display(NamedTuple):
    """How the frames of a video are to be shown.

    Attributes:
        width (int): Width of a decoded frame once its pixels are square.
        height (int): Height of it, in pixels.
        turns (tuple[tuple[int, int], tuple[int, int]]): Where the axes of a frame lead, as
            ((a, b), (c, d)): a step along x goes to (a, b), one along y to (c, d); each of 1, 0,
            -1, with y pointing downwards.
    """

    width: int
    height: int
    turns: tuple[tuple[int, int], tuple[int, int]] = ((1, 0), (0, 1))

    @property
    def size(self) -> tuple[int, int]:
        """Width and height in pixels as the video is shown."""
        return (self.height, self.width) if self.turns[0][1] else (self.width, self.height)

    def show(self, frame) -> np.ndarray:
        """An RGB image, (H, W, 3) uint8, of a decoded frame."""
        image = frame.to_ndarray(format='rgb24', width=self.width, height=self.height)
        (a, b), (c, d) = self.turns
        if b:
            image, a, d = image.transpose(1, 0, 2), c, b
        return np.ascontiguousarray(image[::d, ::a])


def display_of(stream, frame) -> Display:
    """How a video is to be shown.

    Args:
        stream (av.VideoStream): The stream, for the shape of its pixels.
        frame (av.VideoFrame): Its first frame, for size and matrix.
    """
    aspect = stream.sample_aspect_ratio or 1
    width = max(round(frame.width * aspect), 1)
    matrix = frame.side_data.get('DISPLAYMATRIX')
    if matrix is None:
        return Display(width, frame.height)
    a, b, _, c, d, *_ = (int(number) for number in np.frombuffer(bytes(matrix), np.int32))
    if abs(a) + abs(d) > abs(b) + abs(c):
        return Display(width, frame.height, ((_sign(a), 0), (0, _sign(d))))
    if b and c:
        return Display(width, frame.height, ((0, _sign(b)), (_sign(c), 0)))
    return Display(width, frame.height)


def _sign(number):
    return -1 if number < 0 else 1
