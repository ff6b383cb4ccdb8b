"""mmengine's file backend for local disks, changed so that no incomplete file ever appears."""

import os
from contextlib import contextmanager

from mmengine.fileio import LocalBackend, register_backend

from mmctx.files import atomic_write

NAME = 'mmctx.atomic'


class AtomicBackend(LocalBackend):
    """mmengine's local backend; a written file appears under its name only when it is complete."""

    def __init__(self):
        self._put_off = None

    def put(self, obj: bytes, filepath: str | os.PathLike) -> None:
        """Write a file, as :func:`atomic_write` does."""
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
        """Remove files only at the end of the context, and not at all if the context fails."""
        if self._put_off is not None:
            yield
            return
        self._put_off = []
        try:
            yield
            put_off, self._put_off = self._put_off, None
            for filepath, inode in put_off:
                # A file that has been written again under the same name is kept.
                if os.path.exists(filepath) and os.stat(filepath).st_ino == inode:
                    super().remove(filepath)
        finally:
            self._put_off = None


register_backend(NAME, AtomicBackend, force=True)
