"""Reading checkpoint files, each once, without running anything that they hold."""

import os
import re
import urllib.request
import warnings
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlparse

import torch
from mmengine.dist import is_distributed
from mmengine.runner import CheckpointLoader

from mmctx.compat.checkpoint import drop_config, history_allowed, weights_only
from mmctx.errors import UserError

URL_TIMEOUT = 20


class UnreadableCheckpoint(UserError):
    """A file that is no checkpoint, or no whole one.

    Args:
        path (str | Path): The file.
        reason (str): Fault of the file, in words that follow its name.
    """

    def __init__(self, path, reason: str):
        super().__init__(f'{path} {reason}')
        self.reason = reason


def read_checkpoint(path: str | os.PathLike, allowed: Sequence[type] = ()) -> dict:
    """Read a checkpoint file, which need not be trusted, onto the CPU.

    Its checksums are verified: PyTorch would pass over a hole that a crashed file system left.

    Args:
        path (str | os.PathLike): A local file.
        allowed (Sequence[type]): Stand-ins for classes that may be in it besides plain weights and
            mmengine's log. Defaults to none.

    Returns:
        dict: The file's contents.

    Raises:
        UnreadableCheckpoint: If the file is missing, damaged, holds code or is of another kind.
    """
    local = Path(path).expanduser()
    if local.is_dir():
        raise UnreadableCheckpoint(path, 'is a folder: name a file in it')
    if not local.is_file():
        raise UnreadableCheckpoint(path, 'does not exist')
    try:
        with open(local, 'rb') as file, warnings.catch_warnings():
            warnings.simplefilter('ignore')
            if zipfile.is_zipfile(file) and zipfile.ZipFile(file).testzip() is not None:
                raise UnreadableCheckpoint(path, 'is damaged: its checksums are wrong')
            file.seek(0)
            with history_allowed(), torch.serialization.safe_globals(list(allowed)), weights_only():
                checkpoint = torch.load(file, map_location='cpu')
    except UserError:
        raise
    # A file in pieces fails anywhere.
    except Exception as error:
        raise UnreadableCheckpoint(path, _reason(error)) from error
    if not isinstance(checkpoint, dict):
        raise UnreadableCheckpoint(path, f'holds {type(checkpoint).__name__}, not weights')
    drop_config(checkpoint)
    return checkpoint


def _reason(error: Exception) -> str:
    code = re.search(r'GLOBAL (\S+)', str(error))
    if code:
        return (
            f'is refused: besides weights it holds {code[1]}, which reading would run; if you '
            'trust it, save its state_dict alone'
        )
    lines = str(error).splitlines() or ['']
    line = next((line for line in lines if 'Unsupported' in line), lines[0]).strip()[:160]
    return f'is damaged or not a PyTorch checkpoint ({type(error).__name__}: {line})'


def fetch(path: str) -> str | Path:
    """Bring weights into torch.hub's cache, where mmengine looks for them later.

    Args:
        path (str): An http or https address, or a local file, which stays where it is.

    Returns:
        str | Path: The local file.

    Raises:
        UserError: If the address cannot be reached.
    """
    if not path.startswith(('http://', 'https://')):
        return path
    target = Path(torch.hub.get_dir()) / 'checkpoints' / Path(urlparse(path).path).name
    if target.is_file():
        return target
    try:
        # torch.hub sets no time limit, so that a dead address could hang for ever.
        urllib.request.urlopen(path, timeout=URL_TIMEOUT).close()
        target.parent.mkdir(parents=True, exist_ok=True)
        torch.hub.download_url_to_file(path, str(target), progress=os.isatty(2))
    except (OSError, ValueError) as error:
        raise UserError(f'cannot download {path}: {error}') from error
    return target


@contextmanager
def served_from_memory(checkpoints: Mapping[str, dict]) -> Iterator[None]:
    """Have mmengine take checkpoints that have been read already instead of reading them again.

    Args:
        checkpoints (Mapping[str, dict]): Contents of files on the CPU, by the names under which
            mmengine asks for them.
    """
    original = CheckpointLoader.__dict__['load_checkpoint']

    def load_checkpoint(cls, filename, map_location=None, logger='current'):
        # All processes of a run meet where one of them downloads a file.
        met = '://' in str(filename) and is_distributed()
        if filename in checkpoints and not met:
            return checkpoints[filename]
        return original.__func__(cls, filename, map_location, logger)

    CheckpointLoader.load_checkpoint = classmethod(load_checkpoint)
    try:
        yield
    finally:
        CheckpointLoader.load_checkpoint = original
