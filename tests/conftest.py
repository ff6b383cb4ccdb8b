"""Fixtures for all tests: where the repository, its tools and real data are."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from trained_networks import classifier, clip, detector, pictures, recognizer  # noqa: F401

import mmctx  # noqa: F401 - serves mmcv's ops before a test module imports mmdet

ROOT = Path(__file__).resolve().parents[1]
SHARED_DATA = Path(os.environ.get('MMCTX_SHARED_DATA') or ROOT.parent / 'shared' / 'data')
SKIP_REASON = f'real data is absent: no {SHARED_DATA} (set MMCTX_SHARED_DATA)'


@pytest.fixture(autouse=True)
def seed():
    """The same random numbers in every run, whatever runs before."""
    torch.manual_seed(0)


@pytest.fixture(scope='session')
def repo():
    """The repository's root folder."""
    return ROOT


@pytest.fixture(scope='session')
def shared_data():
    """Folder of real images and videos; a test that needs it is skipped where it is absent."""
    if not SHARED_DATA.is_dir():
        pytest.skip(SKIP_REASON)
    return SHARED_DATA


@pytest.fixture(scope='session')
def coco_tiny(shared_data):
    """80 + 80 real COCO images with their annotations, laid out as COCO 2017."""
    return shared_data / 'coco_tiny'


@pytest.fixture
def run_tool():
    """Run one of `tools/` in a process of its own, as a user does."""

    def run(name, *args, cwd, seconds=300, **env):
        return subprocess.run(
            [sys.executable, str(ROOT / 'tools' / name), *map(str, args)],
            cwd=cwd,
            env={**os.environ, 'OMP_NUM_THREADS': '1', 'PYTHONPATH': str(ROOT), **env},
            capture_output=True,
            text=True,
            timeout=seconds,
        )

    return run


def pytest_terminal_summary(terminalreporter):
    skipped = terminalreporter.stats.get('skipped', [])
    count = sum(SKIP_REASON in str(report.longrepr) for report in skipped)
    if count:
        terminalreporter.write_sep('!', 'real data is absent', red=True, bold=True)
        terminalreporter.write_line(f'{count} tests on real images did not run: {SKIP_REASON}')
