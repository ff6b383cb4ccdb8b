"""Reports of the benchmark tools: place and date, JSON, and a table."""

import json
import platform
import subprocess
from datetime import datetime, timezone
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import torch

import mmctx
from mmctx.errors import UserError

from .text import NOTHING, as_markdown, as_text
from .timing import name_device

PACKAGES = (
    'torch', 'torchvision', 'triton', 'numpy', 'mmengine', 'mmcv', 'mmcv-lite', 'mmpretrain',
    'mmdet', 'mmaction2', 'transformers',
)  # fmt: skip


def environment(device: torch.device) -> dict:
    """Device, versions and date of a measurement."""
    found = dict(mmctx=mmctx.__version__, commit=commit(), python=platform.python_version())
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = None
    if device.type == 'cuda':
        found['cuda'] = torch.version.cuda
    return dict(
        device=name_device(device),
        versions=found,
        date=datetime.now(timezone.utc).isoformat(timespec='seconds'),
    )


@cache
def commit() -> str | None:
    """Commit of mmctx's checkout, with `-dirty` if changed since; None outside of a checkout."""
    # An installed package may be inside the checkout of another project.
    is_own = ['git', 'ls-files', '--error-unmatch', 'version.py']
    describe = ['git', 'describe', '--always', '--dirty', '--exclude=*']
    options = dict(cwd=Path(mmctx.__file__).parent, capture_output=True, text=True, check=True)
    try:
        _, found = (subprocess.run(command, **options) for command in (is_own, describe))
    except (OSError, subprocess.CalledProcessError):
        return None
    return found.stdout.strip()


def describe(where: dict) -> str:
    """Turn the result of `environment` into a line for readers."""
    versions = ', '.join(f'{name} {v}' for name, v in where['versions'].items() if v)
    return f'{where["device"]}; {versions}; {where["date"]}'


def check_targets(**paths: Path | None) -> None:
    """Raise a UserError if the folder of a file to write is missing, before anything is timed.

    Args:
        **paths (Path, optional): Paths of the files by the name of their switch.

    Raises:
        UserError: A folder does not exist.
    """
    for name, path in paths.items():
        if path is not None and not path.parent.is_dir():
            raise UserError(f'--{name} {path}: its folder does not exist')


def write_report(
    title: str,
    cells: list[list[str]],
    notes: list[str],
    results: dict,
    json_path: Path | None,
    markdown_path: Path | None,
) -> None:
    """Print a table, and write it and the full results to files if asked for.

    Args:
        title (str): Title above the table.
        cells (list[list[str]]): Cells of the table, headings first.
        notes (list[str]): Lines below the table.
        results (dict): All results, for JSON.
        json_path (Path, optional): File for the results; None for none.
        markdown_path (Path, optional): File for the table; None for none.
    """
    print('\n'.join([title, '', as_text(cells), '', *notes]))
    if json_path:
        json_path.write_text(json.dumps(results, indent=1, ensure_ascii=False) + '\n', 'utf-8')
    if markdown_path:
        text = '\n\n'.join([f'**{title}**', as_markdown(cells), *notes])
        markdown_path.write_text(f'{text}\n', 'utf-8')


def milliseconds(seconds: float) -> str:
    """Format seconds as milliseconds, with three significant digits or as a whole number."""
    value = seconds * 1e3
    return f'{value:.0f}' if value >= 100 else f'{value:.3g}'


def with_spread(times: dict) -> str:
    """Format `Times.in_seconds`: median in ms ± half the interquartile range in percent."""
    half = (times['high_s'] - times['low_s']) / 2
    return f'{milliseconds(times["median_s"])} ±{half / times["median_s"]:.0%}'


def ratio(value: float | None) -> str:
    """Format a ratio with two decimals, or None as a dash."""
    return NOTHING if value is None else f'{value:.2f}'
