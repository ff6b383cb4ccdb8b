"""What a checkpoint overrules of a config is said, and another optimizer refused."""

from types import SimpleNamespace

import pytest
import torch
from mmengine.optim import CosineAnnealingLR, LinearLR, MultiStepLR, OptimWrapper

from mmctx.engine.resumed_settings import (
    check_optimizer,
    other_length,
    other_options,
    other_schedules,
)
from mmctx.errors import UserError


def wrapper(kind=torch.optim.SGD, parameters=2, **options):
    weights = [torch.nn.Parameter(torch.zeros(2)) for _ in range(parameters)]
    return OptimWrapper(kind(weights, **{'lr': 0.1, **options}))


def test_the_same_settings_say_nothing_at_any_point_of_a_schedule():
    saved, now = wrapper(momentum=0.9), wrapper(momentum=0.9)
    schedules = [
        [LinearLR(of.optimizer, 0.1, end=5), MultiStepLR(of.optimizer, [3, 6], end=9)]
        for of in (saved, now)
    ]
    for _ in range(4):
        saved.optimizer.step()
        for schedule in schedules[0]:
            schedule.step()
    assert list(other_options(now, saved.state_dict())) == []
    assert list(other_schedules(schedules[1], [s.state_dict() for s in schedules[0]])) == []
    check_optimizer('a.pth', now, saved.state_dict())


@pytest.mark.parametrize(
    ('change', 'words'),
    [
        (dict(lr=0.01), 'lr=0.1 (the config: 0.01)'),
        (dict(weight_decay=0.5), 'weight_decay=0 (the config: 0.5)'),
        (dict(momentum=0.9), 'momentum=0 (the config: 0.9)'),
        (dict(momentum=0.9, nesterov=True), 'nesterov=False (the config: True)'),
    ],
)
def test_another_option_of_the_optimizer_is_named(change, words):
    assert words in list(other_options(wrapper(**change), wrapper().state_dict()))


def test_another_schedule_is_named():
    def state(kind, *args, **kwargs):
        return kind(wrapper().optimizer, *args, **kwargs)

    saved = state(CosineAnnealingLR, T_max=10)
    (words,) = other_schedules([state(CosineAnnealingLR, T_max=20)], [saved.state_dict()])
    assert words == 'CosineAnnealingLR.T_max=10 (the config: 20)'
    (words,) = other_schedules([state(LinearLR)], [saved.state_dict()])
    assert words == 'another schedule (the config: LinearLR)'
    (words,) = other_schedules([], [saved.state_dict()])
    assert words == '1 schedules (the config: 0)'


def test_another_length_is_named():
    loop = SimpleNamespace(_max_epochs=4, max_epochs=4, max_iters=40)
    (words,) = other_length(loop, dict(runtime_info=dict(max_epochs=2)))
    assert words == 'max_epochs=4 of the config counts, not the 2 of the checkpoint'
    assert list(other_length(loop, dict(runtime_info=dict(max_epochs=4)))) == []
    assert list(other_length(loop, {})) == []


def test_another_kind_of_optimizer_is_refused():
    with pytest.raises(UserError, match=r'its optimizer is not AdamW \(it has dampening, mom'):
        check_optimizer('a.pth', wrapper(torch.optim.AdamW), wrapper().state_dict())


def test_an_optimizer_of_other_parameters_is_refused():
    with pytest.raises(UserError, match=r'has 2 parameters in 1 groups, that of the config 3 in 1'):
        check_optimizer('a.pth', wrapper(parameters=3), wrapper().state_dict())
