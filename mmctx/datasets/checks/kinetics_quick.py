"""Checks of a list of videos: is it in mmaction2's format, and are its videos there?"""

from mmctx.datasets.video_list import read_video_list
from mmctx.errors import UserError, first_few

from .missing_files import missing_files

PREPARE = 'python tools/dataset_converters/prepare_kinetics.py'


def reads_video_list(cls):
    """Whether a class is mmctx's `VideoDataset`, or one that inherits from it."""
    return any(base.__module__ == 'mmctx.datasets.video' for base in getattr(cls, '__mro__', ()))


def check_video_dataset(dataset, path, folder, num_classes=None):
    """Check the list of a data set of videos, unless it has several labels for each of them.

    Args:
        dataset (dict): Config of the data set.
        path (str | Path): Its list.
        folder (str | Path): Folder that the file names in the list start from.
        num_classes (int, optional): Number of classes of the model. Defaults to None, any.

    Raises:
        UserError: As :func:`check_video_list`.
    """
    elsewhere = any(step.get('backend_args') for step in dataset.get('pipeline') or ())
    if not elsewhere and not dataset.get('multi_class'):
        limits = [n for n in (dataset.get('num_classes'), num_classes) if n is not None]
        delimiter = dataset.get('delimiter', ' ')
        check_video_list(path, folder, min(limits, default=None), delimiter)


def check_video_list(path, folder, num_classes=None, delimiter=' '):
    """Check a list of videos; each folder is listed once, no file is looked up singly or opened.

    Args:
        path (str | Path): The list.
        folder (str | Path): Folder that its file names start from.
        num_classes (int, optional): Labels must be below it. Defaults to None, any.
        delimiter (str): What separates file and label. Defaults to ' '.

    Raises:
        UserError: If a line is malformed, a label is out of range or videos are missing.
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
