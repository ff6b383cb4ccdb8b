"""What both benchmark tools write: where and when, JSON, and a table."""

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

from .text import as_markdown, as_text
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
    """Commit of the checkout that mmctx is in, `-dirty` if changed since; None outside of one."""
    # A package that is installed may lie in a checkout of something else.
    is_own = ['git', 'ls-files', '--error-unmatch', 'version.py']
    describe = ['git', 'describe', '--always', '--dirty', '--exclude=*']
    options = dict(cwd=Path(mmctx.__file__).parent, capture_output=True, text=True, check=True)
    try:
        _, found = (subprocess.run(command, **options) for command in (is_own, describe))
    except (OSError, subprocess.CalledProcessError):
        return None
    return found.stdout.strip()


def describe(where: dict) -> str:
    """`environment` as a line for readers."""
    versions = ', '.join(f'{name} {v}' for name, v in where['versions'].items() if v)
    return f'{where["device"]}; {versions}; {where["date"]}'


def check_targets(**paths: Path | None) -> None:
    """Raise a UserError for a file to write whose folder is missing, before anything is timed.

    Args:
        **paths (Path, optional): By the name of the switch.
    """
    for name, path in paths.items():
        if path is not None and not path.parent.is_dir():
            raise UserError(f'--{name} {path}: its folder does not exist')


def write_report(
    title: str,
    cells: list[list[str]],
    notes: list[str],
    results: dict,
    json_path: Path | None = None,
    markdown_path: Path | None = None,
) -> None:
    """Print a table, and write it and the full results where asked.

    Args:
        title (str): Above the table.
        cells (list[list[str]]): The table, headings first.
        notes (list[str]): Lines below it.
        results (dict): Everything, for JSON.
        json_path (Path, optional): File for the results. Defaults to None.
        markdown_path (Path, optional): File for the table. Defaults to None.
    """
    print('\n'.join([title, '', as_text(cells), '', *notes]))
    if json_path:
        json_path.write_text(json.dumps(results, indent=1, ensure_ascii=False) + '\n', 'utf-8')
    if markdown_path:
        text = '\n\n'.join([f'**{title}**', as_markdown(cells), *notes])
        markdown_path.write_text(f'{text}\n', 'utf-8')


def milliseconds(seconds: float) -> str:
    """Three significant digits, or whole milliseconds from 100 on."""
    value = seconds * 1e3
    return f'{value:.0f}' if value >= 100 else f'{value:.3g}'


def with_spread(times: dict) -> str:
    """`Times.in_seconds`: median in milliseconds, half the distance of the quartiles in percent."""
    half = (times['high_s'] - times['low_s']) / 2
    return f'{milliseconds(times["median_s"])} ±{half / times["median_s"]:.0%}'


def ratio(value: float | None) -> str:
    """With two digits; a dash for None."""
    return '–' if value is None else f'{value:.2f}'
