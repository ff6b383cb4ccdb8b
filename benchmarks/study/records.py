"""What a finished run leaves behind: one line of JSON, small enough to keep in the repository."""

import hashlib
import json
from pathlib import Path

from mmengine.config import Config

from mmctx.checkpoints.atomic_backend import AtomicBackend

from .plan import Run
from .progress import read_run

FILE = 'runs.jsonl'
IDENTITY = ('part', 'row', 'seed', 'fingerprint')
# Where data lies and what a run prints do not change what it learns.
NOT_OF_THE_RECIPE = (
    'work_dir', 'launcher', 'default_hooks', 'visualizer', 'vis_backends', 'data_root', 'cache',
)  # fmt: skip


def fingerprint(cfg: Config) -> str:
    """Digest of a recipe: runs of an older one are not mixed with those of a newer one."""
    whole = cfg.to_dict()
    root = whole.get('data_root', '')
    text = json.dumps(_without_places(whole, root), sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _without_places(value, root: str):
    if isinstance(value, dict):
        return {k: _without_places(v, root) for k, v in value.items() if k not in NOT_OF_THE_RECIPE}
    if isinstance(value, (list, tuple)):
        return [_without_places(v, root) for v in value]
    return value.removeprefix(root) if isinstance(value, str) else value


def last_step(cfg: Config) -> int:
    """The `step` of the last validation of a complete run."""
    return cfg.train_cfg.get('max_iters') or cfg.train_cfg.max_epochs


def make_record(
    run: Run, digest: str, folder: Path, images: tuple[int, int], cost: dict, where: dict
) -> dict:
    """The record of a run that has all its validations.

    Args:
        run (Run): The run.
        digest (str): The fingerprint of its config.
        folder (Path): Its work dir.
        images (tuple[int, int]): How many images it trains on and is validated on.
        cost (dict): `params` and `flops` of the network.
        where (dict): Device, versions and date, of `report.environment`.

    Returns:
        dict: What `runs.jsonl` keeps.
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
    """All records beneath a folder; none where there is no file."""
    file = out / FILE
    return [json.loads(line) for line in file.read_text().splitlines()] if file.is_file() else []


def identity(record: dict) -> tuple:
    """What tells a run from all others: part, row, seed and recipe."""
    return tuple(record[key] for key in IDENTITY)


def save_record(out: Path, record: dict) -> None:
    """Add a record; one of the same run is replaced."""
    others = [r for r in load_records(out) if identity(r) != identity(record)]
    text = ''.join(json.dumps(r) + '\n' for r in [*others, record])
    AtomicBackend().put(text.encode(), out / FILE)
