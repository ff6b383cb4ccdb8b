"""What is built before the data are read leaves no trace in the run."""

from types import SimpleNamespace

import pytest
from mmengine.optim import build_optim_wrapper
from mmengine.registry import DATASETS, DefaultScope
from torch import nn

from mmctx.cli.building import (
    check_optimizer_type,
    refusals_of_constructors_explained,
    try_schedules,
)
from mmctx.errors import UserError
from mmctx.registry import bare_name, class_of


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


def test_an_optimizer_of_the_framework_is_known_and_an_unknown_one_is_refused():
    with DefaultScope.overwrite_default_scope('mmpretrain'):
        check_optimizer_type(dict(optimizer=dict(type='Lamb', lr=1e-3)))
        check_optimizer_type(dict(optimizer=dict(type='AdamW', lr=1e-3)))
        with pytest.raises(UserError, match=r'no optimizer AdmW .*is AdamW meant'):
            check_optimizer_type(dict(optimizer=dict(type='AdmW', lr=1e-3)))


def test_a_bare_name_is_that_of_a_class_or_of_text():
    names = nn.Conv2d, 'Conv2d', 'torch.Conv2d', 'torch.nn.modules.Conv2d'
    assert [bare_name(name) for name in names] == ['Conv2d'] * 4


def test_a_name_is_looked_up_in_the_scope_that_its_config_or_the_run_has():
    with DefaultScope.overwrite_default_scope('mmpretrain'):
        assert (
            class_of(dict(type='ImageNet'), DATASETS).__module__ == 'mmpretrain.datasets.imagenet'
        )
        coco = class_of(dict(type='CocoDataset', _scope_='mmdet'), DATASETS)
        assert coco is class_of(dict(type='CocoDataset'), DATASETS, scope='mmdet')
        assert coco.METAINFO['classes'][0] == 'person'


@pytest.mark.parametrize(
    'constructor',
    [
        'DefaultOptimWrapperConstructor',
        'mmctx.ContextualOptimWrapperConstructor',
        'mmctx.LayerDecayOptimWrapperConstructor',
        'mmctx.TSMOptimWrapperConstructor',
    ],
)
def test_an_optimizer_without_the_decay_that_groups_scale_is_refused(constructor):
    config = dict(
        constructor=constructor,
        optimizer=dict(type='SGD', lr=0.1),
        paramwise_cfg=dict(norm_decay_mult=0.0),
    )
    with (
        pytest.raises(UserError, match='has no weight_decay'),
        refusals_of_constructors_explained(),
    ):
        build_optim_wrapper(nn.BatchNorm1d(2), config)


def test_the_constructor_of_tsm_that_knows_no_embeddings_is_refused():
    config = dict(
        constructor='TSMOptimWrapperConstructor',
        optimizer=dict(type='SGD', lr=0.1, weight_decay=0.0),
        paramwise_cfg=dict(fc_lr5=True),
    )
    with (
        DefaultScope.overwrite_default_scope('mmaction'),
        pytest.raises(UserError, match=r'mmctx\.TSMOptimWrapperConstructor'),
        refusals_of_constructors_explained(),
    ):
        build_optim_wrapper(nn.Sequential(nn.Linear(2, 2), nn.Embedding(4, 2)), config)
