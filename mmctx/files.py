"""Names of files, and atomic writing: a file appears complete or not at all."""

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO


@contextmanager
def atomic_write(path: str | os.PathLike) -> Iterator[BinaryIO]:
    """Open a file for writing that appears under its name once all of it is on the disk.

    Args:
        path (str | os.PathLike): Path of the file. An existing file is replaced; the folder is
            created if it is missing.

    Yields:
        BinaryIO: Open file to write the contents to.

    Raises:
        OSError: The file cannot be written; the error names its path, and an existing file is
            unchanged.
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
    """Find the incomplete files that killed processes left behind.

    Args:
        folder (str | os.PathLike): Folder of the files.
        pattern (str): Pattern of the names that the complete files would have, such as `*.pth`.

    Returns:
        Iterator[Path]: Paths of the incomplete files.
    """
    return Path(folder).glob(f'.{pattern}.*.part')


def picture_names(files: Sequence[str], folder: Path, ending: str) -> dict[str, Path]:
    """Where to put the picture of each file: as the files lie beneath their common folder.

    Args:
        files (Sequence[str]): Images or videos.
        folder (Path): Where pictures go.
        ending (str): What follows the full name of a file in that of its picture, such as `.jpg`.

    Returns:
        dict[str, Path]: A picture for each file.
    """
    absolute = [os.path.abspath(file) for file in files]
    common = os.path.commonpath([os.path.dirname(file) for file in absolute])
    names = {}
    for file, path in zip(files, absolute):
        inside = Path(os.path.relpath(path, common))
        names[file] = folder / inside.with_name(f'{inside.name}{ending}')
    return names


def _sync_folder(folder):
    if os.name == 'nt':
        # Windows does not open folders.
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError:
        # Some network file systems refuse; the contents of the file are on the disk anyway.
        pass
    finally:
        os.close(descriptor)
