"""A resumed run does the validation that its checkpoint was saved before."""

import os
import signal

import pytest
from mmengine.hooks import Hook
from test_interruption import VALIDATION
from toy_run import losses

from mmctx.engine import Interrupted

BY_ITER = {
    'train_cfg': dict(by_epoch=False, max_iters=21, val_interval=7),
    'default_hooks.checkpoint': dict(type='CheckpointHook', by_epoch=False, interval=7),
    'param_scheduler': [dict(type='CosineAnnealingLR', by_epoch=False, T_max=21)],
}


class Validations(Hook):
    """Note each validation that comes to its end; be killed in the one after an iteration.

    `killed_at` is the iteration, `begun` lists those of the training that were begun.
    """

    def __init__(self, killed_at=None):
        self.killed_at = killed_at
        self.metrics = {}
        self.begun = []

    def before_train_iter(self, runner, batch_idx, data_batch=None):
        self.begun.append(runner.iter)

    def after_val_iter(self, runner, batch_idx, data_batch=None, outputs=None):
        if runner.iter == self.killed_at:
            raise KeyboardInterrupt

    def after_val_epoch(self, runner, metrics=None):
        self.metrics[runner.iter] = metrics


@pytest.fixture(params=[{}, BY_ITER], ids=['epochs', 'iterations'])
def train(request, toy_runner, monkeypatch):
    """Train the toy, which validates at iterations 7, 14 and 21."""
    # mmengine waits two seconds between the passes of an iteration-based loop.
    monkeypatch.setattr('mmengine.runner.loops.time.sleep', lambda seconds: None)

    def train(name, killed_at=None, **changes):
        seen = Validations(killed_at)
        changes = {**VALIDATION, **request.param, **changes}
        checkpoint = dict(type='CheckpointHook', interval=1, save_best='acc', rule='less')
        checkpoint |= changes.pop('default_hooks.checkpoint', {})
        changes['default_hooks.checkpoint'] = checkpoint
        runner = toy_runner(name, [seen], **changes)
        if killed_at is None:
            runner.train()
        else:
            with pytest.raises(KeyboardInterrupt):
                runner.train()
        return seen, runner

    return train


def test_last_validation_is_run_on_resuming_without_training_again(train):
    whole, _ = train('whole')
    cut, _ = train('cut', killed_at=21)
    assert list(whole.metrics) == [7, 14, 21] and list(cut.metrics) == [7, 14]
    resumed, runner = train('cut', resume=True)
    assert resumed.begun == []
    assert list(resumed.metrics) == [21]
    assert resumed.metrics[21] == whole.metrics[21]
    assert len(losses(runner)) == 21


def test_finished_run_is_not_validated_again(train):
    train('run')
    again, runner = train('run', resume=True)
    assert runner.iter == 21
    assert again.begun == [] and again.metrics == {}


def test_validation_between_epochs_is_run_before_training_goes_on(train):
    train('cut', killed_at=14)
    resumed, runner = train('cut', resume=True)
    whole, _ = train('whole')
    assert resumed.begun == list(range(14, 21))
    assert resumed.metrics == {n: whole.metrics[n] for n in (14, 21)}
    assert len(losses(runner)) == 21


def test_best_score_survives_a_kill_in_validation(train):
    train('cut', killed_at=14)
    _, resumed = train('cut', resume=True)
    _, whole = train('whole')
    assert resumed.message_hub.get_info('best_score') == whole.message_hub.get_info('best_score')


def test_nothing_is_validated_where_no_validation_was_due(toy_runner):
    class SignalInTraining(Hook):
        def before_train_iter(self, runner, batch_idx, data_batch=None):
            if runner.iter == 9:
                os.kill(os.getpid(), signal.SIGTERM)

    with pytest.raises(Interrupted):
        toy_runner('cut', [SignalInTraining()], **VALIDATION).train()
    seen = Validations()
    toy_runner('cut', [seen], resume=True, **VALIDATION).train()
    assert list(seen.metrics) == [14, 21]
    every_second = {**VALIDATION, 'train_cfg': dict(by_epoch=True, max_epochs=3, val_interval=2)}
    first = toy_runner('sparse', **{**every_second, 'train_cfg.max_epochs': 1})
    first.train()
    seen = Validations()
    toy_runner('sparse', [seen], resume=True, **every_second).train()
    assert list(seen.metrics) == [14, 21]


def test_validation_is_not_run_before_training_has_begun(toy_runner):
    seen = Validations()
    toy_runner('fresh', [seen], resume=True, **VALIDATION).train()
    assert list(seen.metrics) == [7, 14, 21]
