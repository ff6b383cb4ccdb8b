"""Trainings of the runs, started by make: `tools/train.py --resume`, each in its own folder."""

import fcntl
import json
import logging
import os
import shlex
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from mmengine.config import Config

from benchmarks.report import environment
from benchmarks.timing import pick_device
from mmctx.cli.config import load_config
from mmctx.errors import UserError

from .plan import Run
from .progress import last_validation
from .records import fingerprint, last_step

ROOT = Path(__file__).resolve().parents[2]
LOG, ENVIRONMENT, MAKEFILE = 'log.txt', 'environment.json', 'trainings.mk'


class Job(NamedTuple):
    """A run with its config, the config's fingerprint, and its work dir."""

    run: Run
    cfg: Config
    fingerprint: str
    folder: Path

    @property
    def identity(self) -> tuple:
        """The same as `records.identity` of its future record."""
        return self.run.part, self.run.row.key, self.run.seed, self.fingerprint


def make_jobs(runs: list[Run], changes: dict, work_dir: Path) -> list[Job]:
    """Read the runs' configs.

    Args:
        runs (list[Run]): The runs.
        changes (dict): `--cfg-options` by dotted key.
        work_dir (Path): Folder of all trainings, in which each recipe has its own folders.

    Returns:
        list[Job]: A job for each run.
    """
    before = logging.root.manager.disable
    # mmengine logs every environment variable in every config.
    logging.disable(logging.INFO)
    try:
        cfgs = [load_config(str(r.config), {**changes, 'randomness.seed': r.seed}) for r in runs]
    finally:
        logging.disable(before)
    # Before networks are built, as that changes their configs.
    digests = [fingerprint(cfg) for cfg in cfgs]
    return [
        Job(run, cfg, digest, work_dir / run.part / f'{run.name}-{digest[:8]}')
        for run, cfg, digest in zip(runs, cfgs, digests)
    ]


def makefile(jobs: list[Job], options: list[str]) -> str:
    """Write a rule of make for each job: train, resuming if possible, and print the metrics.

    Args:
        jobs (list[Job]): Jobs in the order in which they start.
        options (list[str]): `--cfg-options` of all trainings.

    Returns:
        str: Contents of the makefile.
    """
    names = [f'{job.run.part}/{job.run.name}' for job in jobs]
    rules = [f'.PHONY: {" ".join(["all", *names])}\nall: {" ".join(names)}']
    for job, name in zip(jobs, names):
        train = [sys.executable, ROOT / 'tools' / 'train.py', job.run.config, '--resume']
        train += ['--work-dir', job.folder]
        train += ['--cfg-options', *options, f'randomness.seed={job.run.seed}']
        show = [sys.executable, '-m', 'benchmarks.study.progress']
        show += [job.folder, job.run.part, last_step(job.cfg)]
        # With `exec` make's SIGTERM reaches the training, which then saves its state.
        log = _quoted([job.folder / LOG])
        rules.append(f'{name}:\n\t@exec {_quoted(train)} >>{log} 2>&1\n\t@exec {_quoted(show)}')
    return '\n\n'.join(rules) + '\n'


def _quoted(words: list) -> str:
    return shlex.join(map(str, words)).replace('$', '$$')


def train(
    jobs: list[Job], options: list[str], work_dir: Path, processes: int, minutes: float
) -> bool:
    """Train the jobs with make until all are done or have failed, or the time is up.

    Args:
        jobs (list[Job]): Jobs in the order in which they start.
        options (list[str]): `--cfg-options` of all trainings.
        work_dir (Path): Folder of all trainings.
        processes (int): Number of trainings at a time.
        minutes (float): Minutes after which the trainings are interrupted, to be resumed later;
            `inf` for never.

    Returns:
        bool: Whether the trainings ended before the time was up.

    Raises:
        UserError: A training failed (raised after the others have ended), or make is missing.
    """
    work_dir.mkdir(parents=True, exist_ok=True)
    file = work_dir / MAKEFILE
    command = [
        'make',
        '--no-print-directory',
        '--keep-going',
        f'--jobs={processes}',
        f'--file={file}',
    ]
    with locked(work_dir) as lock:
        where = json.dumps(environment(pick_device()))
        for job in jobs:
            job.folder.mkdir(parents=True, exist_ok=True)
            (job.folder / ENVIRONMENT).write_text(where)
        file.write_text(makefile(jobs, options))
        try:
            # Ctrl-C must not reach the trainings: it would end them before they save their state.
            make = subprocess.Popen(
                command, env=_environment(jobs), start_new_session=True, pass_fds=[lock]
            )
        except FileNotFoundError as error:
            raise UserError('the trainings are started by make, which is not installed') from error
        try:
            status = make.wait(None if minutes == float('inf') else 60 * minutes)
        except subprocess.TimeoutExpired:
            return False
        finally:
            # make passes SIGTERM on to the trainings and waits for them.
            make.terminate()
            make.wait()
    if status:
        left = [j for j in jobs if last_validation(j.folder, last_step(j.cfg)) is None]
        failed = '; '.join(f'{job.run.name}: {reason(job)} ({job.folder / LOG})' for job in left)
        raise UserError(f'{len(left)} of {len(jobs)} trainings failed: {failed}')
    return True


def reason(job: Job) -> str:
    """Reason why a training ended: the last line of its log."""
    log = job.folder / LOG
    lines = log.read_text(errors='replace').splitlines() if log.is_file() else []
    return next((line for line in reversed(lines) if line.strip()), 'no output').strip()[-300:]


def _environment(jobs: list[Job]) -> dict[str, str]:
    """Environment of the trainings: few threads, as they run side by side."""
    # If make started the study, its variables are not for the make of the trainings.
    inherited = {name: v for name, v in os.environ.items() if not name.startswith('MAKE')}
    threads = '4' if jobs[0].run.size == 'gpu' else '1'
    paths = os.pathsep.join(filter(None, [str(ROOT), os.environ.get('PYTHONPATH')]))
    return {**inherited, 'OMP_NUM_THREADS': threads, 'PYTHONPATH': paths}


@contextmanager
def locked(folder: Path) -> Iterator[int]:
    """Keep other studies out of a folder as long as this one or one of its trainings runs.

    Yields:
        int: Descriptor of the lock, which the trainings inherit.

    Raises:
        UserError: Another study uses the folder.
    """
    lock = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield lock
    except BlockingIOError as error:
        raise UserError(f'another study is at work in {folder}') from error
    finally:
        os.close(lock)
