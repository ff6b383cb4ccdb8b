"""Times of the rows' networks, measured in turn while nothing is trained."""

import json
from pathlib import Path

import torch

from benchmarks.report import environment
from benchmarks.speed.networks import Network, randomize_predictors
from benchmarks.timing import Call, pick_device, time_in_turn
from mmctx.checkpoints.atomic_backend import AtomicBackend
from mmctx.cli.running import build_model

from .jobs import Job

FILE = 'times.json'
KINDS = ('training', 'inference')
SECONDS = {'classification': 6.0, 'detection': 12.0}


def image_side(job: Job) -> int:
    """Side of the images that a job trains on, in pixels."""
    if 'image_size' in job.cfg:
        return job.cfg.image_size
    resize = next(step for step in job.cfg.train_pipeline if step['type'] == 'Resize')
    return resize['scale'][0]


def time_rows(jobs: list[Job]) -> dict:
    """Time a training step and a forward pass of a part's rows in turn.

    Args:
        jobs (list[Job]): Jobs of a part, one for each row.

    Returns:
        dict: Device, versions and date, `batch` in images, and by row the recipe's fingerprint and
        the durations of a step of training and of inference.
    """
    device = pick_device()
    batch = jobs[0].cfg.train_dataloader.batch_size
    steps = {(job.run.row.key, kind): _step(job, kind, device) for job in jobs for kind in KINDS}
    with torch.backends.cudnn.flags(enabled=True, benchmark=True):
        times = time_in_turn(steps, device, SECONDS[jobs[0].run.part])
    rows = {
        job.run.row.key: dict(
            fingerprint=job.fingerprint,
            **{kind: times[job.run.row.key, kind].in_seconds() for kind in KINDS},
        )
        for job in jobs
    }
    return dict(environment(device), batch=batch, rows=rows)


def _step(job: Job, kind: str, device: torch.device) -> Call:
    # The same modes as in training, where CropPreprocessor makes images on a GPU channels-last.
    mixed = job.cfg.optim_wrapper.get('type') == 'AmpOptimWrapper'
    channels_last = device.type == 'cuda' and job.run.part == 'classification'
    mode = ('amp',) * mixed + ('channels-last',) * channels_last
    shape = image_side(job), image_side(job)
    network = Network(randomize_predictors(build_model(job.cfg)), job.cfg, mode, shape, device)
    batch = job.cfg.train_dataloader.batch_size
    if kind == 'inference':
        step = network.inference(batch)
    else:
        step, _ = network.training_step(batch)
    return Call(lambda _: step())


def load_times(out: Path, part: str, fingerprints: dict[str, str]) -> dict:
    """Load the times of a part if they cover all rows of today's configs.

    Args:
        out (Path): Folder of the results.
        part (str): Key of the part.
        fingerprints (dict[str, str]): Fingerprint of each row's recipe.

    Returns:
        dict: Result of `time_rows`, or empty.
    """
    file = out / FILE
    found = json.loads(file.read_text()).get(part, {}) if file.is_file() else {}
    measured = {row: entry['fingerprint'] for row, entry in found.get('rows', {}).items()}
    return found if fingerprints.items() <= measured.items() else {}


def save_times(out: Path, part: str, times: dict) -> None:
    """Save a part's times next to those of other parts."""
    file = out / FILE
    everything = json.loads(file.read_text()) if file.is_file() else {}
    everything[part] = times
    AtomicBackend().put((json.dumps(everything, indent=1) + '\n').encode(), file)
