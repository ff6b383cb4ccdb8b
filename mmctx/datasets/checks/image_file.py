"""Check that an image file is complete."""

import contextlib
import os
import sys
import tempfile
import warnings
from io import BytesIO

import cv2
import numpy as np
from mmengine import fileio
from PIL import Image, UnidentifiedImageError

from mmctx.datasets import zip_backend  # noqa: F401 - serves zip:// paths in the reading processes

from .full_check import Item, Problem

# Warnings after which libjpeg continues with wrong pixels.
CORRUPTION_WARNINGS = ('Corrupt JPEG data', 'Premature end of JPEG')


def image_problem(path: str) -> tuple[str, tuple[int, int] | None]:
    """Decode an image by Pillow, which does not accept truncated files, and as in training.

    Training reads images by OpenCV, which rotates an image by its EXIF tag and, depending on the
    version, fills the missing part of a truncated JPEG with grey.

    Args:
        path (str): Path of the image, for mmengine's file functions.

    Returns:
        tuple: Problem of the image, '' if there is none, and its width and height in training or
            None.
    """
    try:
        contents = fileio.get(path)
    except Exception as error:
        return f'cannot be read: {error}', None
    if not contents:
        return 'is an empty file', None
    try:
        with warnings.catch_warnings():
            warnings.simplefilter('ignore')
            with Image.open(BytesIO(contents)) as image:
                image.load()
    except UnidentifiedImageError:
        return 'is no image', None
    # Its decoders raise errors of any kind for malicious files.
    except Exception as error:
        return f'is no whole image: {str(error) or type(error).__name__}', None
    with _native_stderr() as said:
        try:
            pixels = cv2.imdecode(np.frombuffer(contents, np.uint8), cv2.IMREAD_COLOR)
        except cv2.error:
            pixels = None
    if pixels is None:
        return f'is {image.format}, which OpenCV cannot decode', None
    warned = [line for line in said if line.startswith(CORRUPTION_WARNINGS)]
    if warned:
        return f'is damaged: {warned[0]}', None
    return '', pixels.shape[1::-1]


def read_image(item: Item) -> list[Problem]:
    """Find the problems of the image whose path is the `facts` of an item."""
    problem, _ = image_problem(item.facts)
    return [Problem(item.name, problem)] if problem else []


@contextlib.contextmanager
def _native_stderr():
    """Context that collects the lines that C libraries write to stderr."""
    lines = []
    sys.stderr.flush()
    kept = os.dup(2)
    with tempfile.TemporaryFile() as file:
        os.dup2(file.fileno(), 2)
        try:
            yield lines
        finally:
            os.dup2(kept, 2)
            os.close(kept)
            file.seek(0)
            lines += file.read().decode(errors='replace').splitlines()
