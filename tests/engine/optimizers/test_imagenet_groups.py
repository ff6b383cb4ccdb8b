"""The ImageNet recipes' parameter groups: each parameter in one, with the decay it should have."""

import pytest
import torch.nn as nn
from mmengine.config import Config
from mmengine.optim import build_optim_wrapper
from mmengine.registry import init_default_scope
from mmpretrain.registry import MODELS

CONTEXTUAL = ('contextualizing', 'sampling_offset_predictor', 'weight_offset_predictor')


def groups_of(cfg):
    """(Learning rate, weight decay) of each trainable parameter by name, and the model."""
    init_default_scope('mmpretrain')
    model = MODELS.build(cfg.model)
    names = {id(p): name for name, p in model.named_parameters() if p.requires_grad}
    settings = {}
    groups = build_optim_wrapper(model, cfg.optim_wrapper).optimizer.param_groups
    # Of hundreds of parameters: an optimizer launches its kernels once a group.
    assert len(groups) <= 8
    for group in groups:
        for parameter in group['params']:
            settings[names.pop(id(parameter))] = (group['lr'], group['weight_decay'])
    assert not names, 'a trainable parameter is in no group'
    return settings, model


def undecayed(model):
    """Names of τ, class embeddings, biases, layer scales and all that norms hold."""
    norms = {
        f'{name}.{own}'
        for name, module in model.named_modules()
        if isinstance(module, nn.LayerNorm | nn.BatchNorm1d | nn.BatchNorm2d)
        for own, _ in module.named_parameters(recurse=False)
    }
    ends = ('bias', 'logit_scale', 'embeddings.weight', 'gamma')
    return norms | {name for name, _ in model.named_parameters() if name.endswith(ends)}


@pytest.mark.parametrize('name', ['ctx_convnext_t_in1k', 'ctx_resnet50_in1k'])
def test_each_parameter_is_in_one_group_with_its_decay(name, repo):
    cfg = Config.fromfile(repo / 'configs' / f'{name}.py')
    settings, model = groups_of(cfg)
    lr, decay = cfg.optim_wrapper.optimizer.lr, cfg.optim_wrapper.optimizer.weight_decay
    bare = undecayed(model)
    assert {n for n, (_, own) in settings.items() if own == 0} == bare & settings.keys()
    assert {own for _, own in settings.values()} == {0.0, decay}
    assert {own for own, _ in settings.values()} == {lr}


@pytest.mark.parametrize('name', ['ctx_convnext_t_in1k', 'ctx_resnet50_in1k'])
def test_contextual_parameters_can_have_rates_of_their_own(name, repo):
    cfg = Config.fromfile(repo / 'configs' / f'{name}.py')
    before, _ = groups_of(cfg)
    cfg.optim_wrapper.paramwise_cfg.update(context_lr_mult=0.5, context_decay_mult=3.0)
    after, _ = groups_of(cfg)
    for parameter, (lr, decay) in before.items():
        new = any(part in parameter for part in CONTEXTUAL)
        expected = (lr * 0.5, decay * 3) if new else (lr, decay)
        assert after[parameter] == pytest.approx(expected), parameter


CLASSIFYING, PREDICTORS = CONTEXTUAL[:1], CONTEXTUAL[1:]


def test_each_kind_of_parameters_has_factors_of_its_own(repo):
    cfg = Config.fromfile(repo / 'configs' / 'ctx_resnet50_in1k.py')
    before, _ = groups_of(cfg)
    cfg.optim_wrapper.paramwise_cfg.update(
        predictor_lr_mult=0.1, predictor_decay_mult=5.0, classifying_lr_mult=2.0,
        classifying_decay_mult=7.0, vanilla_lr_mult=0.3, vanilla_decay_mult=0.5,
        context_lr_mult=10.0,
    )  # fmt: skip
    after, _ = groups_of(cfg)
    seen = set()
    for name, (lr, decay) in before.items():
        factors = (0.3, 0.5)
        if any(part in name for part in PREDICTORS):
            factors = (1.0, 5.0)
        elif any(part in name for part in CLASSIFYING):
            factors = (20.0, 7.0)
        seen.add(factors)
        assert after[name] == pytest.approx((lr * factors[0], decay * factors[1])), name
    assert len(seen) == 3


@pytest.mark.parametrize('kind', ['predictor', 'classifying', 'vanilla', 'context'])
@pytest.mark.parametrize('value', [-1, 'half', None, True])
def test_refuses_factors_that_are_no_numbers(kind, value, repo):
    cfg = Config.fromfile(repo / 'configs' / 'ctx_resnet50_in1k.py')
    cfg.optim_wrapper.paramwise_cfg[f'{kind}_lr_mult'] = value
    with pytest.raises(ValueError, match=f'{kind}_lr_mult should be a number'):
        build_optim_wrapper(nn.Linear(2, 2), cfg.optim_wrapper)


def test_the_releases_policy_for_vanilla_weights(repo):
    """New parameters at the full rate and ten times the decay, all others at a tenth."""
    cfg = Config.fromfile(repo / 'configs' / 'from_vanilla' / 'ctx_resnet50_in1k.py')
    settings, model = groups_of(cfg)
    assert model.backbone.contextualizing.selection == 'rerank'
    assert model.head.loss_module.label_smoothing == 0.1
    bare = undecayed(model)
    for name, (lr, decay) in settings.items():
        new = any(part in name for part in CONTEXTUAL)
        expected = 0 if name in bare else 0.1 if new else 0.01
        assert (lr, decay) == pytest.approx((1e-4 if new else 1e-5, expected)), name


def test_a_parameter_of_two_modules_is_refused():
    """In one group PyTorch would only warn, and step twice."""
    model = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3))
    model[1].weight = model[0].weight
    cfg = dict(
        optimizer=dict(type='AdamW', lr=0.1, weight_decay=0.1),
        constructor='mmctx.ContextualOptimWrapperConstructor',
        paramwise_cfg=dict(bias_decay_mult=0.0),
    )
    with pytest.raises(ValueError, match='bypass_duplicate'):
        build_optim_wrapper(model, cfg)
    cfg['paramwise_cfg'].update(bypass_duplicate=True)
    groups = build_optim_wrapper(model, cfg).optimizer.param_groups
    assert sum(len(group['params']) for group in groups) == 3
