"""Steps in separate processes, some at a time; a failure does not stop the others."""

import json
import os
import signal
import subprocess
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import suppress
from typing import NamedTuple

from .sizes import Place
from .steps import ROOT, Step, command

LINES_SHOWN = 15


class Outcome(NamedTuple):
    """Outcome of a step.

    Attributes:
        step (Step): The step.
        passed (bool): Whether its process ended with status 0 in time.
        seconds (float): Duration of the step, in seconds.
        detail (str): Results of the step, or the reason why it failed.
    """

    step: Step
    passed: bool
    seconds: float
    detail: str


class Processes:
    """Runs steps in processes, and ends those that are still running when it is interrupted.

    Args:
        place (Place): Device and folder of the check; each step writes `<name>.log` into it.
        jobs (int): Number of steps that run at a time.
    """

    def __init__(self, place: Place, jobs: int):
        self.place, self.jobs = place, jobs
        self.running, self.lock, self.stopped = set(), threading.Lock(), False

    def run(self, steps: Sequence[Step]) -> Iterator[Outcome]:
        """Run steps.

        Args:
            steps (Sequence[Step]): Steps in the order in which they are started.

        Yields:
            Outcome: Outcome of each step, in the order in which they end.
        """
        with ThreadPoolExecutor(self.jobs) as pool:
            try:
                for future in as_completed([pool.submit(self._one, step) for step in steps]):
                    yield future.result()
            finally:
                with self.lock:
                    self.stopped = True
                    for process in self.running:
                        _kill(process)

    def _one(self, step):
        began = time.monotonic()
        log = self.place.out / f'{step.name}.log'
        paths = [str(ROOT), *filter(None, [os.environ.get('PYTHONPATH')])]
        env = {
            'OMP_NUM_THREADS': str(max(1, os.cpu_count() // self.jobs)),
            **os.environ,
            'PYTHONPATH': os.pathsep.join(paths),
            'PYTHONUNBUFFERED': '1',
        }
        with open(log, 'w') as file, self.lock:
            if self.stopped:
                return Outcome(step, False, 0.0, 'not run')
            process = subprocess.Popen(
                command(step, self.place),
                cwd=ROOT,
                env=env,
                stdout=file,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
            self.running.add(process)
        try:
            status = process.wait(step.seconds)
            reason = f'status {status}'
        except subprocess.TimeoutExpired:
            status, reason = None, f'ended after {step.seconds} s'
        _kill(process)
        with self.lock:
            self.running.discard(process)
        lines = log.read_text(errors='replace').splitlines()
        found = self.place.out / f'{step.name}.json'
        if status == 0:
            detail = _describe(json.loads(found.read_text())) if found.is_file() else lines[-1]
        else:
            detail = '\n    '.join([f'{reason}, end of {log}:', *lines[-LINES_SHOWN:]])
        return Outcome(step, status == 0, time.monotonic() - began, detail)


def _describe(found):
    shown = (f'{v:.3g}' if isinstance(v, float) else str(v) for v in found.values())
    return ', '.join(f'{key.replace("_", " ")} {value}' for key, value in zip(found, shown))


def _kill(process):
    """End a step's process and all processes that it has started."""
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
