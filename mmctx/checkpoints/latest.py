"""The checkpoint from which a run is to go on."""

import zipfile
from pathlib import Path

import torch

from mmctx.compat.checkpoint import history_allowed

RESUME_KEYS = ('meta', 'message_hub')


def damage(path: Path) -> str | None:
    """What keeps a run from being resumed from a file.

    Args:
        path (Path): The file.

    Returns:
        str | None: A few words; None if it is a whole checkpoint of a run.
    """
    if not path.is_file():
        return 'does not exist'
    try:
        with zipfile.ZipFile(path) as archive:
            if archive.testzip() is not None:
                return 'is damaged'
        with history_allowed():
            checkpoint = torch.load(path, 'cpu', weights_only=True, mmap=True)
    except Exception as error:
        # A file in pieces fails anywhere.
        return f'cannot be read ({type(error).__name__})'
    if not isinstance(checkpoint, dict) or not all(key in checkpoint for key in RESUME_KEYS):
        return 'holds no training state'
    return None


def latest_checkpoint(work_dir: str) -> tuple[str | None, list[str]]:
    """Find the checkpoint to resume from.

    It is the one that `last_checkpoint` names, else the newest one that is whole.

    Args:
        work_dir (str): Folder of the run.

    Returns:
        tuple[str | None, list[str]]: Its path, None if there is none; and those passed over before
        it was found, each with the reason.
    """
    named = Path(work_dir) / 'last_checkpoint'
    target = named.read_text(errors='replace').strip('\0 \n') if named.is_file() else ''
    if '://' in target:
        return target, []
    folders = {Path(work_dir), Path(target).parent} if target else {Path(work_dir)}
    files = {file for folder in folders for file in folder.glob('[!.]*.pth')}
    files = [file for file in files if not file.name.startswith('best_')]
    files.sort(key=lambda file: (file.stat().st_mtime_ns, file.name), reverse=True)
    candidates = dict.fromkeys([*([Path(target)] if target else []), *files])
    passed_over = []
    for file in candidates:
        reason = damage(file)
        if reason is None:
            return str(file), passed_over
        passed_over.append(f'{file} {reason}')
    return None, passed_over


def nothing_whole(work_dir: str, passed_over: list[str]) -> str:
    """What to say where there are checkpoints and none can be resumed."""
    return (
        f'cannot resume in {work_dir}: {"; ".join(passed_over)}. Name another checkpoint with '
        '--resume FILE, or remove these to start again'
    )
