"""Checkpoint files of other code bases, read without running code that they contain."""

import os
import re
from typing import NamedTuple

import torch
from torch import Tensor

from mmctx.checkpoints.reading import read_checkpoint
from mmctx.errors import UserError
from mmctx.files import atomic_write

EMA_WRAPPERS = ('state_dict_ema', 'model_ema')
WRAPPERS = ('state_dict', 'model')


class _Arguments:
    """Stand-in for `argparse.Namespace`, which training scripts save; its contents are dropped."""

    def __setstate__(self, state):
        pass


_Arguments.__module__, _Arguments.__qualname__ = 'argparse', 'Namespace'


class FoundState(NamedTuple):
    """Weights found in a file.

    Attributes:
        state (dict[str, Tensor]): Tensors by name, without the prefix `module.`.
        source (str): Key of the file that held them; '' if the file is the state itself.
    """

    state: dict[str, Tensor]
    source: str


def read_state(path: str | os.PathLike, ema: bool | None = None) -> FoundState:
    """Read the weights of a checkpoint file that need not be trusted.

    Args:
        path (str | os.PathLike): Path of the file, which is a state or holds one as `state_dict`,
            `state_dict_ema`, `model` or `model_ema`.
        ema (bool, optional): Whether to take the moving average of the weights. Defaults to None:
            take it if the file has one.

    Returns:
        FoundState: The weights and the key that held them.

    Raises:
        UserError: The file is missing or damaged, contains code, or lacks these weights.
    """
    checkpoint = read_checkpoint(path, [_Arguments])
    averaged = next((k for k in EMA_WRAPPERS if _is_state(checkpoint.get(k))), None)
    plain = next((k for k in WRAPPERS if _is_state(checkpoint.get(k))), None)
    if ema and averaged is None:
        raise UserError(f'{path} has no moving average ({" or ".join(EMA_WRAPPERS)})')
    source = plain if ema is False or averaged is None else averaged
    state = checkpoint if source is None else checkpoint[source]
    if not _is_state(state):
        keys = ', '.join(repr(key) for key in list(checkpoint)[:4])
        raise UserError(f'{path} holds no weights (its keys are {keys})')
    tensors = {
        re.sub(r'^(module\.)+', '', name): value.detach()
        for name, value in state.items()
        if isinstance(value, Tensor)
    }
    return FoundState(tensors, source or '')


def write_checkpoint(path: str | os.PathLike, state: dict[str, Tensor], meta: dict) -> None:
    """Write a checkpoint in mmengine's format, atomically.

    Args:
        path (str | os.PathLike): Path of the file; an existing file is replaced.
        state (dict[str, Tensor]): Weights by name.
        meta (dict): Origin of the weights.

    Raises:
        OSError: The file cannot be written.
    """
    # `torch.save` would write all of a view's storage.
    state = {name: value.clone() for name, value in state.items()}
    with atomic_write(path) as file:
        torch.save(dict(meta=meta, state_dict=state), file)


def _is_state(value) -> bool:
    return isinstance(value, dict) and any(
        isinstance(key, str) and isinstance(entry, Tensor) for key, entry in value.items()
    )
