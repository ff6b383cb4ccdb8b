"""Time and memory of calls on a device, measured in the same way by every tool."""

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
# A GPU that is kept busy for some milliseconds first has every launch of a short call in its queue.
HEAD_START_CYCLES = 10_000_000


def pick_device() -> torch.device:
    """Return the GPU if PyTorch sees one, otherwise the CPU."""
    return torch.device('cuda' if torch.cuda.is_available() else 'cpu')


def use_device(name: str | None = None, threads: int | None = None) -> torch.device:
    """Make a device the current one.

    Args:
        name (str, optional): Name of the device, such as `cpu` or `cuda:1`. Defaults to None, the
            choice of `pick_device`.
        threads (int, optional): Number of CPU threads. Defaults to None, PyTorch's choice.

    Returns:
        torch.device: The device.

    Raises:
        UserError: The device does not exist, or the number of threads is less than 1.
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
        # Without an index the name stands for the current device.
        if device.index is not None:
            torch.cuda.set_device(device)
    return device


def check_timing(batch_size: int | None, seconds: float) -> None:
    """Raise a UserError for `--batch-size` and `--seconds` with which nothing can be timed.

    Args:
        batch_size (int, optional): Number of images in a batch; None for a tool's own choice.
        seconds (float): Time to spend on each measurement, in seconds.

    Raises:
        UserError: The batch is empty, or the time is negative or infinite.
    """
    if batch_size is not None and batch_size < 1:
        raise UserError(f'--batch-size must be at least 1, not {batch_size}')
    if not 0 <= seconds < float('inf'):
        raise UserError(f'--seconds must not be {seconds}')


def name_device(device: torch.device) -> str:
    """Product name of a device, for a CPU with the number of threads.

    Args:
        device (torch.device): The device.

    Returns:
        str: Name, for example 'NVIDIA H200' or 'AMD EPYC, 2 threads'.
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
    """Context in which cuDNN searches for its fastest algorithm and uses no TF32."""
    with torch.backends.cudnn.flags(enabled=True, benchmark=True, allow_tf32=False):
        yield


class Times(NamedTuple):
    """Durations of a call, in seconds.

    Attributes:
        median (float): Median.
        low (float): First quartile.
        high (float): Third quartile.
        best (float): Shortest duration.
        runs (int): Number of durations.
    """

    median: float
    low: float
    high: float
    best: float
    runs: int

    def in_seconds(self) -> dict[str, float]:
        """Make a dict for a JSON file, with the unit in the names."""
        return {n if n == 'runs' else f'{n}_s': value for n, value in self._asdict().items()}


class Call(NamedTuple):
    """Something to time.

    Attributes:
        run (Callable): Function to time, called with the result of `prepare`.
        prepare (Callable): Function that is called before, with the number of the run, and not
            timed. Defaults to one that returns the number.
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
    """Time calls in turn, one run of each at a time, so that changes of load affect all equally.

    Args:
        calls (dict): Calls by name; each is run once untimed before the first timed run.
        device (torch.device): Device on which they run. CUDA is synchronized around each run.
        seconds (float): Time to spend on each call, in seconds.
        min_runs (int): Smallest number of timed runs of each call. Defaults to 3.
        queued (bool): Whether, on CUDA, to take the device's own time of a run that is queued as a
            whole before it starts, instead of the time that the host waits. Defaults to False.

    Returns:
        dict: Times of the calls by name.
    """
    durations: dict[Any, list[float]] = {name: [] for name in calls}
    spent = dict.fromkeys(calls, 0.0)
    for call in calls.values():
        call.run(call.prepare(0))
    waiting, index = list(calls), 1
    while waiting:
        for name in waiting:
            state = calls[name].prepare(index)
            durations[name].append(_duration(calls[name].run, state, device, queued))
            spent[name] += durations[name][-1]
            del state
        index += 1
        waiting = [n for n in waiting if index <= min_runs or spent[n] < seconds]
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


def write_trace(call: Call, device: torch.device, path: Path) -> None:
    """Write what host and device do during a call, for chrome://tracing or ui.perfetto.dev.

    Args:
        call (Call): The call, which is run once before, untraced.
        device (torch.device): Device on which it runs.
        path (Path): File to write, `.json` or `.json.gz`.
    """
    activities = [torch.profiler.ProfilerActivity.CPU]
    if device.type == 'cuda':
        activities.append(torch.profiler.ProfilerActivity.CUDA)
    call.run(call.prepare(0))
    state = call.prepare(1)
    with torch.profiler.profile(activities=activities) as trace:
        call.run(state)
        if device.type == 'cuda':
            torch.cuda.synchronize(device)
    trace.export_chrome_trace(str(path))


def peak_memory(function: Callable[[], object], device: torch.device) -> int | None:
    """Measure how far the allocated memory rises during a call of a function.

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
