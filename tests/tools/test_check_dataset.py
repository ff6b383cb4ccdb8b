"""The check of whole data sets as a user runs it."""

import os
import signal
import subprocess
import sys
import time
from zipfile import ZipFile

import pytest

TOOL = 'dataset_converters/check_dataset.py'


@pytest.fixture
def images(shared_data, tmp_path):
    """Two classes with a photo in each split."""
    root = tmp_path / 'imagenet'
    with ZipFile(shared_data / 'imagenet_photos.zip') as photos:
        for index, name in enumerate(sorted(photos.namelist())[:2]):
            for split in ('train', 'val'):
                (root / split / f'class{index}').mkdir(parents=True)
                (root / split / f'class{index}' / 'photo.JPEG').write_bytes(photos.read(name))
    return root


def test_statuses_and_report(run_tool, images, tmp_path):
    arguments = [TOOL, 'imagenet', images, '--classes', '2', '--workers', '2']
    clean = run_tool(*arguments, cwd=tmp_path)
    assert clean.returncode == 0, clean.stderr
    assert clean.stdout == f'{images}: 4 images: no problems\n'
    assert '4/4' in clean.stderr

    file = images / 'val/class1/photo.JPEG'
    file.write_bytes(file.read_bytes()[:-500])
    broken = run_tool(*arguments, '--report', tmp_path / 'report.tsv', cwd=tmp_path)
    assert broken.returncode == 1, broken.stderr
    problem, summary = broken.stdout.splitlines()
    assert problem.startswith('val/class1/photo.JPEG\tis no whole image: image file is truncated')
    assert summary == f'{images}: 4 images: 1 problem'
    assert (tmp_path / 'report.tsv').read_text() == f'{problem}\n'

    for wrong, message in (
        (['imagenet', tmp_path / 'nowhere'], 'nowhere does not exist'),
        (['coco', images], 'there is no'),
        (['coco', images, '--classes', '2'], 'not for coco'),
        (['imagenet', images, '--report', images], 'cannot write'),
    ):
        refused = run_tool(TOOL, *wrong, cwd=tmp_path)
        assert refused.returncode == 2
        assert message in refused.stderr and 'Traceback' not in refused.stderr


def test_a_file_that_never_ends_and_ctrl_c(run_tool, repo, images, tmp_path):
    pipe = images / 'train/class0/pipe.JPEG'
    os.mkfifo(pipe)
    arguments = ['imagenet', images, '--classes', '2', '--workers', '1']
    given_up = run_tool(TOOL, *arguments, '--timeout', '1', cwd=tmp_path)
    assert given_up.returncode == 1
    assert given_up.stdout.splitlines()[0] == ('train/class0/pipe.JPEG\tit took more than 1 s')
    running = subprocess.Popen(
        [sys.executable, repo / 'tools' / TOOL, *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    end = open_when_read(pipe)
    os.killpg(running.pid, signal.SIGINT)
    _, err = running.communicate(timeout=30)
    assert running.returncode == 130
    assert 'interrupted' in err and 'Traceback' not in err
    os.close(end)
    # The helper process that multiprocessing starts goes a moment later.
    with pytest.raises(ProcessLookupError):
        for _ in range(100):
            os.killpg(running.pid, 0)
            time.sleep(0.1)


def open_when_read(pipe):
    """The writing end of a pipe, once another process is at its reading end."""
    for _ in range(600):
        try:
            return os.open(pipe, os.O_WRONLY | os.O_NONBLOCK)
        except OSError:
            time.sleep(0.1)
    raise AssertionError('nobody reads the pipe')


def test_annotation_files_of_any_name(run_tool, tmp_path):
    import json

    import cv2
    import numpy as np

    (tmp_path / 'set' / 'pictures').mkdir(parents=True)
    cv2.imwrite(str(tmp_path / 'set' / 'pictures' / 'a.png'), np.zeros((48, 64, 3), np.uint8))
    entry = dict(id=1, image_id=1, category_id=1, bbox=[1, 1, 9, 9], area=81, iscrowd=0)
    contents = dict(
        images=[dict(id=1, file_name='a.png', width=64, height=48)],
        categories=[dict(id=1, name='bolt')],
        annotations=[entry, dict(entry, id=2, area=0)],
    )
    (tmp_path / 'set' / 'labels.json').write_text(json.dumps(contents))
    files = ['--ann-files', 'labels.json', '--images', 'pictures', '--workers', '1']
    done = run_tool(TOOL, 'coco', tmp_path / 'set', *files, cwd=tmp_path)
    assert done.returncode == 1, done.stderr
    problem, summary = done.stdout.splitlines()
    assert problem == ('labels.json: annotation 2\thas an area of 0, so that it is left out')
    assert summary.endswith('1 images, 2 annotations: 1 problem')
    refused = run_tool(TOOL, 'coco', tmp_path / 'set', cwd=tmp_path)
    assert refused.returncode == 2 and '--ann-files' in refused.stderr
