"""One call of the study's tool, from the data to the tables."""

import argparse
import contextlib
import fcntl
import logging
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path

import torch
from mmengine.registry import DATASETS, init_default_scope

from mmctx.apis.cli import CfgOptions
from mmctx.apis.complexity import measure_complexity
from mmctx.apis.errors import UserError
from mmctx.apis.preflight import preflight
from mmctx.apis.runner import build_model

from .curves import draw_curves
from .plan import PARTS, Run, run_of
from .processes import Job, train_all
from .records import fingerprint, load_records, make_record, run_config, save_record
from .report import part_report

UNIT_MINUTES = {'cpu': 2.3, 'cpu_long': 9.2, 'gpu': 0.8}
DRAWN = ('a1', 'a2', 'a3', 'a4', 'a5', 'rerank', 'warm-up')


def run_study(
    runs: list[Run],
    size: str,
    work_dir: Path,
    out: Path,
    options: list[str],
    processes: int,
    minutes: float,
    table_only: bool,
) -> bool:
    """Train what is not there yet, and write tables and curves of all that is.

    Args:
        runs (list[Run]): The runs.
        size (str): `cpu` or `gpu`, as in the environment.
        work_dir (Path): Folder of logs and checkpoints.
        out (Path): Folder of the results: `runs.jsonl`, `table.md`, `curves.png`.
        options (list[str]): `--cfg-options` of all trainings.
        processes (int): How many trainings at a time.
        minutes (float): When to stop; `inf` for never.
        table_only (bool): Train nothing.

    Returns:
        bool: Whether all runs are done.

    Raises:
        UserError: If the GPU or data is missing, another study uses the work dir, or a run failed.
    """
    if size == 'gpu' and not torch.cuda.is_available() and not table_only:
        raise UserError('--size gpu needs a GPU, and PyTorch sees none here')
    torch.set_num_threads(1)
    changes = parse_options(options)
    jobs = make_jobs(runs, changes, work_dir)
    kept = current_records(load_records(out), changes, work_dir)
    done = {(r['part'], r['row'], r['seed']) for r, _ in kept}
    left = [job for job in jobs if (job.run.part, job.run.row.key, job.run.seed) not in done]
    complete = not left
    if left and not table_only:
        with locked(work_dir):
            prepare_data(left)
            print(f'{len(left)} of {len(jobs)} runs to do, {processes} at a time', flush=True)
            finish = Finisher(size, out)
            with terminated_like_interrupted():
                complete = train_all(
                    left, size, options, processes, minutes, finish, UNIT_MINUTES[size]
                )
        kept = current_records(load_records(out), changes, work_dir)
    if kept:
        write_results(kept, out)
    return complete


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
    return [
        Job(run, cfg, fingerprint(cfg), work_dir / run.part / run.name)
        for run, cfg in zip(runs, cfgs)
    ]


def current_records(records: list[dict], changes: dict, work_dir: Path) -> list[tuple[dict, Job]]:
    """The records whose recipe is that of today's configs, each with the job that makes it."""
    runs = [run_of(record) for record in records]
    jobs = make_jobs([run for run in runs if run], changes, work_dir)
    known = [record for record, run in zip(records, runs) if run]
    return [(r, job) for r, job in zip(known, jobs) if r['fingerprint'] == job.recipe]


class Finisher:
    """Keeps what a finished training found and removes its checkpoints.

    Args:
        size (str): `cpu` or `gpu`.
        out (Path): Folder of the results.
    """

    def __init__(self, size: str, out: Path):
        self.size, self.out = size, out
        self.costs: dict[tuple[str, str], dict] = {}

    def __call__(self, job: Job) -> str:
        """The run's last figures in words; a UserError where there are none."""
        row = job.run.part, job.run.row.key
        if row not in self.costs:
            self.costs[row] = complexity(job)
        record = make_record(job.run, self.size, job.cfg, job.recipe, job.folder, self.costs[row])
        if record is None:
            shutil.rmtree(job.folder)
            raise UserError('interrupted in its last validation; run again to train it anew')
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
    side = job.cfg.get('image_size') or job.cfg.train_pipeline[2].scale[0]
    return measure_complexity(build_model(job.cfg), (side, side))._asdict()


def prepare_data(jobs: list[Job]) -> None:
    """Decode or render the data that the jobs read, unless that is done.

    Raises:
        UserError: If data is missing.
    """
    by_part = {job.run.part: job for job in jobs}
    if 'detection' in by_part:
        from mmctx.datasets.shapes import render_dataset

        try:
            render_dataset(by_part['detection'].cfg.data_root)
        except FileExistsError as error:
            raise UserError(error) from error
    for job in by_part.values():
        preflight(job.cfg, 'train')
    if 'classification' in by_part:
        cfg = by_part['classification'].cfg
        init_default_scope(cfg.default_scope)
        for loader in (cfg.train_dataloader, cfg.val_dataloader):
            try:
                DATASETS.build(loader.dataset)
            except ValueError as error:
                raise UserError(error) from error


@contextlib.contextmanager
def locked(work_dir: Path) -> Iterator[None]:
    """Keep a second study out of a work dir; a UserError where one is at work."""
    work_dir.mkdir(parents=True, exist_ok=True)
    with open(work_dir / 'lock', 'w') as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise UserError(f'another study is at work in {work_dir}') from error
        yield


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


def recipe(job: Job) -> str:
    """Data and budget of a part in words."""
    cfg = job.cfg
    batch = cfg.train_dataloader.batch_size
    if job.run.part == 'detection':
        return f'{cfg.train_cfg.max_epochs} epochs of 1600 rendered images, batch {batch}'
    kept = ', '.join(map(str, cfg.model.backbone.get('considered', cfg.considered)))
    return (
        f'{cfg.num_classes} classes of {cfg.image_size}×{cfg.image_size} pixels, '
        f'{cfg.model.backbone.base_channels} base channels (ResNet50: 64), '
        f'{cfg.train_cfg.max_iters} iterations of {batch} images; kept: {kept} unless stated'
    )


def write_results(kept: list[tuple[dict, Job]], out: Path) -> None:
    """Write `table.md` and `curves.png`, and print the tables."""
    texts = []
    for key in PARTS:
        own = [(record, job) for record, job in kept if job.run.part == key]
        if own:
            texts.append(part_report(key, [record for record, _ in own], recipe(own[0][1])))
    text = '\n\n'.join(texts)
    (out / 'table.md').write_text(f'{text}\n', encoding='utf-8')
    draw_curves([record for record, _ in kept], out / 'curves.png', DRAWN)
    print(text)
