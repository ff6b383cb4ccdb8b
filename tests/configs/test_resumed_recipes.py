"""The recipes, interrupted within an epoch and resumed, give the losses of an uninterrupted run."""

import os
import signal
from copy import deepcopy
from zipfile import ZipFile

import pytest
import torch
from mmengine.hooks import Hook

from mmctx.cli.config import load_config
from mmctx.cli.switches import set_training
from mmctx.cli.running import build_runner, run
from mmctx.datasets.shapes import render_dataset
from mmctx.engine import Interrupted

ARCH = dict(_delete_=True, depths=[1, 1, 2, 1], channels=[8, 16, 24, 32])


@pytest.fixture(autouse=True)
def signals():
    yield
    for number in (signal.SIGTERM, signal.SIGUSR1):
        signal.signal(number, signal.SIG_DFL)


class SignalAt(Hook):
    def __init__(self, iteration):
        self.iteration = iteration

    def before_train_iter(self, runner, batch_idx, data_batch=None):
        if runner.iter == self.iteration:
            os.kill(os.getpid(), signal.SIGTERM)


def train(config, options, work_dir, resume=None, signal_at=None):
    """Every loss of a run, and its weights."""
    # Merging takes `_delete_` out of the options.
    cfg = load_config(str(config), deepcopy(options), work_dir=str(work_dir))
    cfg.experiment_name = f'{work_dir.parent.name}_{work_dir.name}_{resume}'
    set_training(cfg, resume=resume)
    runner = build_runner(cfg, 'train')
    if signal_at is not None:
        runner.register_hook(SignalAt(signal_at))
        with pytest.raises(Interrupted):
            run(runner, 'train')
        return None
    run(runner, 'train')
    losses = runner.message_hub.get_scalar('train/loss').data[0].tolist()
    return losses, runner.model.state_dict()


def check(config, options, tmp_path, signal_at, iterations):
    train(config, options, tmp_path / 'cut', signal_at=signal_at)
    losses, weights = train(config, options, tmp_path / 'cut', resume='auto')
    whole_losses, whole_weights = train(config, options, tmp_path / 'whole')
    assert losses == whole_losses
    assert len(set(losses)) == iterations
    torch.testing.assert_close(weights, whole_weights, rtol=0, atol=0)


NO_VALIDATION = dict(val_cfg=None, val_dataloader=None, val_evaluator=None)


@pytest.mark.parametrize('workers', [pytest.param(0, marks=pytest.mark.slow), 2])
def test_resumed_classification_is_that_of_an_uninterrupted_run(workers, shared_data, repo, tmp_path, monkeypatch):
    """RandAugment, Mixup and CutMix, random erasing, drop path, averaged weights; by epochs."""
    names = tmp_path / 'data' / 'meta' / 'train.txt'
    names.parent.mkdir(parents=True)
    with ZipFile(shared_data / 'imagenet_photos.zip') as photos:
        chosen = sorted(photos.namelist())[::83]
        photos.extractall(tmp_path / 'data' / 'train', chosen)
    names.write_text(''.join(f'{name} {83 * i}\n' for i, name in enumerate(chosen)))
    monkeypatch.setenv('IMAGENET_ROOT', str(tmp_path / 'data'))
    options = {
        'train_cfg.max_epochs': 2,
        'train_dataloader.batch_size': 4,
        'train_dataloader.num_workers': workers,
        'model.backbone.arch': ARCH,
        'model.backbone.drop_path_rate': 0.3,
        'param_scheduler': [dict(type='LinearLR', start_factor=0.1, by_epoch=False, end=6)],
        'randomness': dict(seed=3),
        **NO_VALIDATION,
    }
    check(repo / 'configs' / 'ctx_convnext_t_in1k.py', options, tmp_path, 4, 8)


@pytest.mark.parametrize('workers', [pytest.param(0, marks=pytest.mark.slow), 2])
def test_resumed_detection_is_that_of_an_uninterrupted_run(workers, repo, tmp_path, monkeypatch):
    """The demo, by iterations: random flips, and random samples of anchors and regions."""
    render_dataset(tmp_path / 'data', num_train=8, num_val=2)
    monkeypatch.setenv('SHAPES_ROOT', str(tmp_path / 'data'))
    options = {
        'train_cfg': dict(_delete_=True, by_epoch=False, max_iters=6, val_interval=100),
        'default_hooks.checkpoint': dict(type='CheckpointHook', by_epoch=False, interval=100),
        'train_dataloader.sampler': dict(_delete_=True, type='InfiniteSampler', shuffle=True),
        'train_dataloader.batch_size': 2,
        'train_dataloader.num_workers': workers,
        'param_scheduler': [dict(type='LinearLR', start_factor=0.1, by_epoch=False, end=6)],
        **NO_VALIDATION,
    }
    check(repo / 'configs' / 'mask_rcnn_ctx_convnext_shapes.py', options, tmp_path, 2, 6)
