"""Files of a data set that are not there."""

import os
from collections import defaultdict
from pathlib import Path


def missing_files(names, folder, folders=False):
    """Which files are not there, found by listing each of their folders once.

    Args:
        names (iterable of str): Paths of files from the folder.
        folder (str | Path): The folder.
        folders (bool): Whether the paths are of folders, as of a video's frames, instead. Defaults
            to False.

    Returns:
        list[str]: The names of those that are missing.
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
    """Whether an entry of a folder is no link, or one to something that is there."""
    return not entry.is_symlink() or os.path.exists(entry.path)


def dangling_links(folder):
    """Links beneath a folder to files that are not there.

    Args:
        folder (str | Path): The folder.

    Returns:
        list[str]: Their paths.
    """
    found, folders = [], [folder]
    while folders:
        for entry in os.scandir(folders.pop()):
            if not leads_somewhere(entry):
                found.append(entry.path)
            elif entry.is_dir(follow_symlinks=False):
                folders.append(entry.path)
    return found
