"""What built data sets say about themselves, for all three frameworks."""

from collections.abc import Iterable, Iterator
from typing import NamedTuple

from mmctx.engine.data import PATHS
from mmctx.errors import UserError

LABELS = ('gt_label', 'label')


class Sample(NamedTuple):
    """A sample whose label is that of its file.

    Attributes:
        path (str): Path of the file, or of the folder of frames.
        labels (tuple[int, ...]): Labels of the sample; empty if there are none.
        is_folder (bool): Whether the path is a folder of frames.
    """

    path: str
    labels: tuple
    is_folder: bool = False


def leaves(dataset) -> list:
    """Collect the data sets inside wrappers such as RepeatDataset and ConcatDataset."""
    inner = [getattr(dataset, 'dataset', None), *(getattr(dataset, 'datasets', None) or ())]
    inner = [part for part in inner if hasattr(part, '__len__') and not isinstance(part, dict)]
    return [leaf for part in inner for leaf in leaves(part)] if inner else [dataset]


def metainfo(dataset) -> dict:
    """`metainfo` of a data set; empty if it has none."""
    found = getattr(dataset, 'metainfo', None)
    return found if isinstance(found, dict) else {}


def class_names(info: dict) -> tuple | None:
    """Class names in the `metainfo` of a data set; None if there are none."""
    names = info.get('classes')
    return tuple(names) if isinstance(names, (list, tuple)) else None


def samples_of(dataset) -> Iterator[Sample]:
    """Files and labels of a data set that labels whole files; nothing for other data sets."""
    if not hasattr(dataset, 'get_data_info'):
        return
    for index in range(len(dataset)):
        info = dataset.get_data_info(index)
        key = next((key for key in PATHS if isinstance(info.get(key), str)), None)
        if key is None or 'instances' in info:
            return
        label = next((info[key] for key in LABELS if key in info), ())
        labels = label if isinstance(label, (list, tuple)) else (label,)
        numbers = tuple(number for number in labels if isinstance(number, int))
        yield Sample(info[key], numbers, key == 'frame_dir')


def check_range(labels: Iterable[tuple[str, int]], limit: int, name: str, why: str) -> None:
    """Check that labels of files are below a number of classes; `why` says where that is from."""
    for path, label in labels:
        if not 0 <= label < limit:
            raise UserError(
                f'{path} has the label {label} in {name}, but {why}: classes are numbered from 0'
            )


def name_of(dataset) -> str:
    """Description of a data set for messages: its file, its folder, or its class."""
    for key in ('ann_file', 'img_prefix', 'data_root'):
        if isinstance(getattr(dataset, key, None), str) and getattr(dataset, key):
            return getattr(dataset, key)
    return type(dataset).__name__
