"""The cascade reranks in the first share of the training, and never in validation."""

from itertools import pairwise
from types import SimpleNamespace

import pytest
import torch
import torch.nn as nn
from mmengine.logging import MessageHub

from mmctx.engine import CascadeWarmUpHook
from mmctx.engine.hooks.cascade_warm_up_hook import kept_at
from mmctx.models.layers import Contextualizing
from mmctx.models.losses import StagewiseCrossEntropy


def network(selection):
    return nn.Sequential(
        Contextualizing([4] * 4, [4] * 3, num_classes=9, considered=(6, 4, 2), selection=selection)
    )


@pytest.mark.parametrize('own', ['reduce', 'rerank'])
def test_selection_over_a_run(own):
    model = network(own)
    runner = SimpleNamespace(model=model, iter=0, max_iters=4)
    hook = CascadeWarmUpHook(share=0.5)
    hook.before_run(runner)
    seen = []
    for runner.iter in range(4):
        hook.before_train_iter(runner, runner.iter)
        seen.append(model[0].selection)
        hook.before_val(runner)
        assert model[0].selection == own
    assert seen == ['rerank', 'rerank', own, own]
    runner.iter = 1
    hook.before_train_iter(runner, 1)
    hook.after_run(runner)
    assert model[0].selection == own


@pytest.mark.parametrize('share', [-0.1, 1.1])
def test_refuses_a_share_out_of_range(share):
    with pytest.raises(ValueError, match='share should be from 0 to 1'):
        CascadeWarmUpHook(share)


def test_kept_classes_narrow_from_all_to_what_is_built():
    steps = [kept_at(i / 10, 200, (100, 40, 10)) for i in range(12)]
    assert steps[0] == (200, 200, 200) and steps[10] == steps[11] == (100, 40, 10)
    for before, after in pairwise(steps):
        assert all(b >= a for b, a in zip(before, after))
    assert all(second <= first and third <= second for first, second, third in steps)
    # The same share each time: halfway is the geometric mean.
    assert steps[5] == (141, 89, 45)


@pytest.mark.parametrize('own', ['reduce', 'rerank'])
def test_considered_over_a_run(own):
    model = network(own)
    runner = SimpleNamespace(model=model, iter=0, max_iters=8)
    hook = CascadeWarmUpHook(share=0.5, way='narrow', interval=0)
    hook.before_run(runner)
    seen = []
    for runner.iter in range(8):
        hook.before_train_iter(runner, runner.iter)
        assert model[0].selection == own
        seen.append(model[0].considered)
        hook.before_val(runner)
        assert model[0].considered == (6, 4, 2)
    assert seen[0] == (9, 9, 9) and seen[4:] == [(6, 4, 2)] * 4
    assert (9, 9, 9) > seen[1] > seen[3] > (6, 4, 2)


class Classifier(nn.Module):
    """Four stages and their loss."""

    def __init__(self):
        super().__init__()
        self.layer = network('rerank')[0]
        self.loss = StagewiseCrossEntropy()

    def forward(self, x, target):
        logits, kept = [], None
        self.contexts = []
        for stage in range(4):
            self.contexts.append(self.layer(x, stage, kept))
            logits.append(self.contexts[-1].logits)
            kept = self.contexts[-1].kept
        return sum(self.loss(logits, target))


@pytest.mark.parametrize('soft', [False, True])
def test_logs_recall_beside_that_of_chance(soft):
    model, label = Classifier(), torch.arange(6)
    hub = MessageHub.get_instance(f'warm-up {soft}')
    runner = SimpleNamespace(model=model, iter=0, max_iters=100, message_hub=hub)
    hook = CascadeWarmUpHook(share=0.5, way='narrow', interval=3)
    hook.before_run(runner)
    target = nn.functional.one_hot(label, 9).float() if soft else label
    for runner.iter in range(3):
        hook.before_train_iter(runner, runner.iter)
        model(torch.randn(6, 4, 2, 2), target)
        hook.after_train_iter(runner, runner.iter)
        assert ('train/cascade/kept_stage1' in hub.log_scalars) == (runner.iter == 2)
    for i, context in enumerate(model.contexts[:3], 1):
        figure = {
            name: hub.get_scalar(f'train/cascade/{name}_stage{i}').current()
            for name in ('kept', 'chance', 'recall')
        }
        assert figure['kept'] == kept_at(2 / 50, 9, (6, 4, 2))[i - 1] == context.kept[0].sum()
        assert figure['chance'] == pytest.approx(100 * figure['kept'] / 9)
        true = [bool(row[n]) for row, n in zip(context.kept, label)]
        assert figure['recall'] == pytest.approx(100 * sum(true) / 6)
    assert not model.layer._forward_hooks and not model.loss._forward_pre_hooks


@pytest.mark.parametrize(
    ('change', 'message'), [(dict(way='sudden'), 'way'), (dict(interval=-1), 'interval')]
)
def test_refuses_what_it_does_not_know(change, message):
    with pytest.raises(ValueError, match=f'{message} should be'):
        CascadeWarmUpHook(0.5, **change)
