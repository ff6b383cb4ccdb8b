"""Lists with a file and a number on each line, with all of their mistakes."""

from pathlib import Path

from mmctx.datasets.video_list import read_line
from mmctx.errors import UserError
from mmctx.text import read_text

from .full_check import Item, Problem
from .missing_files import missing_files


class ListedFiles:
    """Existing files of a list, and what is wrong with the other ones.

    Args:
        root (Path): Folder of the data.
        name (str): Path of the list, relative to the root.
        folder (str): Folder to which the file names in the list are relative, relative to the root.
        classes (int): Number of classes, which labels have to be below.

    Attributes:
        items (list[Item]): Existing files, each once.
        problems (list[Problem]): Mistakes in the lines, and missing files.
    """

    def __init__(self, root: Path, name: str, folder: str, classes: int):
        self.problems: list[Problem] = []
        self.items: list[Item] = []
        try:
            lines = read_text(root / name).splitlines()
        except (OSError, UnicodeDecodeError) as error:
            self.problems.append(Problem(name, f'cannot be read: {error}'))
            return
        where: dict[str, int] = {}
        for number, line in enumerate(lines, start=1):
            if not line.strip():
                continue
            try:
                file, _ = read_line(line, classes)
                if file in where:
                    raise UserError(f'{file} stands in line {where[file]} already')
                where[file] = number
            except UserError as error:
                self.problems.append(Problem(f'{name}: line {number}', str(error)))
        if not lines:
            self.problems.append(Problem(name, 'is empty'))
        missing = set(missing_files(where, root / folder))
        for file, number in where.items():
            shown = f'{folder}/{file}'
            if file in missing:
                self.problems.append(Problem(shown, f'is missing, but in line {number} of {name}'))
            else:
                self.items.append(Item(shown, str(root / folder / file)))
