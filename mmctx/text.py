"""Text files, whichever of Unicode's encodings their byte order mark states."""

import codecs
import os
from pathlib import Path

# UTF-32's little-endian mark begins with UTF-16's.
_ENCODINGS = (
    (codecs.BOM_UTF8, 'utf-8-sig'),
    (codecs.BOM_UTF32_LE, 'utf-32'),
    (codecs.BOM_UTF32_BE, 'utf-32'),
    (codecs.BOM_UTF16_LE, 'utf-16'),
    (codecs.BOM_UTF16_BE, 'utf-16'),
)
MARKS = tuple(mark for mark, _ in _ENCODINGS)


def decode_text(contents: bytes) -> str:
    """Text of a file, without the byte order mark that Windows' programs begin one with.

    Raises:
        UnicodeDecodeError: The file is no text in its mark's encoding, without a mark UTF-8.
    """
    marked = (name for mark, name in _ENCODINGS if contents.startswith(mark))
    return contents.decode(next(marked, 'utf-8'))


def read_text(path: str | os.PathLike) -> str:
    """Text of a local file, as :func:`decode_text`; ends of lines become `\\n`.

    Raises:
        OSError: The file cannot be read.
        UnicodeDecodeError: The file is no text.
    """
    return with_plain_line_ends(decode_text(Path(path).read_bytes()))


def with_plain_line_ends(text: str) -> str:
    """Text whose lines end in `\\n`, whichever system wrote it."""
    return text.replace('\r\n', '\n').replace('\r', '\n')
