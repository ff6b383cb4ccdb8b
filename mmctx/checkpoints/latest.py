"""The checkpoint from which a run is to be resumed."""

from pathlib import Path
from typing import NamedTuple

from mmctx.errors import UserError

from .reading import UnreadableCheckpoint, read_checkpoint

RESUME_KEYS = ('meta', 'message_hub')


class Latest(NamedTuple):
    """What was found in the folder of a run.

    Attributes:
        path (str | None): The checkpoint to resume from; None if there is none.
        contents (dict | None): Contents of the file, on the CPU; None on a remote storage.
        passed_over (list[str]): Newer files that cannot be resumed from, each with the reason.
    """

    path: str | None
    contents: dict | None
    passed_over: list[str]


def read_latest(work_dir: str) -> Latest:
    """Read the checkpoint to resume from.

    It is the one that `last_checkpoint` names, else the newest one that is whole.

    Args:
        work_dir (str): Folder of the run.

    Returns:
        Latest: The checkpoint, if there is one.

    Raises:
        UserError: There are checkpoints, but none that can be resumed from.
    """
    found = _search(work_dir)
    if found.path is None and found.passed_over:
        raise UserError(
            f'cannot resume in {work_dir}: {"; ".join(found.passed_over)}. Name another checkpoint '
            'with --resume FILE, or remove these to start again'
        )
    return found


def latest_checkpoint(work_dir: str) -> tuple[str | None, list[str]]:
    """Path of the checkpoint to resume from, None if there is none, and the files passed over."""
    found = _search(work_dir)
    return found.path, found.passed_over


def _search(work_dir: str) -> Latest:
    named = Path(work_dir) / 'last_checkpoint'
    target = named.read_text(errors='replace').strip('\0 \n') if named.is_file() else ''
    if '://' in target:
        return Latest(target, None, [])
    folders = {Path(work_dir), Path(target).parent} if target else {Path(work_dir)}
    found = {file for folder in folders for file in folder.glob('[!.]*.pth')}
    files = [file for file in found if not file.name.startswith('best_')]
    files.sort(key=lambda file: (file.stat().st_mtime_ns, file.name), reverse=True)
    passed_over = []
    for file in dict.fromkeys([*([Path(target)] if target else []), *files]):
        try:
            contents = read_checkpoint(file)
        except UnreadableCheckpoint as error:
            passed_over.append(str(error))
            continue
        if not missing_state(contents):
            return Latest(str(file), contents, passed_over)
        passed_over.append(f'{file} holds no training state')
    return Latest(None, None, passed_over)


def missing_state(checkpoint: dict) -> list[str]:
    """What a checkpoint lacks for a run to be resumed from it; files of weights alone do."""
    return [key for key in RESUME_KEYS if key not in checkpoint]
