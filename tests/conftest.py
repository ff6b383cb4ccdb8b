"""Fixtures for all tests: where the repository, its tools and real data are."""

import os
import signal
from pathlib import Path

import pytest
import torch
from forked import ENVIRONMENT, ROOT, Command
from saved_time import save_time
from trained_networks import classifier, clip, detector, pictures, recognizer  # noqa: F401

import mmctx  # noqa: F401 - serves mmcv's ops before a test module imports mmdet

save_time()
# A shell starts what runs in the background without Ctrl-C, and so would be the tools under test.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
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
def run_command(tmp_path_factory):
    """Run a command to its end in a process of its own, as `subprocess.run` does.

    `seconds` limits its time; other keywords are variables of its environment.
    """

    def run(*arguments, cwd, seconds=300, **env):
        env = {**ENVIRONMENT, **{name: str(value) for name, value in env.items()}}
        command = Command(arguments, cwd, env, tmp_path_factory.mktemp('printed'))
        return command.completed(seconds)

    return run


@pytest.fixture
def run_tool(run_command):
    """Run one of `tools/` likewise."""
    return lambda name, *arguments, **more: run_command(ROOT / 'tools' / name, *arguments, **more)


def pytest_terminal_summary(terminalreporter):
    skipped = terminalreporter.stats.get('skipped', [])
    count = sum(SKIP_REASON in str(report.longrepr) for report in skipped)
    if count:
        terminalreporter.write_sep('!', 'real data is absent', red=True, bold=True)
        terminalreporter.write_line(f'{count} tests on real images did not run: {SKIP_REASON}')
