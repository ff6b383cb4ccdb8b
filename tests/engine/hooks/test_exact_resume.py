"""An interrupted run gives the losses of one that never was, to the last bit."""

import os
import signal

import pytest
import torch
from mmengine.hooks import Hook
from toy_run import losses

from mmctx.engine import Interrupted

BY_ITER = {
    'train_cfg': dict(by_epoch=False, max_iters=21),
    'default_hooks.checkpoint': dict(type='CheckpointHook', by_epoch=False, interval=1000),
    'param_scheduler': [dict(type='CosineAnnealingLR', by_epoch=False, T_max=21)],
}


class SignalAt(Hook):
    """A scheduler's signal in the middle of an iteration."""

    def __init__(self, iteration, number=signal.SIGTERM):
        self.iteration = iteration
        self.number = number

    def before_train_iter(self, runner, batch_idx, data_batch=None):
        if runner.iter == self.iteration:
            os.kill(os.getpid(), self.number)


def state(runner):
    ema = next(hook for hook in runner.hooks if hasattr(hook, 'ema_model'))
    return {
        **runner.model.state_dict(),
        **{f'ema.{name}': value for name, value in ema.ema_model.state_dict().items()},
    }


@pytest.mark.parametrize('workers', [0, 2])
@pytest.mark.parametrize(
    ('changes', 'stops'),
    [
        pytest.param({}, [0, 6, 12], id='epochs'),
        pytest.param(BY_ITER, [4, 15], id='iterations'),
        pytest.param(
            {**BY_ITER, 'train_dataloader.sampler.type': 'InfiniteSampler'}, [8], id='infinite'
        ),
        pytest.param({'randomness': dict(seed=None, diff_rank_seed=True)}, [9], id='drawn seeds'),
        pytest.param({**BY_ITER, 'randomness': dict(seed=None)}, [9], id='drawn seeds, iterations'),
    ],
)
def test_losses_and_weights_are_those_of_an_uninterrupted_run(
    changes, stops, workers, toy_runner, monkeypatch
):
    # mmengine waits two seconds between the passes of an iteration-based loop.
    monkeypatch.setattr('mmengine.runner.loops.time.sleep', lambda seconds: None)
    changes = {**changes, 'train_dataloader.num_workers': workers}
    for stop in stops:
        with pytest.raises(Interrupted) as interrupted:
            toy_runner('cut', [SignalAt(stop)], resume=stop != stops[0], **changes).train()
        assert interrupted.value.code == 75
    resumed = toy_runner('cut', resume=True, **changes)
    resumed.train()
    if 'randomness' in changes:
        changes['randomness'] = dict(seed=resumed.seed)
    whole = toy_runner('whole', **changes)
    whole.train_dataloader.batch_sampler.sampler.seed = (
        resumed.train_dataloader.batch_sampler.sampler.seed
    )
    whole.train()
    assert resumed.iter == whole.iter == 21
    assert losses(resumed) == losses(whole)
    assert len(set(losses(whole))) == 21
    torch.testing.assert_close(state(resumed), state(whole), rtol=0, atol=0)
