"""The tools as a user runs them: exit status, one line on stderr, a whole run on real images."""

import re
import subprocess

import pytest

from mmctx.cli.config import load_config
from mmctx.cli.running import build_runner, run
from mmctx.cli.switches import set_testing, set_training
from mmctx.errors import UserError

NARROW = """
_base_ = '{repo}/configs/mask_rcnn_ctx_convnext_t_coco.py'
model = dict(
    data_preprocessor=dict(pad_size_divisor=32),
    backbone=dict(arch=dict(_delete_=True, depths=[1, 1, 1, 1], channels=[8, 16, 24, 32])),
    neck=dict(in_channels=[8, 16, 24, 32], out_channels=16),
    rpn_head=dict(in_channels=16, feat_channels=16),
    roi_head=dict(
        bbox_roi_extractor=dict(out_channels=16),
        bbox_head=dict(in_channels=16, fc_out_channels=32),
        mask_roi_extractor=dict(out_channels=16),
        mask_head=dict(in_channels=16, conv_out_channels=16, num_convs=1)),
    test_cfg=dict(rpn=dict(nms_pre=100, max_per_img=50), rcnn=dict(score_thr=0, max_per_img=5)))
size = dict(type='Resize', scale=(160, 128), keep_ratio=True)
train_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='LoadAnnotations', with_bbox=True, with_mask=True),
    size, dict(type='PackDetInputs')]
test_pipeline = [
    dict(type='LoadImageFromFile'), size,
    dict(type='PackDetInputs', meta_keys=(
        'img_id', 'img_path', 'ori_shape', 'img_shape', 'scale_factor'))]
train_dataloader = dict(
    batch_size=2, num_workers=0, dataset=dict(indices=4, pipeline=train_pipeline))
val_dataloader = dict(num_workers=0, dataset=dict(indices=8, pipeline=test_pipeline))
test_dataloader = val_dataloader
train_cfg = dict(max_epochs=1, val_interval=2)
default_hooks = dict(logger=dict(interval=1))
"""


def only_line(result):
    """The single line on stderr of a run that ended with the status of a user's mistake."""
    assert result.returncode == 2, result.stderr
    (line,) = result.stderr.splitlines()
    assert line.startswith('error: ')
    return line


def test_missing_data_root_from_another_folder(run_tool, repo, tmp_path):
    config = repo / 'configs' / 'mask_rcnn_convnext_t_coco.py'
    options = ('--cfg-options', 'pretrained=None')
    result = run_tool('train.py', config, *options, cwd=tmp_path, COCO_ROOT='/no/such/coco')
    assert '/no/such/coco/' in only_line(result)
    assert 'COCO_ROOT' in result.stderr


@pytest.mark.parametrize(
    ('name', 'value', 'words'),
    [
        ('considered', (1500, 200, 50), '1500'),
        ('preset', 'pepar', 'pepar'),
        ('perset', 'paper', 'perset'),
    ],
)
def test_bad_argument_of_the_model(name, value, words, repo, coco_tiny, tmp_path, monkeypatch):
    monkeypatch.setenv('COCO_ROOT', str(coco_tiny))
    config = repo / 'configs' / 'mask_rcnn_ctx_convnext_t_coco.py'
    options = {'pretrained': None, f'model.backbone.{name}': value}
    with pytest.raises(UserError, match=words):
        build_runner(load_config(str(config), options, work_dir=str(tmp_path)), 'train')


def test_train_then_test_on_real_images(run_tool, repo, coco_tiny, tmp_path, monkeypatch):
    """Two iterations; COCO's 12 box and 12 mask figures; two more; then with another model."""
    (tmp_path / 'narrow.py').write_text(NARROW.format(repo=repo))
    env = dict(cwd=tmp_path, COCO_ROOT=str(coco_tiny))
    options = ('--cfg-options', 'pretrained=None')
    trained = run_tool('train.py', 'narrow.py', '--work-dir', 'run', *options, **env)
    assert trained.returncode == 0, trained.stderr
    assert re.search(r'Epoch\(train\) +\[1\]\[2/2\].* eta: .* loss_mask: ', trained.stdout)
    assert 'float32 instead of mixed precision' in trained.stdout

    checkpoint = 'run/epoch_1.pth'
    tested = run_tool(
        'test.py', 'narrow.py', checkpoint, '--out', 'out.pkl', '--show-dir', 'pictures', **env
    )
    assert tested.returncode == 0, tested.stderr
    assert len(re.findall(r'Average (?:Precision|Recall) .* = -?\d\.\d{3}', tested.stdout)) == 24
    assert (tmp_path / 'out.pkl').is_file()
    assert list(tmp_path.rglob('pictures/*.jpg'))

    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv('COCO_ROOT', str(coco_tiny))
    longer = {'pretrained': None, 'train_cfg.max_epochs': 2, 'val_cfg': None}
    longer |= {'val_dataloader': None, 'val_evaluator': None}
    cfg = load_config('narrow.py', longer, work_dir='run')
    set_training(cfg, resume='auto')
    runner = build_runner(cfg, 'train')
    run(runner, 'train')
    history, _ = runner.message_hub.get_scalar('train/loss').data
    assert (runner.epoch, runner.iter, len(history)) == (2, 4, 4)

    cfg = load_config(str(repo / 'configs' / 'mask_rcnn_swin_t_coco.py'))
    set_testing(cfg, checkpoint)
    with pytest.raises(UserError, match=r'run/epoch_1.pth .* MaskRCNN of this config'):
        build_runner(cfg, 'test')


@pytest.mark.parametrize(
    ('script', 'arguments'),
    [
        ('dist_train.sh', 1),
        ('dist_test.sh', 2),
        ('slurm_train.sh', 2),
        ('slurm_test.sh', 3),
    ],
)
def test_shell_scripts_say_how_they_are_used(repo, script, arguments):
    command = [str(repo / 'tools' / script), *['x'] * arguments]
    result = subprocess.run(command, capture_output=True, text=True)
    assert result.returncode == 2
    (line,) = result.stderr.splitlines()
    assert line.startswith('usage: ') and 'CONFIG' in line


def srun_arguments(repo, tmp_path, script, *args, **env):
    """What a script hands to srun, one argument a line, from a stand-in that only prints."""
    srun = tmp_path / 'srun'
    srun.write_text('#!/bin/sh\nprintf "%s\\n" "$@"\n')
    srun.chmod(0o755)
    result = subprocess.run(
        [str(repo / 'tools' / script), *args],
        env={'PATH': f'{tmp_path}:/usr/bin:/bin', **env},
        capture_output=True,
        text=True,
        check=True,
    )
    return result.stdout.splitlines()


def test_slurm_training_without_gpus(repo, tmp_path):
    env = dict(GPUS='2', GPUS_PER_NODE='0', CPUS_PER_TASK='1', SRUN_ARGS='-N 2 --exclusive')
    options = ('--cfg-options', 'data_root=my coco')
    given = srun_arguments(
        repo, tmp_path, 'slurm_train.sh', 'part', 'my job', 'c.py', 'my dir', *options, **env
    )
    assert not any(argument.startswith('--gres') for argument in given)
    assert given[:4] == ['-p', 'part', '--job-name=my job', '--ntasks=2']
    assert given[given.index('-N') :][:3] == ['-N', '2', '--exclusive']
    tail = ['c.py', '--launcher', 'slurm', '--work-dir', 'my dir', *options]
    assert given[-len(tail) :] == tail


def test_slurm_testing_with_gpus(repo, tmp_path):
    given = srun_arguments(repo, tmp_path, 'slurm_test.sh', 'p', 'j', 'c.py', 'w.pth', '--out', 'o')
    assert {'--ntasks=8', '--gres=gpu:8', '--ntasks-per-node=8'} <= set(given)
    assert given[-6:] == ['c.py', 'w.pth', '--launcher', 'slurm', '--out', 'o']
