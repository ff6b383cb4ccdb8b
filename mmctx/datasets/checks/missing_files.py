"""Missing files of a data set."""

import os
from collections import defaultdict
from pathlib import Path


def missing_files(names, folder, folders=False):
    """Find missing files by listing each of their folders once.

    Args:
        names (iterable of str): Paths of files, relative to the folder.
        folder (str | Path): Path of the folder.
        folders (bool): Whether the paths are those of folders, such as the frames of videos.
            Defaults to False.

    Returns:
        list[str]: Paths of the missing files.
    """
    by_folder = defaultdict(set)
    for name in names:
        parent, file = os.path.split(name)
        by_folder[parent].add(file)
    missing = []
    for parent, files in by_folder.items():
        inner = Path(folder) / parent
        there = (
            {
                entry.name
                for entry in os.scandir(inner)
                if entry.is_dir() == folders and leads_somewhere(entry)
            }
            if inner.is_dir()
            else set()
        )
        missing += [os.path.join(parent, file) for file in files - there]
    return missing


def leads_somewhere(entry):
    """Whether an entry of a folder is a file, a folder or a link that is not broken."""
    return not entry.is_symlink() or os.path.exists(entry.path)


def dangling_links(folder):
    """Find broken links beneath a folder.

    Args:
        folder (str | Path): Path of the folder.

    Returns:
        list[str]: Paths of the links.
    """
    found, folders = [], [folder]
    while folders:
        for entry in os.scandir(folders.pop()):
            if not leads_somewhere(entry):
                found.append(entry.path)
            elif entry.is_dir(follow_symlinks=False):
                folders.append(entry.path)
    return found
