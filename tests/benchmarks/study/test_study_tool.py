"""The study's tool from data to table: it stops, goes on, and does nothing twice."""

from zipfile import ZipFile

import cv2
import numpy as np
import pytest

OPTIONS = [
    '--part', 'classification', '--rows', 'a5', '--seeds', '1', '--cfg-options',
    'train_cfg.max_iters=3', 'train_cfg.val_interval=3', 'train_dataloader.batch_size=4',
    'default_hooks.logger.interval=1', 'model.backbone.base_channels=8',
    'model.backbone.stem_channels=8',
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


def test_study(run_tool, tiny_imagenet):
    def study(*options, of=OPTIONS):
        return run_tool(
            'study.py', *options, *of, cwd=tiny_imagenet, TINY_IMAGENET_ROOT=tiny_imagenet
        )

    stopped = study('--minutes', 0.0001)
    assert stopped.returncode == 3, stopped.stderr
    out = tiny_imagenet / 'benchmarks' / 'study_cpu'
    assert not list(out.iterdir())

    finished = study()
    assert finished.returncode == 0, finished.stderr
    assert '[1/1] a5-seed0: top-1 ' in finished.stdout
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


def test_refusals(run_tool, tmp_path):
    for options, message in (
        (('--rows', 'a9'), 'no row a9; the rows are a1,'),
        (('--jobs', 0), '--jobs must be more than 0, not 0'),
        (('--seeds', -1), '--seeds must not be -1'),
    ):
        refused = run_tool('study.py', *options, cwd=tmp_path)
        assert refused.returncode == 2 and message in refused.stderr
    absent = run_tool('study.py', '--rows', 'a1', cwd=tmp_path, TINY_IMAGENET_ROOT='/no/such')
    assert absent.returncode == 2
    assert 'set TINY_IMAGENET_ROOT (now /no/such) to the folder' in absent.stderr
    assert 'Traceback' not in absent.stderr
