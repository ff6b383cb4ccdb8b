"""Files of a data set that are not there."""

import os
from collections import defaultdict
from pathlib import Path


def missing_files(names, folder):
    """Which files are not there, found by listing each of their folders once.

    Args:
        names (iterable of str): Paths of files from the folder.
        folder (str | Path): The folder.

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
        there = set(os.listdir(inner)) if inner.is_dir() else set()
        missing += [os.path.join(parent, file) for file in files - there]
    return missing
