"""Files inside zip archives, which all of OpenMMLab can read as `zip://<archive>!/<member>`."""

import os
from zipfile import ZipFile

from mmengine.fileio import BaseStorageBackend, register_backend

PREFIX = 'zip://'


def zip_path(archive: str | os.PathLike, member: str) -> str:
    """Make the path of an archive's member, for mmengine's file functions."""
    return f'{PREFIX}{archive}!/{member}'


@register_backend('zip', prefixes='zip', force=True)
class ZipBackend(BaseStorageBackend):
    """Reader of members of zip archives; each process opens an archive once and keeps it open."""

    def __init__(self):
        self._archives: dict[tuple[int, str], ZipFile] = {}

    def get(self, filepath: str) -> bytes:
        """Contents of a file.

        Args:
            filepath (str): Path made by `zip_path`.

        Raises:
            FileNotFoundError: The archive does not exist, or has no such member.
        """
        archive, _, member = filepath.removeprefix(PREFIX).partition('!/')
        # Workers are forked, and processes that share an open file share its position too.
        key = os.getpid(), archive
        if key not in self._archives:
            self._archives[key] = ZipFile(archive)
        try:
            return self._archives[key].read(member)
        except KeyError as error:
            raise FileNotFoundError(f'{archive} has no {member}') from error

    def get_text(self, filepath: str, encoding: str = 'utf-8') -> str:
        """Contents of a text file."""
        return self.get(filepath).decode(encoding)
