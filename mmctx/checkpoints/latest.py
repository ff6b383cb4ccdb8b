"""Choice of the checkpoint from which a run resumes."""

from pathlib import Path
from typing import NamedTuple

from mmctx.errors import UserError

from .reading import UnreadableCheckpoint, read_checkpoint

RESUME_KEYS = ('meta', 'message_hub')


class Latest(NamedTuple):
    """Checkpoints found in the folder of a run.

    Attributes:
        path (str | None): Path of the checkpoint to resume from; None if there is none.
        contents (dict | None): Contents of the file, on the CPU; None on a remote storage.
        passed_over (list[str]): Newer files that cannot be resumed from, each with the reason.
    """

    path: str | None
    contents: dict | None
    passed_over: list[str]


def read_latest(work_dir: str) -> Latest:
    """Read the checkpoint to resume from.

    It is the one that `last_checkpoint` names or, if that cannot be used, the newest undamaged one.
    A checkpoint in the work dir itself is preferred to one elsewhere, which may belong to the run
    that the folder was copied from.

    Args:
        work_dir (str): Folder of the run.

    Returns:
        Latest: The checkpoint, if there is one.

    Raises:
        UserError: There are checkpoints, but the run cannot resume from any of them.
    """
    found = find_latest(work_dir)
    if found.path is None and found.passed_over:
        raise UserError(
            f'cannot resume in {work_dir}: {"; ".join(found.passed_over)}. Name another checkpoint '
            'with --resume FILE, or remove these to start again'
        )
    return found


def find_latest(work_dir: str) -> Latest:
    """As :func:`read_latest`, but where the run cannot resume from any the path is None."""
    named = Path(work_dir) / 'last_checkpoint'
    target = named.read_text(errors='replace').strip('\0 \n') if named.is_file() else ''
    if '://' in target:
        return Latest(target, None, [])
    passed_over = []
    for file in _candidates(Path(work_dir), Path(target) if target else None):
        try:
            contents = read_checkpoint(file)
        except UnreadableCheckpoint as error:
            passed_over.append(str(error))
            continue
        if not missing_state(contents):
            return Latest(str(file), contents, passed_over)
        passed_over.append(f'{file} holds no training state')
    if target and not is_own(Path(target), Path(work_dir)):
        passed_over.append(f'{target}, which last_checkpoint names, is of another folder')
    return Latest(None, None, passed_over)


def _candidates(work_dir, target):
    """List the checkpoints to try, the most likely one first.

    If a work dir was copied or moved, its `last_checkpoint` names a file of the original. Only the
    run's own checkpoints count, and among them the one with the same name comes first. A checkpoint
    hook with an `out_dir` saves them in a folder with the name of the work dir.
    """
    own = [work_dir / target.name] if target and (work_dir / target.name).is_file() else []
    candidates = [*own, *_newest_first(work_dir)]
    if target and is_own(target, work_dir):
        candidates += [target, *_newest_first(target.parent)]
    return list(dict.fromkeys(candidates))


def is_own(checkpoint: Path, work_dir: Path) -> bool:
    """Whether a checkpoint that `last_checkpoint` names belongs to the run of this folder."""
    folder, work_dir = checkpoint.parent.resolve(), work_dir.resolve()
    return folder == work_dir or folder.name == work_dir.name


def _newest_first(folder):
    files = [file for file in folder.glob('[!.]*.pth') if not file.name.startswith('best_')]
    return sorted(files, key=lambda file: (file.stat().st_mtime_ns, file.name), reverse=True)


def missing_state(checkpoint: dict) -> list[str]:
    """List what a checkpoint lacks to resume from it, such as the state of the optimizer."""
    return [key for key in RESUME_KEYS if key not in checkpoint]
