"""One call of the study's tool, from the data to the tables."""

import argparse
import contextlib
import fcntl
import logging
import os
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import torch

from mmctx.apis.complexity import measure_complexity
from mmctx.cli.options import CfgOptions
from mmctx.cli.running import build_model
from mmctx.errors import UserError

from .data import prepare_data
from .plan import PARTS, Run, run_of
from .processes import train_all
from .records import fingerprint, identity, load_records, make_record, run_config, save_record
from .results import rows_of, times_of, write_results
from .speed import image_side, save_times, time_rows
from .training import Job

UNIT_MINUTES = {'cpu': 2.3, 'cpu_long': 9.2, 'gpu': 1.5}
TIMING_MINUTES = 4


class Study(NamedTuple):
    """What to train, and where.

    Attributes:
        runs (list[Run]): The runs.
        size (str): One of `plan.SIZES`, as in the environment.
        work_dir (Path): Folder of logs and checkpoints.
        out (Path): Folder of the results: `runs.jsonl`, `times.json`, `table.md`, `curves.png`.
        options (list[str]): `--cfg-options` of all trainings.
        processes (int): How many trainings at a time.
        minutes (float): When to stop; `inf` for never.
    """

    runs: list[Run]
    size: str
    work_dir: Path
    out: Path
    options: list[str]
    processes: int
    minutes: float


def run_study(study: Study) -> bool:
    """Train and time what is not done yet, and write tables and curves of all that is.

    Args:
        study (Study): The runs.

    Returns:
        bool: Whether everything is done.

    Raises:
        UserError: If the GPU or data is missing, another study uses a folder, or a run failed.
    """
    if study.size == 'gpu' and not torch.cuda.is_available():
        raise UserError('--size gpu needs a GPU, and PyTorch sees none here')
    began = time.monotonic()
    # The trainings take the other cores, and a CPU's times are of one thread, too.
    torch.set_num_threads(1)
    changes = parse_options(study.options)
    jobs = make_jobs(study.runs, changes, study.work_dir)
    with locked(*{study.work_dir.resolve(), study.out.resolve()}):
        done = {identity(record) for record in load_records(study.out)}
        left = [job for job in jobs if job.identity not in done]
        images = prepare_data(left)
        complete, failure = True, None
        try:
            complete = not left or train(study, left, len(jobs), images)
        except UserError as error:
            # What is done is worth a table.
            failure = error
        kept = current_records(study, changes)
        # A call that trains nothing has time for it anyway.
        until = began + 60 * (study.minutes - TIMING_MINUTES) if left else float('inf')
        complete = complete and time_untimed(kept, study.out, until)
        write_results(kept, study.out)
    if failure:
        raise failure
    return complete


def time_untimed(kept: list[tuple[dict, Job]], out: Path, until: float) -> bool:
    """Time the parts that lack it, unless it is too late by `time.monotonic`; whether all are."""
    for part, rows in rows_of(kept).items():
        if times_of(out, part, rows):
            continue
        if time.monotonic() >= until:
            return False
        print(f'timing {len(rows)} networks in turn', flush=True)
        save_times(out, part, time_rows(list(rows.values())))
    return True


def tabulate(study: Study) -> None:
    """Write tables and curves of what is done.

    Raises:
        UserError: If nothing of today's recipe is.
    """
    kept = current_records(study, parse_options(study.options))
    if not kept:
        raise UserError(f"{study.out} has no run of the recipe of today's configs")
    write_results(kept, study.out)


def parse_options(options: list[str]) -> dict:
    """`--cfg-options` as a dict by dotted key."""
    parser = argparse.ArgumentParser()
    parser.add_argument('--cfg-options', nargs='*', action=CfgOptions, default={})
    return parser.parse_args(['--cfg-options', *options] if options else []).cfg_options


def make_jobs(runs: list[Run], changes: dict, work_dir: Path) -> list[Job]:
    """Read the runs' configs."""
    before = logging.root.manager.disable
    # mmengine tells of every environment variable in every config.
    logging.disable(logging.INFO)
    try:
        cfgs = [run_config(run, changes) for run in runs]
    finally:
        logging.disable(before)
    # Now, as building a network changes its config.
    digests = [fingerprint(cfg) for cfg in cfgs]
    return [
        Job(run, cfg, digest, work_dir / run.part / f'{run.name}-{digest[:8]}')
        for run, cfg, digest in zip(runs, cfgs, digests)
    ]


def current_records(study: Study, changes: dict) -> list[tuple[dict, Job]]:
    """The records whose recipe is that of today's configs, each with the job that makes it."""
    records = load_records(study.out)
    runs = [run_of(record) for record in records]
    jobs = iter(make_jobs([run for run in runs if run], changes, study.work_dir))
    pairs = [(record, next(jobs)) for record, run in zip(records, runs) if run]
    kept = [(record, job) for record, job in pairs if record['fingerprint'] == job.fingerprint]
    if len(kept) < len(records):
        print(
            f'{len(records) - len(kept)} runs of another recipe in {study.out} are left out',
            file=sys.stderr,
        )
    return kept


def train(study: Study, left: list[Job], total: int, images: dict[str, tuple[int, int]]) -> bool:
    """Train the jobs that are left; whether all were."""
    print(f'{len(left)} of {total} runs to do, {study.processes} at a time', flush=True)
    finish = Finisher(study.out, images)
    unit = UNIT_MINUTES[study.size]
    with terminated_like_interrupted():
        return train_all(
            left, study.size, study.options, study.processes, study.minutes, finish, unit
        )


class Finisher:
    """Keeps what a finished training found and removes its checkpoints.

    Args:
        out (Path): Folder of the results.
        images (dict[str, tuple[int, int]]): Training and validation images of the parts.
    """

    def __init__(self, out: Path, images: dict[str, tuple[int, int]]):
        self.out, self.images = out, images
        self.costs: dict[tuple[str, str], dict] = {}

    def __call__(self, job: Job) -> str | None:
        """The run's last figures in words; None where its last validation is missing."""
        row = job.run.part, job.run.row.key
        images = self.images[job.run.part]
        if row not in self.costs:
            self.costs[row] = complexity(job)
        record = make_record(job.run, job.cfg, job.fingerprint, job.folder, images, self.costs[row])
        if record is None:
            return None
        save_record(self.out, record)
        for checkpoint in job.folder.glob('*.pth'):
            checkpoint.unlink()
        part = PARTS[job.run.part]
        return ', '.join(
            f'{heading} {part.percent * record["metrics"][name]:.1f}'
            for heading, name in part.metrics.items()
        )


def complexity(job: Job) -> dict:
    """Parameters and FLOPs of a job's network on an image of its data."""
    return measure_complexity(build_model(job.cfg), (image_side(job),) * 2)._asdict()


@contextlib.contextmanager
def locked(*folders: Path) -> Iterator[None]:
    """Keep a second study out of folders; a UserError where one is at work."""
    descriptors = []
    try:
        for folder in folders:
            folder.mkdir(parents=True, exist_ok=True)
            descriptors.append(os.open(folder, os.O_RDONLY))
            try:
                fcntl.flock(descriptors[-1], fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                raise UserError(f'another study is at work in {folder}') from error
        yield
    finally:
        for descriptor in descriptors:
            os.close(descriptor)


@contextlib.contextmanager
def terminated_like_interrupted() -> Iterator[None]:
    """Let SIGTERM raise KeyboardInterrupt, so that the trainings are ended, too."""

    def interrupt(*_):
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
