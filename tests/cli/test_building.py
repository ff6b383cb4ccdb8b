"""What is built before the data are read leaves no trace in the run."""

from types import SimpleNamespace

from mmengine.optim import build_optim_wrapper
from torch import nn

from mmctx.cli.building import try_schedules


def test_trying_the_schedules_leaves_all_learning_rates_as_they_were():
    # With options for single parameters, mmengine logs a `base_lr` of its own.
    optim_wrapper = build_optim_wrapper(
        nn.BatchNorm1d(2),
        dict(
            optimizer=dict(type='AdamW', lr=0.1, weight_decay=0.05),
            paramwise_cfg=dict(norm_decay_mult=0.0),
        ),
    )
    schedule = dict(type='LinearLR', start_factor=0.01, by_epoch=False, end=50)
    runner = SimpleNamespace(optim_wrapper=optim_wrapper, param_schedulers=[schedule])
    before = optim_wrapper.get_lr()
    assert before['base_lr'] == [0.1]
    try_schedules(runner)
    assert optim_wrapper.get_lr() == before
    assert all('initial_lr' not in group for group in optim_wrapper.param_groups)
