"""One training of the study in a process of its own, and what its folder tells of it."""

import ctypes
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import NamedTuple

from mmengine.config import Config

from mmctx.checkpoints.latest import latest_checkpoint
from mmctx.compat.config_paths import config_dir

from .plan import SIZE_VARIABLE, Run
from .records import config_file, last_step, read_log

LOG = 'log.txt'


class Job(NamedTuple):
    """A run that is to be trained, with its config, the fingerprint of that, and its work dir."""

    run: Run
    cfg: Config
    fingerprint: str
    folder: Path

    @property
    def identity(self) -> tuple:
        """As `records.identity` of the record that it makes."""
        return self.run.part, self.run.row.key, self.run.seed, self.fingerprint


class Training(NamedTuple):
    """A job's process, when it began, by `time.monotonic`, and its `step_times` then."""

    job: Job
    process: subprocess.Popen
    began: float
    times: list[float]

    def has_advanced(self) -> bool:
        """Whether it has logged steps since it began, be they steps of before once more."""
        return step_times(self.job) != self.times


def step_times(job: Job) -> list[float]:
    """Seconds of each logged step; they differ whenever a step is trained again."""
    return [entry['time'] for entry in read_log(job.folder)[0]]


def training_environment(size: str) -> dict[str, str]:
    """Environment of the trainings: the size, and few threads, as they run side by side."""
    threads = '4' if size == 'gpu' else '1'
    return {**os.environ, 'OMP_NUM_THREADS': threads, SIZE_VARIABLE: size}


def train_command(job: Job, options: list[str], resume: bool) -> list[str]:
    """Command line of a training."""
    command = [sys.executable, str(config_dir().resolve().parent / 'tools' / 'train.py')]
    command += [str(config_file(job.run)), '--work-dir', str(job.folder)]
    command += ['--resume'] if resume else []
    return [*command, '--cfg-options', *options, f'randomness.seed={job.run.seed}']


def start(job: Job, size: str, options: list[str]) -> Training:
    """Start a training, or go on from its last checkpoint; its folder is of its recipe alone."""
    checkpoint = latest_checkpoint(str(job.folder))[0]
    # From the final checkpoint a run would end at once, without the validation that it lacks.
    resumable = checkpoint is not None and Path(checkpoint).name != final_checkpoint(job).name
    if not resumable:
        shutil.rmtree(job.folder, ignore_errors=True)
        job.folder.mkdir(parents=True)
    times = step_times(job)
    with open(job.folder / LOG, 'a') as log:
        process = subprocess.Popen(
            train_command(job, options, resumable),
            stdout=log,
            stderr=subprocess.STDOUT,
            env=training_environment(size),
            # A Ctrl-C must not reach the trainings, which it would end before they have saved.
            start_new_session=True,
            preexec_fn=_end_with_parent if sys.platform == 'linux' else None,
        )
    return Training(job, process, time.monotonic(), times)


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


def final_checkpoint(job: Job) -> Path:
    """The checkpoint that a training saves after its last step, before its last validation."""
    unit = 'iter' if 'max_iters' in job.cfg.train_cfg else 'epoch'
    return job.folder / f'{unit}_{last_step(job.cfg)}.pth'


def is_in_last_validation(job: Job) -> bool:
    """Whether only the last validation is left of a training under way."""
    return final_checkpoint(job).is_file() or progress(job) == 1


def last_line(job: Job) -> str:
    """What a training said last, for instance why it ended."""
    lines = (job.folder / LOG).read_text(errors='replace').split('\n')
    return next((line for line in reversed(lines) if line.strip()), 'no output').strip()[-300:]
