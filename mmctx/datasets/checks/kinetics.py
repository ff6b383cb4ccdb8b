"""Check of Kinetics: its lists of videos, and all frames of the videos."""

from importlib.util import find_spec
from pathlib import Path

from mmctx.datasets import SPLITS
from mmctx.datasets.video_file import check_video
from mmctx.errors import UserError

from .full_check import Item, Plan, Problem
from .listed_files import ListedFiles

PREPARE = 'python tools/dataset_converters/prepare_kinetics.py'


def reads_video_list(cls: type | None) -> bool:
    """Whether a class is mmctx's `VideoDataset` or inherits from it."""
    return any(base.__module__ == 'mmctx.datasets.video' for base in getattr(cls, '__mro__', ()))


def plan_kinetics(root: Path, splits: list[str] | None = None, classes: int = 400) -> Plan:
    """Plan a check of the lists `kinetics400_{train,val}_list_videos.txt` and their videos.

    Args:
        root (Path): Folder of the data, the K400_ROOT of the configs.
        splits (list[str], optional): Names of the splits, `train` or `val`. Defaults to None, the
            splits with a list.
        classes (int): Number of classes. Defaults to 400.

    Returns:
        Plan: Check, with the problems of the lists.

    Raises:
        UserError: A list is missing, or PyAV is not installed.
    """
    if find_spec('av') is None:
        raise UserError('videos are read by PyAV: pip install av')
    lists = {split: f'kinetics400_{split}_list_videos.txt' for split in splits or SPLITS}
    there = {split: name for split, name in lists.items() if (root / name).is_file()}
    if not there or (splits and len(there) < len(lists)):
        absent = next(name for split, name in lists.items() if split not in there)
        raise UserError(f'{root / absent} does not exist: write it by "{PREPARE} {root}"')
    listed = [ListedFiles(root, name, f'videos_{split}', classes) for split, name in there.items()]
    items = [item for files in listed for item in files.items]
    problems = [problem for files in listed for problem in files.problems]
    return Plan(f'{len(items)} videos', problems, items, read_video, 1)


def read_video(item: Item) -> list[Problem]:
    """Find the problems of the video whose path is the `facts` of an item."""
    problem = check_video(item.facts, full=True).problem
    return [Problem(item.name, f'is no whole video: {problem}')] if problem else []
