"""A loss that is not finite stops the run, or its batch is left out."""

import pytest
import torch
from mmengine.structures import BaseDataElement
from toy_run import EngineToyModel, losses

from mmctx.cli.failures import LastBatch
from mmctx.cli.running import run
from mmctx.engine import NonFiniteLoss
from mmctx.errors import UserError


def spoil(monkeypatch, *iterations, value=float('nan')):
    """Make the loss of some iterations infinite or not a number."""
    forward = EngineToyModel.forward
    count = iter(range(1000))

    def spoilt(self, inputs, mode='tensor'):
        outputs = forward(self, inputs, mode)
        if mode == 'loss' and next(count) in iterations:
            outputs['loss'] = outputs['loss'] * value
        return outputs

    monkeypatch.setattr(EngineToyModel, 'forward', spoilt)


@pytest.mark.parametrize('value', [float('nan'), float('inf')])
def test_nan_loss_stops_and_names_the_iteration(value, toy_runner, monkeypatch, tmp_path):
    spoil(monkeypatch, 9, value=value)
    runner = toy_runner(hooks=[LastBatch()])
    with pytest.raises(UserError) as error:
        run(runner, 'train')
    assert f'the loss is {value} at iteration 10 (epoch 2, batch 3)' in str(error.value)
    assert '--nonfinite-loss skip' in str(error.value)
    assert all(weight.isfinite().all() for weight in runner.model.parameters())
    assert sorted(path.name for path in (tmp_path / 'run').glob('*.pth')) == ['epoch_1.pth']


def test_the_images_of_the_batch_are_named(toy_runner, monkeypatch):
    spoil(monkeypatch, 0)
    last_batch = LastBatch()
    runner = toy_runner(hooks=[last_batch])
    sample = BaseDataElement(metainfo=dict(img_path='/data/odd.jpg'))
    last_batch.before_train_iter(runner, 0, dict(data_samples=[sample]))
    # The toy's own batches know no paths.
    monkeypatch.setattr(last_batch, '_before_iter', lambda *args, **kwargs: None)
    with pytest.raises(UserError, match=r'images of this batch: /data/odd.jpg'):
        run(runner, 'train')


def test_a_skipped_batch_leaves_no_trace_in_the_weights(toy_runner, monkeypatch):
    spoil(monkeypatch, 3, 4, 11)
    runner = toy_runner(nonfinite_loss='skip')
    steps = []
    runner.optim_wrapper = runner.build_optim_wrapper(runner.optim_wrapper)
    runner.optim_wrapper.optimizer.register_step_post_hook(lambda *args: steps.append(args))
    runner.train()
    assert runner.iter == 21
    assert len(steps) == 18
    assert sum(loss != loss for loss in losses(runner)) == 3
    assert all(weight.isfinite().all() for weight in runner.model.parameters())


def test_accumulated_gradients_go_with_the_batch(toy_runner, monkeypatch):
    spoil(monkeypatch, 1)
    runner = toy_runner(
        nonfinite_loss='skip',
        optim_wrapper=dict(optimizer=dict(type='SGD', lr=0.1), accumulative_counts=3),
        train_cfg=dict(by_epoch=False, max_iters=3),
        param_scheduler=None,
    )
    gradients = []
    runner.optim_wrapper = runner.build_optim_wrapper(runner.optim_wrapper)
    wrapper = runner.optim_wrapper
    monkeypatch.setattr(
        wrapper, 'step', lambda **k: gradients.append(runner.model.layers[0].weight.grad.clone())
    )
    backward = []
    original = wrapper.backward

    def once(loss, **kwargs):
        backward.append(loss)
        original(loss, **kwargs)
        backward[-1] = runner.model.layers[0].weight.grad.clone()

    monkeypatch.setattr(wrapper, 'backward', once)
    runner.train()
    # The first batch's share is dropped: the step takes the third batch's alone.
    assert len(backward) == 2 and len(gradients) == 1
    assert torch.equal(gradients[0], backward[1])


def test_too_many_skipped_batches_in_a_row_stop_the_run(toy_runner, monkeypatch):
    spoil(monkeypatch, *range(5, 30))
    runner = toy_runner(nonfinite_loss='skip')
    with pytest.raises(NonFiniteLoss, match=r'iteration 16 .* the 10 before it'):
        runner.train()


def test_spoilt_statistics_cannot_be_skipped(toy_runner, monkeypatch):
    forward = EngineToyModel.forward

    def spoilt(self, inputs, mode='tensor'):
        return forward(self, inputs * float('inf'), mode)

    monkeypatch.setattr(EngineToyModel, 'forward', spoilt)
    with pytest.raises(NonFiniteLoss, match=r'has spoilt layers\.1\.running_mean'):
        toy_runner(nonfinite_loss='skip').train()


def test_nan_loss_can_be_ignored(toy_runner, monkeypatch):
    spoil(monkeypatch, 3)
    runner = toy_runner(nonfinite_loss='ignore')
    runner.train()
    assert not any(weight.isfinite().all() for weight in runner.model.parameters())


def test_an_unknown_action_is_refused(toy_runner):
    with pytest.raises(ValueError, match=r"'stop', 'skip', 'ignore'.*'skipp'"):
        toy_runner(nonfinite_loss='skipp')
