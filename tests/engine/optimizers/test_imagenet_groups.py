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
    assert len(groups) <= 6
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
