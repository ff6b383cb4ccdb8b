"""Trainings side by side that an interruption does not lose."""

import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress

from mmctx.cli.tool import EXIT_STATUS
from mmctx.engine.hooks.interruption_hook import EXIT_STATUS as INTERRUPTED_STATUS
from mmctx.errors import UserError

from .training import LOG, Job, is_in_last_validation, last_line, progress, start

POLL_SECONDS = 0.5
REPORT_SECONDS = 60
LAST_VALIDATION_SECONDS = 120


class Queue:
    """The jobs of a call of :func:`train_all`, whose arguments it takes, and their trainings."""

    def __init__(self, jobs, size, options, finish):
        self.size, self.options, self.finish = size, options, finish
        self.total, self.done = len(jobs), 0
        self.waiting, self.active, self.failed = list(jobs), [], []
        self.stuck, self.unvalidated = set(), set()
        self.anything_trained = False
        self.ended_cost = self.ended_minutes = 0.0

    def fill(self, processes: int) -> None:
        """Start the jobs that wait, as many as there is room for."""
        while self.waiting and len(self.active) < processes:
            self.active.append(start(self.waiting.pop(0), self.size, self.options))

    def collect(self) -> None:
        """Look after the trainings that have ended; a UserError where all others will fail, too."""
        for training in [t for t in self.active if t.process.poll() is not None]:
            self._settle(training)
            # Not before: `stop` finishes what an interruption has kept from being finished here.
            self.active.remove(training)

    def _settle(self, training):
        job, status = training.job, training.process.returncode
        advanced = training.has_advanced()
        self.anything_trained |= advanced or not status
        if not status:
            self._finish(training)
        elif status != INTERRUPTED_STATUS:
            self._fail(job, last_line(job))
            trained = self.anything_trained or any(t.has_advanced() for t in self.active)
            if status == EXIT_STATUS and not trained:
                raise UserError(self.failed[-1])
        elif advanced or job.run not in self.stuck:
            (self.stuck.discard if advanced else self.stuck.add)(job.run)
            self._put_back(job, 'interrupted; it goes on from its checkpoint')
        else:
            self._fail(job, 'interrupted twice without progress; run again to go on')

    def _finish(self, training):
        job, name = training.job, training.job.run.name
        spent = (time.monotonic() - training.began) / 60
        self.ended_cost += job.run.row.cost
        self.ended_minutes += spent
        try:
            found = self.finish(job)
        except UserError as error:
            self._fail(job, error)
            return
        if found is not None:
            self.done += 1
            print(f'[{self.done}/{self.total}] {name}: {found}, {spent:.1f} min', flush=True)
        elif job.run in self.unvalidated:
            self._fail(job, 'ended twice without its last validation; look into its log')
        else:
            self.unvalidated.add(job.run)
            self._put_back(job, 'ended without its last validation; it is trained anew')

    def _put_back(self, job, reason):
        self.waiting.insert(0, job)
        print(f'{job.run.name}: {reason}', flush=True)

    def _fail(self, job, reason):
        self.failed.append(f'{job.run.name}: {reason}')
        print(f'{self.failed[-1]} ({job.folder / LOG})', file=sys.stderr, flush=True)

    def stop(self) -> None:
        """End the trainings, but let those in their last validation complete it in time."""
        try:
            for training in self.active:
                if is_in_last_validation(training.job):
                    print(f'waiting for the end of {training.job.run.name}', flush=True)
                else:
                    training.process.terminate()
            until = time.monotonic() + LAST_VALIDATION_SECONDS
            for training in self.active:
                with suppress(subprocess.TimeoutExpired):
                    training.process.wait(max(until - time.monotonic(), 0))
        finally:
            for training in self.active:
                training.process.terminate()
            for training in self.active:
                training.process.wait()
        for training in self.active:
            if training.process.returncode == 0:
                self._finish(training)

    def report(self, processes: int, unit_minutes: float) -> None:
        """Print how far the trainings are; `unit_minutes` are for cost 1 until one has ended."""
        unit = self.ended_minutes / self.ended_cost if self.ended_cost else unit_minutes
        shares = [(t.job.run, progress(t.job)) for t in self.active]
        left = sum(run.row.cost * (1 - share) for run, share in shares)
        left += sum(job.run.row.cost for job in self.waiting)
        now = ', '.join(f'{run.name} {share:.0%}' for run, share in shares)
        left *= unit / processes
        print(f'    {now}; {len(self.waiting)} waiting, about {left:.0f} min left', flush=True)


def train_all(
    jobs: list[Job],
    size: str,
    options: list[str],
    processes: int,
    minutes: float,
    finish: Callable[[Job], str | None],
    unit_minutes: float,
) -> bool:
    """Train until all is done or the time is up.

    Args:
        jobs (list[Job]): What to train, in this order.
        size (str): One of `plan.SIZES`.
        options (list[str]): `--cfg-options` of all trainings.
        processes (int): How many at a time.
        minutes (float): When to stop the trainings, which can be resumed; `inf` for never.
        finish (Callable): Called with each job that ended well; returns what to print of it, or
            None if its log lacks the last validation.
        unit_minutes (float): How long a row of cost 1 takes, until that is known.

    Returns:
        bool: Whether all is done.

    Raises:
        UserError: If a training failed: at once if it fails on what the user supplied before any
            has trained, else when the others have ended or the time is up.
    """
    queue = Queue(jobs, size, options, finish)
    began = reported = time.monotonic()
    try:
        while queue.waiting or queue.active:
            queue.fill(processes)
            time.sleep(POLL_SECONDS)
            queue.collect()
            now = time.monotonic()
            if now - reported >= REPORT_SECONDS and queue.active:
                reported = now
                queue.report(processes, unit_minutes)
            if (now - began) / 60 >= minutes:
                break
    finally:
        queue.stop()
    if queue.failed:
        failed = '; '.join(queue.failed)
        raise UserError(f'{len(queue.failed)} of {len(jobs)} runs failed: {failed}')
    return queue.done == len(jobs)
