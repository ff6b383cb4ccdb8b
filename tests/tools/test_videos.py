"""The tools on real clips as a user runs them: lists, training, testing, and broken clips."""

import os
import re
import signal
import subprocess
import sys
import time

import pytest

NARROW = """
_base_ = '{repo}/configs/tsm_ctx_resnet50_k400.py'
pretrained = None
steps = [
    dict(type='mmctx.PyAVDecode'),
    dict(type='Resize', scale=(32, 32), keep_ratio=False),
    dict(type='FormatShape', input_format='NCHW'),
    dict(type='PackActionInputs')]
sample = dict(type='SampleFrames', clip_len=1, num_clips=2)
shifted = dict(type='mmctx.SampleShiftedClips', num_clips=2, shifts=3)
train_pipeline = [dict(type='mmctx.PyAVInit'), sample, *steps]
val_pipeline = [dict(type='mmctx.PyAVInit'), dict(sample, test_mode=True), *steps]
tta_pipeline = [dict(type='mmctx.PyAVInit'), shifted, *steps]
model = dict(
    backbone=dict(depth=18, stem_channels=8, base_channels=8, num_segments=2),
    cls_head=dict(in_channels=64, num_segments=2))
train_dataloader = dict(batch_size=5, num_workers=2, dataset=dict(pipeline=train_pipeline))
val_dataloader = dict(batch_size=3, num_workers=0, dataset=dict(pipeline=val_pipeline))
test_dataloader = dict(num_workers=1, dataset=dict(pipeline=val_pipeline))
train_cfg = dict(max_epochs=1)
default_hooks = dict(logger=dict(interval=1))
"""
PREPARE = 'dataset_converters/prepare_kinetics.py'


@pytest.fixture
def root(shared_data, tmp_path):
    """Nine clips in class folders, one of whose names has a space."""
    for split in ('train', 'val'):
        for clip in (shared_data / 'videos').iterdir():
            name = 'waving hand' if 'wave' in clip.name else 'other'
            folder = tmp_path / 'k400' / f'videos_{split}' / name
            folder.mkdir(parents=True, exist_ok=True)
            (folder / clip.name).symlink_to(clip)
    return tmp_path / 'k400'


def break_clip(root, split):
    """Put half of a clip into a split."""
    contents = next((root / f'videos_{split}' / 'other').glob('*.avi')).read_bytes()
    (root / f'videos_{split}' / 'waving hand' / 'half a clip.avi').write_bytes(contents[:99_999])


def test_from_folders_to_top_1(run_tool, repo, root, tmp_path):
    (tmp_path / 'narrow.py').write_text(NARROW.format(repo=repo))
    env = dict(cwd=tmp_path, K400_ROOT=str(root))
    break_clip(root, 'train')
    refused = run_tool(PREPARE, root, '--nproc', '2', **env)
    assert refused.returncode == 2
    assert re.fullmatch(r'error: 1 videos are broken: .*/half a clip\.avi; .*\n', refused.stderr)
    prepared = run_tool(PREPARE, root, '--skip-broken', **env)
    assert prepared.returncode == 0, prepared.stderr
    assert '9 of 10 videos were checked before' in prepared.stdout
    for split in ('train', 'val'):
        lines = (root / f'kinetics400_{split}_list_videos.txt').read_text().splitlines()
        assert sorted(line[-2:] for line in lines) == [' 0'] * 6 + [' 1'] * 3
    assert (root / 'kinetics400_classes.txt').read_text() == 'other\nwaving hand\n'

    with open(root / 'kinetics400_train_list_videos.txt', 'a') as file:
        file.write('waving hand/half a clip.avi 1\n')
    trained = run_tool('train.py', 'narrow.py', '--work-dir', 'run', **env)
    assert trained.returncode == 0, trained.stderr
    skipped = r'waving hand/half a clip\.avi is not a readable video: .*; another one takes its pl'
    assert re.search(skipped, trained.stdout + trained.stderr)
    assert re.search(r'Epoch\(val\) .* acc/top1: [\d.]+ +acc/top5: 1\.0', trained.stdout)

    checkpoint = (tmp_path / 'run' / 'last_checkpoint').read_text()
    tested = run_tool('test.py', 'narrow.py', checkpoint, '--tta', **env)
    assert tested.returncode == 0, tested.stderr
    assert re.search(r'acc/top1: [\d.]+ +acc/top5: 1\.0', tested.stdout)

    break_clip(root, 'val')
    with open(root / 'kinetics400_val_list_videos.txt', 'a') as file:
        file.write('waving hand/half a clip.avi 1\n')
    broken = run_tool('test.py', 'narrow.py', checkpoint, **env)
    assert broken.returncode == 2, broken.stderr
    line = next(line for line in broken.stderr.splitlines() if line.startswith('error: '))
    assert line.startswith(
        f'error: {root}/videos_val/waving hand/half a clip.avi is not a readable'
    )


def test_preparing_resumes_after_it_was_killed(run_tool, repo, root, tmp_path):
    clip = next((root / 'videos_train' / 'other').glob('*.mp4')).resolve()
    for number in range(100):
        (root / 'videos_train' / 'other' / f'{number:03d}.mp4').symlink_to(clip)
    tool = [sys.executable, repo / 'tools' / PREPARE, root, '--full', '--nproc', '2']
    running = subprocess.Popen(
        tool, cwd=tmp_path, env={**os.environ, 'OMP_NUM_THREADS': '1'}, start_new_session=True
    )
    report = root / 'kinetics400_train_videos.tsv'
    try:
        for _ in range(600):
            if report.is_file() and len(report.read_text().splitlines()) > 5:
                break
            time.sleep(0.1)
    finally:
        running.send_signal(signal.SIGKILL)
        running.wait()
    done = len(report.read_text().splitlines()) - 1
    assert 5 <= done < 109
    resumed = run_tool(PREPARE, root, cwd=tmp_path)
    assert resumed.returncode == 0, resumed.stderr
    before = int(re.search(r'train_videos\.tsv: (\d+) of 109 videos were', resumed.stdout)[1])
    assert done - 1 <= before <= done + 1
    rows = [line.split('\t') for line in report.read_text().splitlines()[1:]]
    assert len(rows) == 109
    assert sum(row[2] == 'decoded' for row in rows) == before
    # The processes of the killed one end with it.
    with pytest.raises(ProcessLookupError):
        for _ in range(100):
            os.killpg(running.pid, 0)
            time.sleep(0.1)
