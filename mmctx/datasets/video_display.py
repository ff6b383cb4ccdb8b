"""How a video is to be shown: rotation, mirroring and shape of pixels, as its container states.

Phones record frames in landscape format with a matrix that turns or mirrors them. The pixels of DV,
DVDs and many broadcasts are not square.
"""

from typing import NamedTuple

import numpy as np


class Display(NamedTuple):
    """How the frames of a video are to be shown.

    Attributes:
        width (int): Width of a decoded frame in pixels, after its pixels have been made square.
        height (int): Height of a decoded frame in pixels.
        turns (tuple[tuple[int, int], tuple[int, int]]): Directions of the axes of a frame when it
            is shown, as ((a, b), (c, d)): a step along x becomes (a, b), a step along y becomes (c,
            d). Each number is 1, 0 or -1; y points downwards.
    """

    width: int
    height: int
    turns: tuple[tuple[int, int], tuple[int, int]] = ((1, 0), (0, 1))

    @property
    def size(self) -> tuple[int, int]:
        """Width and height in pixels as the video is shown."""
        return (self.height, self.width) if self.turns[0][1] else (self.width, self.height)

    def show(self, frame) -> np.ndarray:
        """Convert a decoded frame to an RGB image, (H, W, 3) uint8, as it is to be shown."""
        image = frame.to_ndarray(format='rgb24', width=self.width, height=self.height)
        (a, b), (c, d) = self.turns
        if b:
            image, a, d = image.transpose(1, 0, 2), c, b
        return np.ascontiguousarray(image[::d, ::a])


def display_of(stream, frame) -> Display:
    """How a video is to be shown.

    Args:
        stream (av.VideoStream): Stream of the video, which states the shape of its pixels.
        frame (av.VideoFrame): First frame of the video, which has the size and the matrix.
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
