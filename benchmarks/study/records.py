"""Records of finished runs: a line of JSON for each, small enough to keep in the repository."""

import hashlib
import json
from pathlib import Path

from mmengine.config import Config

from mmctx.checkpoints.atomic_backend import AtomicBackend

from .plan import Run
from .progress import read_run

FILE = 'runs.jsonl'
IDENTITY = ('part', 'row', 'seed', 'fingerprint')
# Keys that are left out of a fingerprint: paths of data and what a run prints do not change what it
# learns.
IGNORED_KEYS = (
    'work_dir', 'launcher', 'default_hooks', 'visualizer', 'vis_backends', 'data_root', 'cache',
)  # fmt: skip


def fingerprint(cfg: Config) -> str:
    """Compute the digest of a recipe, which keeps runs of different recipes apart."""
    whole = cfg.to_dict()
    root = whole.get('data_root', '')
    text = json.dumps(_without_paths(whole, root), sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _without_paths(value, root: str):
    if isinstance(value, dict):
        return {k: _without_paths(v, root) for k, v in value.items() if k not in IGNORED_KEYS}
    if isinstance(value, (list, tuple)):
        return [_without_paths(v, root) for v in value]
    return value.removeprefix(root) if isinstance(value, str) else value


def last_step(cfg: Config) -> int:
    """Step of the last validation of a complete run."""
    return cfg.train_cfg.get('max_iters') or cfg.train_cfg.max_epochs


def make_record(
    run: Run, digest: str, folder: Path, images: tuple[int, int], cost: dict, where: dict
) -> dict:
    """Make the record of a run that has all its validations.

    Args:
        run (Run): The run.
        digest (str): Fingerprint of its config.
        folder (Path): Work dir of the run.
        images (tuple[int, int]): Numbers of training and of validation images.
        cost (dict): `params` and `flops` of the network.
        where (dict): Device, versions and date, as `report.environment` returns them.

    Returns:
        dict: Record for `runs.jsonl`.
    """
    training, validations = read_run(folder)
    figures = [
        {k: round(v, 4) for k, v in entry.items() if k not in ('data_time', 'time')}
        for entry in validations
    ]
    return dict(
        part=run.part,
        row=run.row.key,
        seed=run.seed,
        fingerprint=digest,
        metrics=figures[-1],
        validations=figures,
        losses=[[entry['step'], round(entry['loss'], 4)] for entry in training],
        images=images,
        **cost,
        **where,
    )


def load_records(out: Path) -> list[dict]:
    """Read all records in a folder; none if there is no file."""
    file = out / FILE
    return [json.loads(line) for line in file.read_text().splitlines()] if file.is_file() else []


def identity(record: dict) -> tuple:
    """Part, row, seed and recipe of a record, which together identify its run."""
    return tuple(record[key] for key in IDENTITY)


def save_record(out: Path, record: dict) -> None:
    """Add a record to the file; a record of the same run is replaced."""
    others = [r for r in load_records(out) if identity(r) != identity(record)]
    text = ''.join(json.dumps(r) + '\n' for r in [*others, record])
    AtomicBackend().put(text.encode(), out / FILE)
