"""mmengine's way to a local disk, by which files are there whole or not at all."""

import os
from contextlib import contextmanager

from mmengine.fileio import LocalBackend, register_backend

from mmctx.files import atomic_write

NAME = 'mmctx.atomic'


class AtomicBackend(LocalBackend):
    """mmengine's local files, but a file that is written appears under its name when it is safe."""

    def __init__(self):
        self._put_off = None

    def put(self, obj: bytes, filepath: str | os.PathLike) -> None:
        """Write a file.

        Args:
            obj (bytes): Its contents.
            filepath (str | os.PathLike): Its path; a file that is there is replaced.

        Raises:
            OSError: With the path, if the file cannot be written; what was there still is.
        """
        with atomic_write(filepath) as file:
            file.write(obj)

    def remove(self, filepath: str | os.PathLike) -> None:
        """Remove a file, at once or when :meth:`deferred_removals` ends."""
        if self._put_off is None:
            super().remove(filepath)
        else:
            self._put_off.append((filepath, os.stat(filepath).st_ino))

    @contextmanager
    def deferred_removals(self):
        """Remove files at the end of the context only, and not at all if it fails."""
        if self._put_off is not None:
            yield
            return
        self._put_off = []
        try:
            yield
            put_off, self._put_off = self._put_off, None
            for filepath, inode in put_off:
                # A file that was written anew under the same name stays.
                if os.path.exists(filepath) and os.stat(filepath).st_ino == inode:
                    super().remove(filepath)
        finally:
            self._put_off = None


register_backend(NAME, AtomicBackend, force=True)
