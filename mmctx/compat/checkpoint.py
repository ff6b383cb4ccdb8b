"""Loading mmengine's checkpoints with torch >= 2.6, whose `torch.load` only takes plain weights.

mmengine's checkpoints contain its log as `HistoryBuffer`s: numpy arrays, and references to the
buffer's own statistics, such as `HistoryBuffer.mean`, which are pickled as calls of `getattr`.
Allowing these globals themselves would undo the protection: `getattr` reaches everything, an object
array made from raw bytes dereferences any address, and a `numpy.dtype`'s state can turn numbers
into pointers. So restricted stand-ins take their place, each under the name that it replaces, and
only while mmengine loads a checkpoint.

`Runner.resume` also runs `meta['config']` of a checkpoint as Python, to compare the `gpu_ids` of
mmdet 2; it is dropped. In mmctx's own runs one more thing changes: `torch.hub` lets `torch.load`
read everything in a file, so there mmengine's downloads are restricted to plain weights, too. Other
programs that import mmctx read their files as before.
"""

import functools
import math
import os
from contextlib import contextmanager, nullcontext
from pickle import UnpicklingError

import numpy as np
import torch
from mmengine.logging import HistoryBuffer

_STATISTICS = ('min', 'max', 'current', 'mean')
_NUMBER_KINDS = 'biufc'
FORCE = 'TORCH_FORCE_WEIGHTS_ONLY_LOAD'
# Environment variables that users set to load mmengine's checkpoints; torch refuses both together.
FORCE_NOT = 'TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD'


class _Dtype:
    """Stand-in for `numpy.dtype`: a type of numbers; its state is read but never set on a dtype."""

    def __init__(self, code, align=False, copy=False):
        dtype = np.dtype(code) if isinstance(code, str) else None
        if dtype is None or dtype.kind not in _NUMBER_KINDS:
            raise UnpicklingError(f'numpy dtype {code!r} is not allowed in a checkpoint')
        self.dtype = dtype

    def __setstate__(self, state):
        self.dtype = self.dtype.newbyteorder(state[1])


class _Array(np.ndarray):
    """Stand-in for `numpy.ndarray`: an array that can only be restored with numbers."""

    def __new__(cls):
        return super().__new__(cls, (0,), np.uint8)

    def __setstate__(self, state):
        _, shape, dtype, is_fortran, data = state
        dtype = dtype.dtype if isinstance(dtype, _Dtype) else None
        if (
            dtype is None
            or not isinstance(data, bytes)
            or not all(isinstance(n, int) and n >= 0 for n in shape)
            or math.prod(shape) * dtype.itemsize != len(data)
        ):
            raise UnpicklingError('only arrays of numbers are allowed in a checkpoint')
        super().__setstate__((1, shape, dtype, is_fortran, data))

    def __reduce_ex__(self, protocol):
        return np.asarray(self).__reduce_ex__(protocol)


def _reconstruct(subtype, shape, typecode):
    if subtype is not _Array:
        raise UnpicklingError(f'numpy array of type {subtype!r} is not allowed in a checkpoint')
    return _Array()


def _scalar(dtype, data):
    if not isinstance(dtype, _Dtype) or not isinstance(data, bytes):
        raise UnpicklingError('only numpy scalars that are numbers are allowed in a checkpoint')
    return np.frombuffer(data, dtype.dtype, count=1)[0]


class _History(HistoryBuffer):
    """Stand-in for `HistoryBuffer`: restores only its fields, then becomes a plain buffer."""

    def __setstate__(self, state):
        self.__class__ = HistoryBuffer
        self.max_length = state['max_length']
        self._log_history = np.array(state['_log_history'])
        self._count_history = np.array(state['_count_history'])
        self._set_default_statistics()
        for name, method in state.get('statistics_methods', {}).items():
            self._statistics_methods.setdefault(name, method)


def _getattr(owner, name):
    if owner not in (_History, HistoryBuffer) or name not in _STATISTICS:
        raise UnpicklingError(f'getattr({owner!r}, {name!r}) is not allowed in a checkpoint')
    return getattr(HistoryBuffer, name)


def _empty_bytes():
    return b''


def _serve(stand_in, module, name):
    stand_in.__module__ = module
    stand_in.__name__ = stand_in.__qualname__ = name
    return stand_in


_HISTORY = [
    _serve(_History, 'mmengine.logging.history_buffer', 'HistoryBuffer'),
    _serve(_getattr, 'builtins', 'getattr'),
]
_NUMPY = [
    _serve(_Dtype, 'numpy', 'dtype'),
    _serve(_Array, 'numpy', 'ndarray'),
    # Protocol 2, torch's default, writes b'', the data of an empty array, as a call of `bytes`.
    _serve(_empty_bytes, 'builtins', 'bytes'),
]
# numpy 2 renamed `numpy.core`; a checkpoint may come from either.
for _core in ('numpy.core.multiarray', 'numpy._core.multiarray'):
    _NUMPY.append(_serve(functools.partial(_reconstruct), _core, '_reconstruct'))
    _NUMPY.append(_serve(functools.partial(_scalar), _core, 'scalar'))


def history_allowed():
    """Context in which `torch.load` accepts mmengine's log history besides plain weights.

    If the caller has allowed numpy's own classes with `torch.serialization.add_safe_globals`, these
    are used.

    Returns:
        ContextManager: Context for a call of `torch.load`.
    """
    allowed = torch.serialization.get_safe_globals()
    own_numpy = np.dtype in allowed or np.ndarray in allowed
    return torch.serialization.safe_globals(_HISTORY + ([] if own_numpy else _NUMPY))


@contextmanager
def weights_only():
    """Context in which `torch.load` accepts only plain weights, whatever its caller asks for."""
    before = {name: os.environ.pop(name, None) for name in (FORCE, FORCE_NOT)}
    os.environ[FORCE] = '1'
    try:
        yield
    finally:
        del os.environ[FORCE]
        os.environ.update({name: value for name, value in before.items() if value is not None})


def drop_config(checkpoint):
    """Remove the config from a checkpoint, which `Runner.resume` would run as Python code.

    Args:
        checkpoint (object): Contents of a file, changed in place.
    """
    if isinstance(checkpoint, dict) and isinstance(checkpoint.get('meta'), dict):
        checkpoint['meta'].pop('config', None)


_plain_only = False


def install(plain_only=False):
    """Let mmengine load and resume checkpoints that contain its log. Idempotent.

    Args:
        plain_only (bool): Whether this process accepts nothing else from now on, whatever the
            caller of `torch.load` or the environment says. Defaults to False.
    """
    global _plain_only
    # Its import calls this function too, which then needs everything in this module.
    from mmengine.runner.checkpoint import CheckpointLoader

    _plain_only = _plain_only or plain_only
    original = CheckpointLoader.load_checkpoint.__func__
    if original.__module__ == __name__:
        return

    def load_checkpoint(cls, filename, map_location=None, logger='current'):
        with history_allowed(), weights_only() if _plain_only else nullcontext():
            checkpoint = original(cls, filename, map_location, logger)
        drop_config(checkpoint)
        return checkpoint

    CheckpointLoader.load_checkpoint = classmethod(load_checkpoint)
