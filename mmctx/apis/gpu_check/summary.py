"""What the check says at the end, on the screen and in `summary.json`."""

import json
import platform
from datetime import datetime, timezone
from importlib import metadata
from pathlib import Path

import torch

from mmctx.apis.timing import name_device
from mmctx.version import __version__

from .processes import Outcome

PACKAGES = (
    'torch', 'torchvision', 'triton', 'numpy', 'mmengine', 'mmcv', 'mmcv-lite', 'mmpretrain',
    'mmdet', 'mmaction2', 'transformers',
)  # fmt: skip


def versions() -> dict[str, str]:
    """Versions of mmctx, Python, CUDA and of the packages that are installed."""
    found = {'mmctx': __version__, 'python': platform.python_version()}
    if torch.version.cuda:
        found['cuda'] = torch.version.cuda
    for name in PACKAGES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


def write_summary(
    file: Path, device: torch.device, outcomes: list[Outcome], seconds: float
) -> bool:
    """Write the summary and print it.

    Args:
        file (Path): The JSON file.
        device (torch.device): Where the steps ran.
        outcomes (list[Outcome]): How they ended.
        seconds (float): How long it all took.

    Returns:
        bool: Whether all passed.
    """
    passed = all(outcome.passed for outcome in outcomes)
    summary = dict(
        passed=passed,
        device=name_device(device),
        date=datetime.now(timezone.utc).isoformat(timespec='seconds'),
        seconds=round(seconds, 1),
        versions=versions(),
        steps={
            outcome.step.name: dict(
                passed=outcome.passed, seconds=round(outcome.seconds, 1), detail=outcome.detail
            )
            for outcome in outcomes
        },
    )
    file.write_text(json.dumps(summary, indent=2) + '\n')
    print(f'\nOn {summary["device"]} with', ', '.join(map(' '.join, summary['versions'].items())))
    for outcome in outcomes:
        state = 'passed' if outcome.passed else 'FAILED'
        print(f'  {state}  {outcome.seconds:5.0f} s  {outcome.step.name}: {outcome.step.about}')
    failed = sum(not outcome.passed for outcome in outcomes)
    verdict = 'all passed' if passed else f'{failed} of {len(outcomes)} failed'
    print(f'{verdict} in {seconds:.0f} s; {file}')
    return passed
