"""Lists of checked videos, made from class folders or from the tables of Kinetics."""

import csv
import io
import os
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from mmctx.datasets import SPLITS
from mmctx.datasets.checks.video_report import check_videos
from mmctx.datasets.video_file import VideoFacts
from mmctx.datasets.video_list import write_video_list
from mmctx.errors import UserError, first_few
from mmctx.text import read_text

EXTENSIONS = ('.mp4', '.avi', '.mkv', '.webm', '.mov', '.m4v', '.flv', '.mpg', '.mpeg', '.wmv')
CSV_COLUMNS = ('label', 'youtube_id', 'time_start', 'time_end', 'split')
# Names of the validation set in different editions of the tables.
CSV_SPLITS = {'train': 'train', 'val': 'val', 'validate': 'val'}


class Split(NamedTuple):
    """The videos of a split.

    Attributes:
        name (str): `train` or `val`.
        folder (Path): Folder of the videos.
        classes (dict[str, str]): Class of each video, by its path relative to the folder.
        missing (list[str]): Names of the videos that a table lists and the folder lacks.
    """

    name: str
    folder: Path
    classes: dict
    missing: list


def find_splits(root: Path, tables: list[Path]) -> list[Split]:
    """Find the videos beneath `videos_train/` and `videos_val/`; one of the two may be missing.

    Args:
        root (Path): Folder of the data.
        tables (list[Path]): Kinetics' csv files, which state the class of each video. If the list
            is empty, the class of a video is the name of its folder.

    Returns:
        list[Split]: A split for each of the two folders that exists.

    Raises:
        UserError: Both folders are missing, one has no videos, or a table is malformed.
    """
    rows = [row for table in tables for row in _read_table(table)]
    splits = []
    for name in SPLITS:
        folder = root / f'videos_{name}'
        if not folder.is_dir():
            continue
        files = list(_video_files(folder))
        if tables:
            classes, missing = _match(files, [row for row in rows if row['split'] == name])
        else:
            classes, missing = {file: file.split('/')[0] for file in files if '/' in file}, []
        if not classes:
            how = 'named in the tables' if tables else 'in class folders; without those give --csv'
            raise UserError(f'{folder} has no videos {how}')
        splits.append(Split(name, folder, classes, missing))
    if not splits:
        raise UserError(
            f'there is neither {root}/videos_train nor {root}/videos_val; for videos in a folder '
            f'of another name make a link, e.g. ln -s train {root}/videos_train'
        )
    return splits


def _video_files(folder: Path) -> Iterator[str]:
    for parent, _, names in os.walk(folder, followlinks=True):
        inside = Path(parent).relative_to(folder)
        for name in names:
            if name.lower().endswith(EXTENSIONS):
                path = (inside / name).as_posix()
                if path != path.strip() or len(path.splitlines()) > 1:
                    raise UserError(f'rename {path!r} in {folder}: a list cannot hold such a name')
                yield path


def _read_table(path: Path) -> list[dict]:
    try:
        text = read_text(path)
        # Excel's "Unicode text" separates columns by tabs.
        delimiter = '\t' if '\t' in text.partition('\n')[0] else ','
        rows = list(csv.DictReader(io.StringIO(text, newline=''), delimiter=delimiter))
    except (OSError, ValueError, csv.Error) as error:
        raise UserError(f'cannot read {path}: {error}') from error
    for number, row in enumerate(rows, start=2):
        try:
            row['split'] = CSV_SPLITS.get(row['split'])
            start, end = int(float(row['time_start'])), int(float(row['time_end']))
            row['name'] = f'{row["youtube_id"]}_{start:06d}_{end:06d}'
            row['label'].strip()
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            columns = ', '.join(CSV_COLUMNS)
            raise UserError(f'{path}, line {number}: expected the columns {columns}') from error
    return rows


def _match(files: list[str], rows: list[dict]) -> tuple[dict, list]:
    by_stem = defaultdict(list)
    for file in files:
        by_stem[Path(file).stem].append(file)
    labels, missing = defaultdict(set), []
    for row in rows:
        found = by_stem.get(row['name']) or by_stem.get(row['youtube_id']) or []
        if not found:
            missing.append(row['name'])
        if len(found) > 1:
            raise UserError(
                f'{" and ".join(sorted(found))} have one name, which a table gives the class '
                f'{row["label"].strip()!r}: remove or rename all but one'
            )
        for file in found:
            labels[file].add(row['label'].strip())
    unclear = sorted(file for file, names in labels.items() if len(names) > 1)
    if unclear:
        names = ' and '.join(map(repr, sorted(labels[unclear[0]])))
        raise UserError(
            f'rows of the tables contradict each other for {len(unclear)} of {len(labels)} videos: '
            f'{unclear[0]} is {names}, like two clips of one whole video; cut them '
            'out as <youtube id>_<start>_<end>.mp4, or remove rows'
        )
    return {file: names.pop() for file, names in labels.items()}, missing


def read_classes(path: Path) -> list[str]:
    """Read class names, one on each line, in the order of their numbers.

    Raises:
        UserError: The file cannot be read, is empty, or contains a name twice.
    """
    try:
        lines = [line.strip() for line in read_text(path).splitlines()]
    except (OSError, ValueError) as error:
        raise UserError(f'cannot read {path}: {error}') from error
    names = [line for line in lines if line]
    if not names or len(set(names)) < len(names):
        raise UserError(f'{path} should name each class once, one a line')
    return names


def number_classes(splits: list[Split], names: list[str] | None = None) -> dict[str, int]:
    """Number the classes.

    Args:
        splits (list[Split]): Splits of :func:`find_splits`.
        names (list[str], optional): Class names in the order of their numbers. Defaults to None,
            the sorted names of the classes that were found.

    Returns:
        dict[str, int]: The number of each class.

    Raises:
        UserError: A split has classes that are not among the names or the training set's.
    """
    found = {split.name: set(split.classes.values()) for split in splits}
    known = set(names) if names else found.get('train', found[splits[0].name])
    for split in splits:
        unknown = found[split.name] - known
        if unknown:
            of = 'among the given ones' if names else 'in the training set'
            raise UserError(
                f'{len(unknown)} classes of {split.folder} are not {of}: {first_few(unknown)}'
            )
    return {name: number for number, name in enumerate(names or sorted(known))}


def prepare(
    splits: list[Split], numbers: dict, out: Path, full: bool, skip_broken: bool, nproc: int
) -> Iterator[str]:
    """Check the videos and write their lists; videos checked earlier are not checked again.

    Args:
        splits (list[Split]): Splits of :func:`find_splits`.
        numbers (dict[str, int]): Number of each class, as :func:`number_classes` returns it.
        out (Path): Folder for the lists and the reports.
        full (bool): Whether to decode every frame.
        skip_broken (bool): Whether to leave broken videos out of the lists.
        nproc (int): Number of processes.

    Yields:
        str: A message for the user about what was done.

    Raises:
        UserError: A video is broken and `skip_broken` is not set, or a split has no good video. In
            both cases no list is written.
    """
    good, broken = {}, []
    for split in splits:
        report = out / f'kinetics400_{split.name}_videos.tsv'
        facts = check_videos(split.folder, split.classes, report, full, nproc)
        good[split.name] = sorted(name for name, fact in facts.items() if not fact.problem)
        for name in sorted(set(facts) - set(good[split.name])):
            broken.append(split.folder / name)
            yield f'{broken[-1]} is broken: {facts[name].problem}'
        yield f'{summary(split, facts)}; see {report}'
    if broken and not skip_broken:
        raise UserError(
            f'{len(broken)} videos are broken: {first_few(broken)}; replace them, or leave them '
            'out of the lists by --skip-broken'
        )
    if not all(good.values()):
        raise UserError('there is a split without any good video')
    for split in splits:
        path = out / f'kinetics400_{split.name}_list_videos.txt'
        videos = [(name, numbers[split.classes[name]]) for name in good[split.name]]
        write_video_list(str(path), videos)
        yield f'wrote {path}, {len(videos)} videos'


def summary(split: Split, facts: dict[str, VideoFacts]) -> str:
    """Describe how many videos, classes and frames a split has, in a sentence."""
    frames = [fact.frames for fact in facts.values() if not fact.problem]
    hours = sum(fact.seconds for fact in facts.values()) / 3600
    text = f'{split.folder}: {len(facts)} videos of {len(set(split.classes.values()))} classes'
    if frames:
        text += (
            f', {min(frames)} to {max(frames)} frames each, {sum(frames)} ({hours:.2f} h) in all'
        )
    if split.missing:
        text += f'; {len(split.missing)} of the tables are not there: {first_few(split.missing)}'
    if len(frames) < len(facts):
        text += f'; {len(facts) - len(frames)} broken'
    return text
