"""Files that are there whole or not at all."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO


@contextmanager
def atomic_write(path: str | os.PathLike) -> Iterator[BinaryIO]:
    """Open a file to be written, which appears under its name when all of it is on the disk.

    Args:
        path (str | os.PathLike): The file; one that is there is replaced. Its folder is made.

    Yields:
        BinaryIO: Where to write its contents.

    Raises:
        OSError: With the path, if the file cannot be written; what was there still is.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    # Several processes may write the same file.
    part = path.with_name(f'.{path.name}.{os.getpid()}.part')
    try:
        with open(part, 'wb') as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(part, path)
        _sync_folder(path.parent)
    except OSError as error:
        if error.filename not in (None, str(part)):
            raise
        raise OSError(error.errno, error.strerror, str(path)) from error
    finally:
        part.unlink(missing_ok=True)


def leftovers(folder: str | os.PathLike, pattern: str) -> Iterator[Path]:
    """Files that a process which was killed has left half-written.

    Args:
        folder (str | os.PathLike): Folder that they were to appear in.
        pattern (str): Pattern of their names, such as `*.pth`.
    """
    return Path(folder).glob(f'.{pattern}.*.part')


def _sync_folder(folder):
    if os.name == 'nt':
        # Folders cannot be opened there.
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError:
        # Some network file systems cannot; the file itself is safe.
        pass
    finally:
        os.close(descriptor)
