"""Reading of checkpoint files, each once, without running code that they may contain."""

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
    """A file that is not a checkpoint, or is damaged.

    Args:
        path (str | Path): The file.
        reason (str): What is wrong with the file, in words that follow its name.
    """

    def __init__(self, path, reason: str):
        super().__init__(f'{path} {reason}')
        self.reason = reason


def read_checkpoint(path: str | os.PathLike, allowed: Sequence[type] = ()) -> dict:
    """Read a checkpoint file, which need not be trusted, into the memory of the CPU.

    The checksums are verified, as PyTorch does not notice a gap that a crashed file system left.

    Args:
        path (str | os.PathLike): Path of a local file.
        allowed (Sequence[type]): Stand-ins for classes that the file may contain besides plain
            weights and mmengine's log. Defaults to none.

    Returns:
        dict: Contents of the file.

    Raises:
        UnreadableCheckpoint: The file is missing, damaged, contains code or is of another kind.
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
    # Reading a damaged file may raise any exception.
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
    """Download weights into torch.hub's cache, where mmengine looks for them later.

    Args:
        path (str): Address (http or https), or path of a local file, which is returned as it is.

    Returns:
        str | Path: Path of the local file.

    Raises:
        UserError: The download failed.
    """
    if not path.startswith(('http://', 'https://')):
        return path
    target = Path(torch.hub.get_dir()) / 'checkpoints' / Path(urlparse(path).path).name
    if target.is_file():
        return target
    try:
        # torch.hub has no timeout, so a dead server could block the program for ever.
        urllib.request.urlopen(path, timeout=URL_TIMEOUT).close()
        target.parent.mkdir(parents=True, exist_ok=True)
        torch.hub.download_url_to_file(path, str(target), progress=os.isatty(2))
    except (OSError, ValueError) as error:
        raise UserError(f'cannot download {path}: {error}') from error
    return target


@contextmanager
def served_from_memory(checkpoints: Mapping[str, dict]) -> Iterator[None]:
    """Let mmengine use checkpoints that have been read already, instead of reading them again.

    Args:
        checkpoints (Mapping[str, dict]): Contents of files, on the CPU, by the names that mmengine
            uses.
    """
    original = CheckpointLoader.__dict__['load_checkpoint']

    def load_checkpoint(cls, filename, map_location=None, logger='current'):
        # When one process of a run downloads a file, all processes synchronize.
        met = '://' in str(filename) and is_distributed()
        if filename in checkpoints and not met:
            return checkpoints[filename]
        return original.__func__(cls, filename, map_location, logger)

    CheckpointLoader.load_checkpoint = classmethod(load_checkpoint)
    try:
        yield
    finally:
        CheckpointLoader.load_checkpoint = original
