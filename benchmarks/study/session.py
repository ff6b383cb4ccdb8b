"""A call of the study's tool, from the data to the tables."""

import json
import sys
import time
from pathlib import Path

import torch

from mmctx.apis.complexity import measure_complexity
from mmctx.cli.running import build_model
from mmctx.errors import UserError

from .data import prepare_data
from .jobs import ENVIRONMENT, LOG, Job, make_jobs, train
from .plan import Run, planned_run
from .progress import last_validation
from .records import identity, last_step, load_records, make_record, save_record
from .results import find_times, jobs_by_row, write_results
from .speed import image_side, save_times, time_rows

TIMING_MINUTES = 4


class Study:
    """Results of a size of the study, and the trainings that add to them.

    Args:
        size (str): Size of the study, one of `plan.SIZES`.
        out (Path): Folder of the results: `runs.jsonl`, `times.json`, `table.md`, `curves.png`.
        work_dir (Path): Folder of logs and checkpoints.
        changes (dict): `--cfg-options` of all configs, by dotted key.
        options (list[str]): The same options as words of a command line.
    """

    def __init__(self, size: str, out: Path, work_dir: Path, changes: dict, options: list[str]):
        self.size, self.out, self.work_dir = size, out, work_dir
        self.changes, self.options = changes, options
        # Like the trainings, which run side by side; times on a CPU are for one thread, too.
        torch.set_num_threads(1)

    def run(self, runs: list[Run], processes: int, minutes: float) -> bool:
        """Train and time what is missing, and write tables and curves of all finished runs.

        Args:
            runs (list[Run]): Runs to train, in this order.
            processes (int): Number of trainings at a time.
            minutes (float): Minutes after which training stops; `inf` for never.

        Returns:
            bool: Whether everything is done.

        Raises:
            UserError: Data or make is missing, another study uses the work dir, or a training
                failed.
        """
        # A call that trains nothing has no time limit for its measurements.
        until, failure, complete = float('inf'), None, True
        jobs = make_jobs(runs, self.changes, self.work_dir)
        done = {identity(record) for record in load_records(self.out)}
        left = [job for job in jobs if job.identity not in done]
        if left:
            until = time.monotonic() + 60 * (minutes - TIMING_MINUTES)
            images = prepare_data(left)
            # A killed call may have left finished trainings without records.
            left = self._collect(left, images)
        if left:
            print(f'{len(left)} of {len(jobs)} runs to do, {processes} at a time', flush=True)
            print(f'logs: {self.work_dir}/*/*/{LOG}', flush=True)
            try:
                complete = train(left, self.options, self.work_dir, processes, minutes)
            except UserError as error:
                # The error is raised after the table of the finished runs is written.
                failure = error
            finally:
                self._collect(left, images)
        kept = self._current_records()
        complete = complete and self._time_rows(kept, until)
        write_results(kept, self.out)
        if failure:
            raise failure
        return complete

    def tabulate(self) -> None:
        """Write tables and curves of the finished runs.

        Raises:
            UserError: No run of the recipe of today's configs is finished.
        """
        kept = self._current_records()
        if not kept:
            raise UserError(f"{self.out} has no run of the recipe of today's configs")
        write_results(kept, self.out)

    def _collect(self, jobs: list[Job], images: dict[str, tuple[int, int]]) -> list[Job]:
        """Record the jobs that are done, remove their checkpoints, and return the other jobs."""
        costs, left = {}, []
        for job in jobs:
            if last_validation(job.folder, last_step(job.cfg)) is None:
                left.append(job)
                continue
            row = job.run.row.key
            if row not in costs:
                model = build_model(job.cfg)
                costs[row] = measure_complexity(model, (image_side(job),) * 2)._asdict()
            where = json.loads((job.folder / ENVIRONMENT).read_text())
            record = make_record(
                job.run, job.fingerprint, job.folder, images[job.run.part], costs[row], where
            )
            save_record(self.out, record)
            for checkpoint in job.folder.glob('*.pth'):
                checkpoint.unlink()
        return left

    def _current_records(self) -> list[tuple[dict, Job]]:
        """Records of the recipe of today's configs, each with its job."""
        records = load_records(self.out)
        runs = [planned_run(record, self.size) for record in records]
        jobs = iter(make_jobs([run for run in runs if run], self.changes, self.work_dir))
        pairs = [(record, next(jobs)) for record, run in zip(records, runs) if run]
        kept = [(record, job) for record, job in pairs if record['fingerprint'] == job.fingerprint]
        if len(kept) < len(records):
            print(
                f'{len(records) - len(kept)} runs of another recipe in {self.out} are left out',
                file=sys.stderr,
            )
        return kept

    def _time_rows(self, kept: list[tuple[dict, Job]], until: float) -> bool:
        """Time the parts without times until the clock reaches `until`; return whether all have."""
        for part, rows in jobs_by_row(kept).items():
            if find_times(self.out, part, rows):
                continue
            if time.monotonic() >= until:
                return False
            print(f'timing {len(rows)} networks in turn', flush=True)
            save_times(self.out, part, time_rows(list(rows.values())))
        return True
