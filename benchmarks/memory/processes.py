"""Memory of a command and all its processes over time."""

import subprocess
import time
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np

from benchmarks.logs import read_logs
from mmctx.errors import UserError

MB = 1e6
# Share of the time that is left out. In the first minutes memory grows with the largest batches and
# with pages that validation workers write to, until the heap settles.
WARM_UP = 0.25
MEDIAN_OF = 0.1
# Linux 5.4 and later tell these apart.
OWN_PAGES = ('Pss_Anon:', 'Pss_Shmem:')


class Sample(NamedTuple):
    """Memory of a tree of processes at one time.

    Attributes:
        seconds (float): Seconds since the command was started.
        memory (float): Memory of all processes together in MB; shared pages count once.
        processes (int): Number of processes.
    """

    seconds: float
    memory: float
    processes: int


def tree_memory(pid: int) -> tuple[float, int]:
    """Measure the memory of a process and its descendants, from Linux' `/proc`.

    The sum of the proportional set sizes: resident memory in which a page that n processes share
    counts for 1/n in each, so that forked loader workers do not count their parent's again. Pages
    of files, such as libraries, are left out: strangers share these, and come and go.

    Args:
        pid (int): ID of the process.

    Returns:
        tuple[float, int]: Megabytes, and the number of processes; 0, 0 if the process has ended.
    """
    children = defaultdict(list)
    for entry in Path('/proc').iterdir():
        if entry.name.isdigit():
            # The name before the last parenthesis may hold anything.
            fields = _read(entry / 'stat').rpartition(')')[2].split()
            if fields:
                children[int(fields[1])].append(int(entry.name))
    total, count, todo = 0, 0, [pid]
    while todo:
        process = todo.pop()
        todo += children[process]
        lines = _read(Path(f'/proc/{process}/smaps_rollup')).splitlines()
        sizes = [int(line.split()[1]) for line in lines if line.startswith(OWN_PAGES)]
        total += sum(sizes) * 1024
        count += bool(sizes)
    return total / MB, count


def _read(path):
    try:
        return path.read_text(errors='replace')
    # A process may end at any time.
    except OSError:
        return ''


def watch(
    command: list[str],
    seconds: float,
    interval: float,
    see: Callable[[Sample], None] = lambda sample: None,
    **options,
) -> tuple[list[Sample], int | None]:
    """Run a command, sample its memory, and end it with SIGTERM.

    Args:
        command (list[str]): Words of the command.
        seconds (float): Time after which the command is ended, in seconds.
        interval (float): Time between two samples, in seconds.
        see (Callable): Function that is called with each sample. Defaults to one that does nothing.
        **options: Options of `subprocess.Popen`.

    Returns:
        tuple[list[Sample], int | None]: Samples, and the exit status of a command that ended by
        itself, or None.
    """
    samples, began = [], time.monotonic()
    with subprocess.Popen(command, **options) as process:
        try:
            while time.monotonic() - began < seconds:
                try:
                    return samples, process.wait(interval)
                except subprocess.TimeoutExpired:
                    memory, count = tree_memory(process.pid)
                if count:
                    samples.append(Sample(time.monotonic() - began, memory, count))
                    see(samples[-1])
        finally:
            process.terminate()
    return samples, None


def memory_report(samples: list[Sample]) -> dict:
    """Report how memory changed after the first quarter of the time, in which it settles.

    Args:
        samples (list[Sample]): Samples of :func:`watch`.

    Returns:
        dict: `mb_settled` and `mb_at_end`, medians of a tenth of the time each; `mb_peak`;
        `slope_mb_per_hour`, fitted by least squares after the first quarter; and `growth_mb`, what
        the slope makes of that time.

    Raises:
        UserError: There are too few samples.
    """
    if not samples:
        raise UserError(
            'no memory was seen: this needs Linux 5.4, with Pss_Anon in /proc/PID/smaps_rollup'
        )
    seconds, memory = np.array([sample[:2] for sample in samples]).T
    part = seconds / seconds[-1]
    first = (part >= WARM_UP) & (part < WARM_UP + MEDIAN_OF)
    last = part >= 1 - MEDIAN_OF
    if first.sum() < 2 or last.sum() < 2:
        raise UserError(f'{len(samples)} samples are too few: run longer or look more often')
    warm = part >= WARM_UP
    slope = np.polyfit(seconds[warm], memory[warm], 1)[0]
    return {
        'mb_settled': float(np.median(memory[first])),
        'mb_at_end': float(np.median(memory[last])),
        'mb_peak': float(memory.max()),
        'slope_mb_per_hour': float(slope * 3600),
        'growth_mb': float(slope * (seconds[-1] - seconds[warm][0])),
    }


def training_report(work_dir: Path) -> dict:
    """Report the progress and speed of a training, from the log that mmengine writes.

    Args:
        work_dir (Path): Work dir of the run, of which the last log is read.

    Returns:
        dict: `iterations` and `validations`; `iterations_per_second` over the `first_third` and
        the `last_third` of the log after its first quarter, without validation.

    Raises:
        UserError: The log is too short.
    """
    logs = read_logs(work_dir)
    lines = logs[-1] if logs else []
    training = [line for line in lines if 'loss' in line]
    times = [line['time'] for line in training][int(len(training) * WARM_UP) :]
    third = len(times) // 3
    if not third:
        raise UserError(f'{work_dir} has {len(training)} lines of training in its log: run longer')
    return {
        'iterations': training[-1]['step'],
        'validations': len(lines) - len(training),
        'iterations_per_second': {
            'first_third': float(1 / np.mean(times[:third])),
            'last_third': float(1 / np.mean(times[-third:])),
        },
    }
