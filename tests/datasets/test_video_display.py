"""Videos are shown as their containers say: turned, mirrored, with square pixels."""

import struct

import av
import cv2
import numpy as np
import pytest

from mmctx.datasets.video_file import Video, check_video

# The upper left corner red, the upper right green, the lower left blue, the lower right grey.
WIDTH, HEIGHT = 96, 64


def picture():
    image = np.full((HEIGHT, WIDTH, 3), 120, np.uint8)
    image[: HEIGHT // 2, : WIDTH // 2] = 250, 20, 20
    image[: HEIGHT // 2, WIDTH // 2 :] = 20, 250, 20
    image[HEIGHT // 2 :, : WIDTH // 2] = 20, 20, 250
    return image


def write(path, matrix=None, aspect=None):
    with av.open(str(path), 'w') as out:
        stream = out.add_stream('mpeg4', rate=12)
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, 'yuv420p'
        if aspect is not None:
            stream.codec_context.sample_aspect_ratio = aspect
        for _ in range(4):
            frame = av.VideoFrame.from_ndarray(picture(), format='rgb24')
            for packet in stream.encode(frame):
                out.mux(packet)
        for packet in stream.encode():
            out.mux(packet)
    if matrix is not None:
        a, b, c, d = (65536 * n for n in matrix)
        data = bytearray(path.read_bytes())
        # The matrix of the track header, behind its times, duration and layer.
        at = data.find(b'tkhd') + 4 + 4 + 20 + 16
        data[at : at + 36] = struct.pack('>9i', a, b, 0, c, d, 0, 0, 0, 0x40000000)
        path.write_bytes(data)


TURNS = {
    'as it is': ((1, 0, 0, 1), lambda image: image),
    'a quarter clockwise': ((0, 1, -1, 0), lambda image: np.rot90(image, -1)),
    'a quarter counterclockwise': ((0, -1, 1, 0), lambda image: np.rot90(image)),
    'upside down': ((-1, 0, 0, -1), lambda image: image[::-1, ::-1]),
    'mirrored': ((-1, 0, 0, 1), lambda image: image[:, ::-1]),
    'mirrored and turned': ((0, 1, 1, 0), lambda image: image.transpose(1, 0, 2)),
}


@pytest.mark.parametrize('name', TURNS)
def test_frames_are_turned_and_mirrored(tmp_path, name):
    matrix, turn = TURNS[name]
    write(tmp_path / 'clip.mp4', matrix)
    wanted = turn(picture())
    image = Video(str(tmp_path / 'clip.mp4')).read([0])[0]
    assert image.shape == wanted.shape
    assert np.abs(image.astype(int) - wanted).mean() < 12
    facts = check_video(str(tmp_path / 'clip.mp4'))
    assert (facts.height, facts.width) == wanted.shape[:2]


@pytest.mark.parametrize('name', [name for name in TURNS if 'mirrored' not in name])
def test_frames_are_turned_as_by_opencv(tmp_path, name):
    write(tmp_path / 'clip.mp4', TURNS[name][0])
    there, wanted = cv2.VideoCapture(str(tmp_path / 'clip.mp4')).read()
    image = Video(str(tmp_path / 'clip.mp4')).read([0])[0]
    assert there and np.abs(image.astype(int) - wanted[..., ::-1]).mean() < 12


def test_pixels_become_square(tmp_path):
    from fractions import Fraction

    write(tmp_path / 'clip.mp4', aspect=Fraction(4, 3))
    images = Video(str(tmp_path / 'clip.mp4')).read([0, 2])
    assert [image.shape for image in images] == [(64, 128, 3)] * 2
    assert check_video(str(tmp_path / 'clip.mp4')).width == 128
