"""A function applied to many items in processes that an item may kill."""

import multiprocessing
import os
import signal
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from multiprocessing.connection import Connection, wait
from typing import Any, NamedTuple

SECONDS_BETWEEN_LOOKS = 0.5


class Failure(NamedTuple):
    """Replacement for the result of an item that has none.

    Attributes:
        reason (str): Exception, how the process ended, or that it took too long.
    """

    reason: str


def map_unordered(
    function: Callable[[Any], Any],
    items: Iterable,
    workers: int = 1,
    chunk: int = 1,
    seconds: float = float('inf'),
) -> Iterator[tuple[Any, Any]]:
    """Apply a function to items in other processes, even if an item kills its process.

    If a process dies, `concurrent.futures` gives up the whole pool and does not report the item.
    Here the items of the process are tried again one by one to find the one that killed it.

    Args:
        function (Callable): Function that returns the result of an item; both can be pickled.
        items (Iterable): Items to process.
        workers (int): Number of processes. Defaults to 1.
        chunk (int): Number of items given to a process at once. Defaults to 1.
        seconds (float): Time limit for the items that a process has at once, in seconds, after
            which it is killed. Defaults to infinity.

    Yields:
        tuple[Any, Any]: Item and its result or :class:`Failure`, as soon as it is ready.

    Raises:
        RuntimeError: A process cannot be started.
    """
    items = list(items)
    todo = deque(items[i : i + chunk] for i in range(0, len(items), chunk))
    pool: dict[Any, _Worker] = {}
    try:
        while todo or pool:
            while len(pool) < min(workers, len(todo) + sum(bool(w.items) for w in pool.values())):
                worker = _Worker(function)
                pool[worker.connection] = worker
            for connection in wait(pool, SECONDS_BETWEEN_LOOKS):
                worker = pool[connection]
                try:
                    results = worker.connection.recv()
                except (EOFError, OSError):
                    del pool[connection]
                    yield from worker.failed(todo)
                    continue
                yield from zip(worker.items, results, strict=True)
                worker.give(todo.popleft() if todo else [])
                if not worker.items:
                    pool.pop(connection).end()
            for worker in pool.values():
                if time.monotonic() - worker.began > seconds:
                    worker.kill(f'it took more than {seconds:g} s')
    finally:
        for worker in pool.values():
            worker.end()


class _Worker:
    """A process and its current items; None until it has started."""

    def __init__(self, function):
        # Forked processes would inherit the threads of the decoders in an undefined state.
        context = multiprocessing.get_context('spawn')
        self.connection, theirs = context.Pipe()
        self.process = context.Process(target=_serve, args=(theirs, function), daemon=True)
        self.process.start()
        theirs.close()
        self.items, self.reason, self.began = [], '', float('inf')
        self.started = False

    def give(self, items):
        self.items, self.began, self.started = items, time.monotonic(), True
        if items:
            # If it has died meanwhile, the next use of the connection shows it.
            with suppress(OSError):
                self.connection.send(items)

    def kill(self, reason):
        self.reason, self.began = reason, float('inf')
        self.process.kill()

    def failed(self, todo):
        self.connection.close()
        self.process.join()
        code = self.process.exitcode
        if not self.started:
            raise RuntimeError(f'a process cannot be started: it ended with status {code}')
        if len(self.items) > 1:
            todo.extendleft([item] for item in self.items)
            return
        how = signal.Signals(-code).name if code < 0 else f'status {code}'
        for item in self.items:
            yield item, Failure(self.reason or f'the process that read it ended with {how}')

    def end(self):
        self.process.kill()
        self.process.join()
        self.connection.close()


def _serve(connection: Connection, function: Callable):
    """Process the items that the parent sends; ignore Ctrl-C, and end when the parent ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = multiprocessing.parent_process()

    def follow():
        parent.join()
        os._exit(1)

    threading.Thread(target=follow, daemon=True).start()
    results: list = []
    while True:
        connection.send(results)
        results = [_attempt(function, item) for item in connection.recv()]


def _attempt(function, item):
    try:
        return function(item)
    except Exception as error:
        return Failure(f'{type(error).__name__}: {error}')
