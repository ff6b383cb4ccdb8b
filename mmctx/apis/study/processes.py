"""Trainings side by side, each in a process of its own, that an interruption does not lose."""

import ctypes
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from mmengine.config import Config

from mmctx.apis.errors import EXIT_STATUS, UserError
from mmctx.compat.config_paths import config_dir
from mmctx.engine.latest import latest_checkpoint

from .plan import SIZE_VARIABLE, Run
from .records import config_file, last_step, read_log

LOG = 'log.txt'
STAMP = 'fingerprint'
POLL_SECONDS = 0.5
REPORT_SECONDS = 60


class Job(NamedTuple):
    """A run that is to be trained, with its config, that config's fingerprint, and work dir."""

    run: Run
    cfg: Config
    recipe: str
    folder: Path


class Training(NamedTuple):
    """A job's process and when it began, by `time.monotonic`."""

    job: Job
    process: subprocess.Popen
    began: float


def environment(size: str) -> dict[str, str]:
    """Environment of the trainings: the size, and on CPUs one thread each and no GPU."""
    own = dict(CUDA_VISIBLE_DEVICES='', OMP_NUM_THREADS='1') if size != 'gpu' else {}
    return {**os.environ, **own, SIZE_VARIABLE: size}


def start(job: Job, size: str, options: list[str]) -> Training:
    """Start a training, or go on from its last checkpoint if the recipe is still the same."""
    stamp = job.folder / STAMP
    same = stamp.is_file() and stamp.read_text() == job.recipe
    resumable = same and latest_checkpoint(str(job.folder))[0] is not None
    if not resumable:
        shutil.rmtree(job.folder, ignore_errors=True)
        job.folder.mkdir(parents=True)
        stamp.write_text(job.recipe)
    command = [sys.executable, str(config_dir().resolve().parent / 'tools' / 'train.py')]
    command += [str(config_file(job.run)), '--work-dir', str(job.folder)]
    command += ['--resume'] if resumable else []
    command += ['--cfg-options', f'randomness.seed={job.run.seed}', *options]
    with open(job.folder / LOG, 'a') as log:
        process = subprocess.Popen(
            command,
            stdout=log,
            stderr=subprocess.STDOUT,
            env=environment(size),
            preexec_fn=_end_with_parent if sys.platform == 'linux' else None,
        )
    return Training(job, process, time.monotonic())


def _end_with_parent():
    # PR_SET_PDEATHSIG: two trainings must not write into one folder after a kill -9.
    ctypes.CDLL(None).prctl(1, signal.SIGTERM)


def progress(job: Job) -> float:
    """Which share of a training is done, from its log."""
    training, _ = read_log(job.folder)
    if not training:
        return 0.0
    last = training[-1]
    done = last['step'] if 'max_iters' in job.cfg.train_cfg else last['epoch'] - 0.5
    return min(done / last_step(job.cfg), 1.0)


def train_all(
    jobs: list[Job],
    size: str,
    options: list[str],
    processes: int,
    minutes: float,
    finish: Callable[[Job], str],
    unit_minutes: float,
) -> bool:
    """Train until all is done or the time is up.

    Args:
        jobs (list[Job]): What to train, in this order.
        size (str): `cpu` or `gpu`.
        options (list[str]): `--cfg-options` of all trainings.
        processes (int): How many at a time.
        minutes (float): When to stop the trainings, which can be resumed; `inf` for never.
        finish (Callable): Called with each job that ended well; returns what to print of it.
        unit_minutes (float): How long a row of cost 1 takes, until that is known.

    Returns:
        bool: Whether all is done.

    Raises:
        UserError: If a training failed; those that do not depend on what the user supplied are
            reported when the others have ended.
    """
    began = reported = time.monotonic()
    waiting, active, failed = list(jobs), [], []
    finished_cost = finished_minutes = 0.0
    try:
        while waiting or active:
            while waiting and len(active) < processes:
                active.append(start(waiting.pop(0), size, options))
            time.sleep(POLL_SECONDS)
            now = time.monotonic()
            for training in [t for t in active if t.process.poll() is not None]:
                active.remove(training)
                name = training.job.run.name
                if training.process.returncode:
                    failed.append(f'{name}: {_last_line(training.job)}')
                    print(f'{failed[-1]} ({training.job.folder / LOG})', file=sys.stderr)
                    if training.process.returncode == EXIT_STATUS:
                        raise UserError(failed[-1])
                    continue
                spent = (now - training.began) / 60
                finished_cost += training.job.run.row.cost
                finished_minutes += spent
                try:
                    found = finish(training.job)
                except UserError as error:
                    failed.append(f'{name}: {error}')
                    continue
                done = len(jobs) - len(waiting) - len(active) - len(failed)
                print(f'[{done}/{len(jobs)}] {name}: {found}, {spent:.1f} min', flush=True)
            if now - reported >= REPORT_SECONDS and active:
                reported = now
                unit = finished_minutes / finished_cost if finished_cost else unit_minutes
                _report(active, waiting, unit, processes)
            if (now - began) / 60 >= minutes and (waiting or active):
                return False
    finally:
        for training in active:
            training.process.terminate()
        for training in active:
            training.process.wait()
    if failed:
        raise UserError(f'{len(failed)} of {len(jobs)} runs failed: {"; ".join(failed)}')
    return True


def _report(active: list[Training], waiting: list[Job], unit: float, processes: int) -> None:
    shares = [(t.job.run, progress(t.job)) for t in active]
    left = sum(run.row.cost * (1 - share) for run, share in shares)
    left += sum(job.run.row.cost for job in waiting)
    now = ', '.join(f'{run.name} {share:.0%}' for run, share in shares)
    print(
        f'    {now}; {len(waiting)} waiting, about {left * unit / processes:.0f} min left',
        flush=True,
    )


def _last_line(job: Job) -> str:
    lines = (job.folder / LOG).read_text(errors='replace').split('\n')
    return next((line for line in reversed(lines) if line.strip()), 'no output').strip()[-300:]
