"""How layers tell a listener of the same thread what they did; without one, nothing happens."""

import threading
from collections.abc import Callable
from typing import Any

import torch.nn as nn

Listener = Callable[[nn.Module, Any], None]


class _OfThread(threading.local):
    """The listener of each thread, so that threads may share one network."""

    listener: Listener | None = None


_of_thread = _OfThread()


def current_listener() -> Listener | None:
    """The listener of this thread, which layers call with themselves and what they did."""
    return _of_thread.listener


def exchange_listener(listener: Listener | None) -> Listener | None:
    """Make a function the listener of this thread; returns what it had before."""
    before, _of_thread.listener = _of_thread.listener, listener
    return before
