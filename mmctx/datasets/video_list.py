"""Lists of videos and their labels, in mmaction2's format: a file and a number on each line."""

from collections.abc import Iterable

from mmengine import fileio

from mmctx.errors import UserError


def read_video_list(
    path: str, num_classes: int | None = None, delimiter: str = ' '
) -> list[tuple[str, int]]:
    """Read a list. The last word of each line is the label, so file names may contain spaces.

    Args:
        path (str): Path of the list, for mmengine's file functions.
        num_classes (int, optional): Number of classes, which labels have to be below. Defaults to
            None, any label.
        delimiter (str): Separator of file and label. Defaults to ' ', any white space.

    Returns:
        list[tuple[str, int]]: File and label of each video.

    Raises:
        UserError: A line is malformed, its label is out of range, or the list is empty.
    """
    try:
        lines = fileio.get_text(path).splitlines()
    except UnicodeDecodeError as error:
        raise UserError(f'{path} is not a list of videos: {error}') from error
    videos = []
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            videos.append(read_line(line, num_classes, delimiter))
        except UserError as error:
            raise UserError(f'{path}, line {number}: {error}') from None
    if not videos:
        raise UserError(f'{path} lists no videos')
    return videos


def read_line(line: str, num_classes: int | None = None, delimiter: str = ' ') -> tuple[str, int]:
    """Get file and label of a line; the arguments are those of :func:`read_video_list`.

    Raises:
        UserError: The line is malformed or its label is out of range.
    """
    try:
        name, number = line.rstrip().rsplit(delimiter.strip() or None, 1)
        label = int(number)
    except ValueError:
        raise UserError(f'expected a file and the number of its class, got {line!r}') from None
    if label < 0 or (num_classes is not None and label >= num_classes):
        classes = 'classes' if num_classes is None else f'{num_classes} classes'
        raise UserError(f'label {label}, but {classes} are numbered from 0: {line!r}')
    return name, label


def write_video_list(path: str, videos: Iterable[tuple[str, int]]):
    """Write a list that :func:`read_video_list` reads.

    Args:
        path (str): Path of the list to write.
        videos (Iterable[tuple[str, int]]): File and label of each video.
    """
    fileio.put_text(''.join(f'{name} {label}\n' for name, label in videos), path)
