"""Checks of Kinetics: its lists of videos, and the videos.

The quick check looks for the videos of a list; the full one decodes all of their frames.
"""

from importlib.util import find_spec
from pathlib import Path

from mmctx.datasets.video_file import check_video
from mmctx.datasets.video_list import read_video_list
from mmctx.errors import UserError, first_few

from .dataset_files import DatasetFiles
from .full_check import Item, Plan, Problem
from .listed_files import ListedFiles
from .missing_files import missing_files

PREPARE = 'python tools/dataset_converters/prepare_kinetics.py'
SPLITS = ('train', 'val')


def reads_video_list(cls: type | None) -> bool:
    """Whether a class is mmctx's `VideoDataset` or inherits from it."""
    return any(base.__module__ == 'mmctx.datasets.video' for base in getattr(cls, '__mro__', ()))


def quick_check(files: DatasetFiles) -> None:
    """Check the list of a video data set, unless videos have several labels.

    Args:
        files (DatasetFiles): Files of a data set; data sets of other kinds are not checked.

    Raises:
        UserError: :func:`check_video_list` refuses the list.
    """
    config = files.config
    elsewhere = any(step.get('backend_args') for step in config.get('pipeline') or ())
    if not files.ann_file or not reads_video_list(files.cls):
        return
    if not elsewhere and not config.get('multi_class'):
        limits = [n for n in (config.get('num_classes'), files.num_classes) if n is not None]
        folder = files.folders.get('video', files.root)
        check_video_list(
            files.ann_file, folder, min(limits, default=None), config.get('delimiter', ' ')
        )


def check_video_list(path, folder, num_classes=None, delimiter=' '):
    """Check a list of videos by listing each folder once, without opening the files.

    Args:
        path (str | Path): Path of the list.
        folder (str | Path): Folder to which the file names in the list are relative.
        num_classes (int, optional): Number of classes, which labels have to be below. Defaults to
            None, any label.
        delimiter (str): Separator of file and label. Defaults to ' '.

    Raises:
        UserError: A line is malformed, a label is out of range, or videos are missing.
    """
    try:
        videos = read_video_list(str(path), num_classes, delimiter)
    except OSError as error:
        raise UserError(f'cannot read {path}: {error.strerror}') from error
    missing = missing_files((name for name, _ in videos), folder)
    if missing:
        raise UserError(
            f'{len(missing)} of the {len(videos)} videos named in {path} are not in {folder}: '
            f'{first_few(missing)}; "{PREPARE} ROOT" writes lists of the videos that are there'
        )


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
