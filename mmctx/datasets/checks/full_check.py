"""The check of a whole data set: its parts, and how it is run."""

import sys
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from .parallel import Failure, map_unordered


class Problem(NamedTuple):
    """Something wrong with a data set.

    Attributes:
        item (str): Name of the file, or of the entry of a list.
        reason (str): What is wrong with the item.
    """

    item: str
    reason: str


class Item(NamedTuple):
    """A file to read.

    Attributes:
        name (str): Name of the file in problems.
        facts (Any): Facts that the reader needs.
    """

    name: str
    facts: Any


class Plan(NamedTuple):
    """The check of a data set.

    Attributes:
        contents (str): Contents of the set for the user: '160 images, 1520 annotations'.
        problems (list[Problem]): Problems that were found without opening the files of the items.
        items (list[Item]): Files to read.
        read (Callable): Function that returns the list of problems of an item; other processes call
            it.
        chunk (int): Number of items given to a process at once.
    """

    contents: str
    problems: list[Problem]
    items: list[Item]
    read: Callable[[Item], list[Problem]]
    chunk: int


def problems_of(plan: Plan, workers: int, seconds: float) -> Iterator[Problem]:
    """Read a data set, with a progress bar on stderr.

    Args:
        plan (Plan): Check to run.
        workers (int): Number of processes.
        seconds (float): Time limit for reading an item, in seconds; longer reading is a problem.

    Yields:
        Problem: Problem, as soon as it is found.
    """
    yield from plan.problems
    columns = (
        TextColumn('reading'),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(elapsed_when_finished=True),
    )
    console = Console(stderr=True)
    # Otherwise it would redirect lines for a pipe or a file to the terminal.
    redirect = sys.stdout.isatty()
    with Progress(*columns, console=console, redirect_stdout=redirect) as progress:
        bar = progress.add_task('', total=len(plan.items))
        for item, found in map_unordered(plan.read, plan.items, workers, plan.chunk, seconds):
            failed = isinstance(found, Failure)
            yield from [Problem(item.name, found.reason)] if failed else found
            progress.advance(bar)
