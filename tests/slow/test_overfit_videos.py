"""TSM with the full-size Contextual ResNet50 learns nine real clips by heart, from scratch."""

import re
from pathlib import Path

import pytest

CONFIG = Path(__file__).with_name('overfit_videos.py')
# What the clips show, by a word in their names; the three of Kinetics are the rest.
ACTIONS = ('wave', 'cartwheel', 'Juggling')
SECONDS = 1800


@pytest.fixture
def clips(shared_data, tmp_path):
    """A root of Kinetics whose training and validation videos are the same nine clips."""
    root = tmp_path / 'kinetics400'
    videos = sorted((shared_data / 'videos').iterdir())
    assert len(videos) == 9
    for split in ('train', 'val'):
        (root / f'videos_{split}').mkdir(parents=True)
        lines = []
        for video in videos:
            (root / f'videos_{split}' / video.name).symlink_to(video)
            labels = [number for number, word in enumerate(ACTIONS) if word in video.name]
            lines.append(f'{video.name} {[*labels, len(ACTIONS)][0]}\n')
        (root / f'kinetics400_{split}_list_videos.txt').write_text(''.join(lines))
    return root


@pytest.mark.slow
def test_learns_real_clips_by_heart(clips, tmp_path, run_tool):
    environment = dict(cwd=tmp_path, K400_ROOT=str(clips), seconds=SECONDS, OMP_NUM_THREADS='2')
    trained = run_tool('train.py', CONFIG, '--work-dir', 'run', **environment)
    assert trained.returncode == 0, trained.stderr
    checkpoint = Path((tmp_path / 'run' / 'last_checkpoint').read_text())
    tested = run_tool('test.py', CONFIG, checkpoint, '--work-dir', 'test', **environment)
    assert tested.returncode == 0, tested.stderr
    (top1,) = re.findall(r'acc/top1: ([\d.]+)', tested.stdout)
    assert float(top1) == 1.0
