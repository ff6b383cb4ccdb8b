"""SIGTERM and SIGUSR1 end a run in good order."""

import os
import signal

import pytest
import torch
from mmengine.evaluator import BaseMetric
from mmengine.hooks import Hook
from mmengine.registry import METRICS
from test_exact_resume import SignalAt, state
from toy_run import losses

from mmctx.engine import Interrupted
from mmctx.engine.hooks.interruption_hook import SIGNALS


@METRICS.register_module()
class EngineToyMetric(BaseMetric):
    def process(self, data_batch, data_samples):
        self.results.extend(float(sample) for sample in data_samples)

    def compute_metrics(self, results):
        return dict(acc=sum(results))


VALIDATION = dict(
    val_dataloader=dict(
        batch_size=4,
        num_workers=0,
        dataset=dict(type='EnginePoints', length=12),
        sampler=dict(type='DefaultSampler', shuffle=False),
        collate_fn=dict(type='default_collate'),
    ),
    val_evaluator=dict(type='EngineToyMetric'),
    val_cfg=dict(),
)


class SignalInValidation(Hook):
    def __init__(self, epoch=2):
        self.epoch = epoch

    def after_val_iter(self, runner, batch_idx, data_batch=None, outputs=None):
        if runner.epoch == self.epoch and batch_idx == 1:
            os.kill(os.getpid(), signal.SIGTERM)


def test_run_resumes_from_where_the_signal_came(toy_runner, tmp_path):
    with pytest.raises(Interrupted, match='75'):
        toy_runner(hooks=[SignalAt(9, signal.SIGUSR1)]).train()
    folder = tmp_path / 'run'
    assert (folder / 'last_checkpoint').read_text() == str(folder / 'interrupted.pth')
    resumed = toy_runner(resume=True)
    resumed.train()
    assert len(losses(resumed)) == 21
    # A later checkpoint has taken its place.
    assert not (folder / 'interrupted.pth').exists()


def test_in_validation_the_weights_are_saved_and_not_their_averages(toy_runner):
    with pytest.raises(Interrupted):
        toy_runner('cut', [SignalInValidation()], **VALIDATION).train()
    resumed, whole = toy_runner('cut', resume=True, **VALIDATION), toy_runner('whole', **VALIDATION)
    resumed.train()
    whole.train()
    assert losses(resumed) == losses(whole)
    torch.testing.assert_close(state(resumed), state(whole), rtol=0, atol=0)


def test_last_validation_is_left_to_the_resumed_run(toy_runner, tmp_path):
    with pytest.raises(Interrupted, match='75'):
        toy_runner('cut', [SignalInValidation(3)], **VALIDATION).train()
    assert not (tmp_path / 'cut' / 'interrupted.pth').exists()
    assert (tmp_path / 'cut' / 'last_validation').read_text() == '14'
    resumed = toy_runner('cut', resume=True, **VALIDATION)
    resumed.train()
    assert (tmp_path / 'cut' / 'last_validation').read_text() == '21'
    assert len(losses(resumed)) == 21


def test_the_last_iteration_ends_the_run_as_ever(toy_runner, tmp_path):
    toy_runner(hooks=[SignalAt(20)]).train()
    assert not (tmp_path / 'run' / 'interrupted.pth').exists()
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL


def test_a_training_that_fails_handles_no_signals_any_more(toy_runner):
    def fail(*args, **kwargs):
        raise KeyError('a bug')

    before = [signal.getsignal(number) for number in SIGNALS]
    runner = toy_runner()
    runner.model.train_step = fail
    with pytest.raises(KeyError):
        runner.train()
    assert [signal.getsignal(number) for number in SIGNALS] == before


def test_without_checkpoints_the_run_just_ends(toy_runner, tmp_path):
    runner = toy_runner(hooks=[SignalAt(3)], default_hooks=dict(checkpoint=None))
    with pytest.raises(Interrupted):
        runner.train()
    assert not list((tmp_path / 'run').glob('*.pth'))


def test_a_worker_outlives_the_signal_that_slurm_sends_to_all(toy_runner):
    """Else its process would fail before it had saved anything."""

    class SignalAll(Hook):
        def before_train_iter(self, runner, batch_idx, data_batch=None):
            if runner.iter == 8:
                fetch = runner.train_dataloader.dataset.__getitems__
                for pid in [*fetch.reading[:, 0].tolist(), os.getpid()]:
                    os.kill(pid, signal.SIGTERM)

    workers = {'train_dataloader.num_workers': 2}
    with pytest.raises(Interrupted):
        toy_runner(hooks=[SignalAll()], **workers).train()
