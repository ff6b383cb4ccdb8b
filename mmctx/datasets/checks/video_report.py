"""A table of checked videos that grows as they are checked, so that a later run can resume."""

import csv
import io
import os
from collections.abc import Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import NamedTuple

from rich.progress import track

from mmctx.datasets.video_file import VideoFacts, check_video
from mmctx.errors import UserError
from mmctx.files import atomic_write

from .parallel import Failure, map_unordered

CHUNK = 4


class Row(NamedTuple):
    """A line of the report.

    Attributes:
        file (str): Path of the video, relative to the folder.
        bytes (int): Size of the file in bytes, which shows whether it has changed since the check.
        checked (str): `decoded` if every frame was decoded, otherwise `opened`.
        facts (VideoFacts): Length and size of the video, or its problem.
    """

    file: str
    bytes: int
    checked: str
    facts: VideoFacts


COLUMNS = [*Row._fields[:-1], *VideoFacts._fields]


def check_videos(
    folder: Path, names: Iterable[str], report: Path, full: bool = False, nproc: int = 1
) -> dict[str, VideoFacts]:
    """Check videos, except those that the report lists as good and that have not changed.

    Args:
        folder (Path): Folder of the videos.
        names (Iterable[str]): Paths of the videos, relative to the folder.
        report (Path): Tab-separated table, to which each result is added at once; it is sorted at
            the end.
        full (bool): Whether to decode every frame, see `check_video`. Defaults to False.
        nproc (int): Number of processes. Defaults to 1.

    Returns:
        dict[str, VideoFacts]: Result for each video.

    Raises:
        UserError: The report is a file of another kind.
    """
    checked = 'decoded' if full else 'opened'
    sizes = {name: os.path.getsize(folder / name) for name in sorted(names)}
    done = {
        row.file: row
        for row in _read(report)
        if not row.facts.problem
        and row.bytes == sizes.get(row.file)
        and row.checked in (checked, 'decoded')
    }
    todo = [name for name in sizes if name not in done]
    if done:
        print(f'{report}: {len(done)} of {len(sizes)} videos were checked before', flush=True)
    _write(report, done.values())
    with open(report, 'a', encoding='utf-8', newline='') as file:
        found = _check(folder, todo, full, nproc)
        for name, facts in track(found, f'checking {folder.name}', len(todo)) if todo else ():
            done[name] = Row(name, sizes[name], checked, facts)
            _writer(file).writerow(_cells(done[name]))
            file.flush()
    _write(report, (done[name] for name in sizes))
    return {name: done[name].facts for name in sizes}


def _writer(file):
    return csv.writer(file, delimiter='\t', lineterminator='\n')


def _cells(row: Row) -> list:
    *known, facts = row
    return [*known, *facts._replace(seconds=round(facts.seconds, 3))]


def _write(report: Path, rows: Iterable[Row]):
    text = io.StringIO(newline='')
    _writer(text).writerow(COLUMNS)
    _writer(text).writerows(map(_cells, rows))
    with atomic_write(report) as file:
        file.write(text.getvalue().encode())


def _read(report: Path) -> Iterator[Row]:
    if not report.is_file():
        return
    with open(report, encoding='utf-8', newline='') as file:
        lines = csv.reader(file, delimiter='\t')
        if next(lines, None) != COLUMNS:
            raise UserError(f'{report} is not a report of videos: remove or rename it')
        for cells in lines:
            # The last line of an interrupted run may be incomplete.
            if len(cells) == len(COLUMNS):
                file_name, size, checked, frames, seconds, width, height, problem = cells
                facts = VideoFacts(int(frames), float(seconds), int(width), int(height), problem)
                yield Row(file_name, int(size), checked, facts)


def _check(folder: Path, names: list[str], full: bool, nproc: int) -> Iterator[tuple]:
    if nproc == 1 or len(names) <= CHUNK:
        yield from ((name, check_video(str(folder / name), full=full)) for name in names)
        return
    paths = {str(folder / name): name for name in names}
    for path, facts in map_unordered(partial(check_video, full=full), paths, nproc, CHUNK):
        failed = isinstance(facts, Failure)
        yield paths[path], VideoFacts(problem=facts.reason) if failed else facts
