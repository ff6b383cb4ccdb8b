"""The cascade reranks in the first share of the training, and never in validation."""

from types import SimpleNamespace

import pytest
import torch.nn as nn

from mmctx.engine import CascadeWarmUpHook
from mmctx.models.layers import Contextualizing


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
