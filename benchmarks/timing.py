"""How long calls take, on which device, and how much memory: one clock for every tool."""

import platform
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median, quantiles
from typing import Any, NamedTuple

import torch

from mmctx.errors import UserError

MIN_RUNS = 3
# Kept busy for some milliseconds first, a GPU finds every launch of a short call queued.
HEAD_START_CYCLES = 10_000_000


def pick_device() -> torch.device:
    """The GPU if PyTorch sees one, else the CPU."""
    return torch.device('cuda' if torch.cuda.is_available() else 'cpu')


def use_device(name: str | None = None, threads: int | None = None) -> torch.device:
    """Make a device the current one.

    Args:
        name (str, optional): Such as `cpu` or `cuda:1`. Defaults to None: `pick_device`'s.
        threads (int, optional): Threads of the CPU. Defaults to None, PyTorch's choice.

    Returns:
        torch.device: The device.

    Raises:
        UserError: There is no such device, or no such number of threads.
    """
    if threads is not None:
        if threads < 1:
            raise UserError(f'--threads must be at least 1, not {threads}')
        torch.set_num_threads(threads)
    try:
        device = torch.device(name) if name else pick_device()
    except RuntimeError as error:
        raise UserError(f'--device {name}: name cpu, cuda or cuda:N') from error
    if device.type not in ('cpu', 'cuda'):
        raise UserError(f'--device {name}: name cpu, cuda or cuda:N')
    if device.type == 'cuda':
        if (device.index or 0) >= torch.cuda.device_count():
            raise UserError(f'--device {name}: PyTorch sees {torch.cuda.device_count()} GPUs here')
        # Without an index it is the current one already.
        if device.index is not None:
            torch.cuda.set_device(device)
    return device


def name_device(device: torch.device) -> str:
    """A device as a reader knows it, with the number of threads where that matters.

    Args:
        device (torch.device): The device.

    Returns:
        str: For example 'NVIDIA H200' or 'AMD EPYC, 2 threads'.
    """
    if device.type == 'cuda':
        return torch.cuda.get_device_name(device)
    info = Path('/proc/cpuinfo')
    lines = info.read_text().splitlines() if info.is_file() else []
    names = (line.partition(':')[2].strip() for line in lines if line.startswith('model name'))
    threads = torch.get_num_threads()
    plural = '' if threads == 1 else 's'
    return f'{next(names, platform.machine() or "CPU")}, {threads} thread{plural}'


@contextmanager
def comparable_convolutions() -> Iterator[None]:
    """Let cuDNN search for its quickest algorithm and, so that float32 means it, use no TF32."""
    with torch.backends.cudnn.flags(enabled=True, benchmark=True, allow_tf32=False):
        yield


class Times(NamedTuple):
    """Durations of a call, in seconds.

    Attributes:
        median (float): The middle one.
        low (float): The first quartile.
        high (float): The third quartile.
        best (float): The shortest.
        runs (int): How many there are.
    """

    median: float
    low: float
    high: float
    best: float
    runs: int

    def in_seconds(self) -> dict[str, float]:
        """For a JSON file, with the unit in the names."""
        return {n if n == 'runs' else f'{n}_s': value for n, value in self._asdict().items()}


class Call(NamedTuple):
    """Something to time.

    Attributes:
        run (Callable): What is timed; takes what `prepare` returns.
        prepare (Callable): Takes the number of the run and is not timed. Defaults to handing that
            number on.
    """

    run: Callable[[Any], object]
    prepare: Callable[[int], Any] = int


def time_in_turn(
    calls: dict[Any, Call],
    device: torch.device,
    seconds: float,
    min_runs: int = MIN_RUNS,
    queued: bool = False,
) -> dict[Any, Times]:
    """Time calls in turn, one run of each at a time, so that a change of load meets all alike.

    Args:
        calls (dict): By any name; each is run once before, untimed.
        device (torch.device): Where they run. CUDA is synchronized around each run.
        seconds (float): Seconds to time each call for.
        min_runs (int): Fewest timed runs of each call. Defaults to 3.
        queued (bool): On CUDA, take the device's own time of a run that is queued as a whole
            before it starts, instead of the time that the host waits. Defaults to False.

    Returns:
        dict: The calls' times, by name.
    """
    durations: dict[Any, list[float]] = {name: [] for name in calls}
    for call in calls.values():
        call.run(call.prepare(0))
    waiting, index = list(calls), 1
    while waiting:
        for name in waiting:
            state = calls[name].prepare(index)
            durations[name].append(_duration(calls[name].run, state, device, queued))
            del state
        index += 1
        waiting = [n for n in waiting if index <= min_runs or sum(durations[n]) < seconds]
    return {name: _summary(values) for name, values in durations.items()}


def _duration(run, state, device, queued) -> float:
    if device.type != 'cuda':
        start = time.perf_counter()
        run(state)
        return time.perf_counter() - start
    torch.cuda.synchronize(device)
    if not queued:
        start = time.perf_counter()
        run(state)
        torch.cuda.synchronize(device)
        return time.perf_counter() - start
    begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    torch.cuda._sleep(HEAD_START_CYCLES)
    begin.record()
    run(state)
    end.record()
    torch.cuda.synchronize(device)
    return begin.elapsed_time(end) / 1e3


def _summary(values: list[float]) -> Times:
    low, _, high = quantiles(values, n=4, method='inclusive') if len(values) > 1 else values * 3
    return Times(median(values), low, high, min(values), len(values))


def peak_memory(function: Callable[[], object], device: torch.device) -> int | None:
    """Call a function and see how far memory rises above what is allocated before.

    Args:
        function (Callable): The function, called without arguments.
        device (torch.device): Device whose memory is measured.

    Returns:
        int | None: Bytes on CUDA; None on a CPU, where PyTorch does not count.
    """
    if device.type != 'cuda':
        function()
        return None
    torch.cuda.synchronize(device)
    before = torch.cuda.memory_allocated(device)
    torch.cuda.reset_peak_memory_stats(device)
    function()
    torch.cuda.synchronize(device)
    return torch.cuda.max_memory_allocated(device) - before
