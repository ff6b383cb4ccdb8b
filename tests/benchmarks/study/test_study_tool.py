"""The study's tool from data to table: it stops, resumes, and does nothing twice."""

import os
import re
import signal
from zipfile import ZipFile

import cv2
import numpy as np
import pytest
from forked import ENVIRONMENT, Command

OPTIONS = [
    '--part', 'classification', '--rows', 'a5', '--seeds', '1', '--cfg-options',
    'train_cfg.max_iters=3', 'train_cfg.val_interval=3', 'train_dataloader.batch_size=4',
    'default_hooks.logger.interval=1', 'model.backbone.base_channels=8',
    'model.backbone.stem_channels=8',
    # An argument that the vanilla network, of row a1, does not have.
    'model.backbone.norm=LN',
]  # fmt: skip


@pytest.fixture
def tiny_imagenet(tmp_path):
    """Fifty classes of two images of noise."""
    rng = np.random.default_rng(0)
    for split in ('train', 'val'):
        with ZipFile(tmp_path / f'{split}.zip', 'w') as archive:
            for name in (f'{split}/n{c:08d}/{i}.jpg' for c in range(50) for i in range(2)):
                image = rng.integers(0, 255, (64, 64, 3), np.uint8)
                archive.writestr(name, cv2.imencode('.jpg', image)[1].tobytes())
    return tmp_path


def test_study_stops_resumes_and_does_nothing_twice(run_tool, tiny_imagenet):
    """Of two trainings one fails, which leaves a table of the other."""

    def study(*options, of=OPTIONS):
        return run_tool(
            'study.py', *options, *of, cwd=tiny_imagenet, TINY_IMAGENET_ROOT=tiny_imagenet
        )

    stopped = study('--minutes', 0.0001)
    assert stopped.returncode == 3, stopped.stderr
    out = tiny_imagenet / 'benchmarks' / 'study_cpu'
    assert not out.exists()

    both = [*OPTIONS]
    both.insert(both.index('a5'), 'a1')
    failed = study('--jobs', 1, of=both)
    assert failed.returncode == 2
    failure = failed.stderr.splitlines()[-1]
    assert '1 of 2 trainings failed: a1-seed0: error: ' in failure and "'norm'" in failure
    assert re.search(r'^a5-seed0-\w+: top-1 \d+\.\d, top-5 \d+\.\d$', failed.stdout, re.MULTILINE)
    assert '| a5 | +Ctx +CtxConv |' in failed.stdout
    assert {file.name for file in out.iterdir()} == {
        'runs.jsonl', 'times.json', 'table.md', 'curves.png'
    }  # fmt: skip
    table = (out / 'table.md').read_text()
    assert '100 training and 100 validation images' in table and '| 1.00× | 1.00× |' in table
    assert '| a5 | +Ctx +CtxConv |' in table and '3 iterations of 4 images' in table
    assert not list((tiny_imagenet / 'work_dirs').rglob('*.pth'))

    again = study()
    assert again.returncode == 0, again.stderr
    assert again.stdout.strip() == table.strip()

    longer = [option.replace('max_iters=3', 'max_iters=4') for option in OPTIONS]
    other = study('--table', of=longer)
    assert other.returncode == 2
    assert 'has no run of the recipe' in other.stderr and '1 runs of another' in other.stderr
    assert study('--table').returncode == 0


def test_interrupted_study_resumes_its_training(repo, run_tool, tiny_imagenet, tmp_path_factory):
    """Ctrl-C reaches the training as SIGTERM, which saves; the same command resumes from there."""
    longer = [option.replace('_iters=3', '_iters=60') for option in OPTIONS]
    longer.append('train_cfg.val_interval=60')
    env = {'TINY_IMAGENET_ROOT': str(tiny_imagenet)}
    study = Command(
        [repo / 'tools' / 'study.py', *longer], tiny_imagenet, {**ENVIRONMENT, **env},
        tmp_path_factory.mktemp('printed'),
    )  # fmt: skip
    while study.wait(0.1) is None and 'Iter(train) [ 5/60]' not in log_of(tiny_imagenet):
        pass
    os.kill(study.pid, signal.SIGINT)
    interrupted = study.completed(200)
    assert interrupted.returncode == 75, interrupted.stderr
    assert 'the same command resumes' in interrupted.stderr
    assert 'Traceback' not in interrupted.stderr
    assert 'SIGTERM: saved iteration' in log_of(tiny_imagenet)

    finished = run_tool('study.py', *longer, cwd=tiny_imagenet, **env)
    assert finished.returncode == 0, finished.stderr
    log = log_of(tiny_imagenet)
    assert log.count('[ 5/60]') == 1 and log.count('[60/60]') == 1


def log_of(folder):
    logs = list(folder.glob('work_dirs/study_cpu/*/*/log.txt'))
    return logs[0].read_text() if logs else ''


def test_wrong_options_end_in_one_line(run_tool, tmp_path):
    for options, message in (
        (('--rows', 'a9'), 'size cpu has no row a9; its rows are a1,'),
        (('--size', 'cpu_long', '--rows', 'b2'), 'size cpu_long has no row b2'),
        (('--jobs', 0), '--jobs must be more than 0, not 0'),
        (('--seeds', -1), '--seeds must not be -1'),
    ):
        refused = run_tool('study.py', *options, cwd=tmp_path)
        assert refused.returncode == 2 and message in refused.stderr
    absent = run_tool('study.py', '--rows', 'a1', cwd=tmp_path, TINY_IMAGENET_ROOT='/no/such')
    assert absent.returncode == 2
    assert 'set TINY_IMAGENET_ROOT (now /no/such) to the folder' in absent.stderr
    assert 'Traceback' not in absent.stderr
