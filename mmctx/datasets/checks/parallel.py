"""A function applied to many items in processes that may die of one of them."""

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
    """What stands in for the result of an item that has none.

    Attributes:
        reason (str): The exception, how the process ended, or that it took too long.
    """

    reason: str


def map_unordered(
    function: Callable[[Any], Any],
    items: Iterable,
    workers: int = 1,
    chunk: int = 1,
    seconds: float = float('inf'),
) -> Iterator[tuple[Any, Any]]:
    """Apply a function to items in other processes, also where these are killed by an item.

    `concurrent.futures` gives a whole pool up when a process of it dies, and does not say of what.
    Here the items that the process had are tried again one by one, so that the fatal one is found.

    Args:
        function (Callable): Function from an item to its result; both can be pickled.
        items (Iterable): The items.
        workers (int): Number of processes. Defaults to 1.
        chunk (int): Number of items given to a process at once. Defaults to 1.
        seconds (float): A process that is longer at its items is killed. Defaults to infinity.

    Yields:
        tuple[Any, Any]: An item and its result, or a :class:`Failure`, as they become ready.

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
    """A process and the items that it is at; None until it has started."""

    def __init__(self, function):
        # Forked processes would inherit the decoders' threads in an undefined state.
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
            # Where it has died meanwhile, the next look at the connection finds that out.
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
    """Leave Ctrl-C to the parent, end with it even if it is killed, and do what it says."""
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
