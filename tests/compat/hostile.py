"""Objects whose pickles run code, reach for memory, or try to, when they are loaded."""

import os

import numpy as np
from mmengine.logging import HistoryBuffer


class Call:
    """Pickled as the call of a function when the checkpoint is loaded."""

    def __init__(self, *call, state=None):
        self.call = (call[0], call[1:]) if state is None else (call[0], call[1:], state)

    def __reduce__(self):
        return self.call

    def __call__(self):
        """Only here because pickle wants a function, or what looks like one, in this place."""


def through_getattr(command):
    builtins = Call(
        Call(getattr, Call(getattr, HistoryBuffer.mean, '__globals__'), 'get'), '__builtins__'
    )
    return Call(
        Call(Call(getattr, builtins, 'get'), 'eval'), f'__import__("os").system({command!r})'
    )


HOSTILE = {
    'os.system': lambda command: Call(os.system, command),
    'eval': lambda command: Call(eval, f'__import__("os").system({command!r})'),
    'getattr chain': through_getattr,
    'getattr of another name': lambda command: Call(getattr, HistoryBuffer, '__init__'),
    'getattr of numpy': lambda command: Call(getattr, np.ndarray, 'tofile'),
    'history that calls': lambda command: Call(
        HistoryBuffer, [], [], state={'statistics_methods': {'mean': Call(os.system, command)}}
    ),
    'object array': lambda command: np.array([{}], dtype=object),
    'array from an address': lambda command: Call(np.ndarray, (1,), 'O', bytes(8)),
    'scalar from an address': lambda command: Call(SCALAR, np.dtype('O'), bytes(8)),
    'array longer than its data': lambda command: Call(
        RECONSTRUCT, np.ndarray, (0,), b'b', state=(1, (9,), np.dtype('f8'), False, bytes(8))
    ),
    'array of a negative size': lambda command: Call(
        RECONSTRUCT, np.ndarray, (0,), b'b', state=(1, (-1, -1), np.dtype('f8'), False, bytes(8))
    ),
}
SCALAR = np.float64(0).__reduce__()[0]
RECONSTRUCT = np.zeros(1).__reduce__()[0]
