"""TSM's parameter groups: mmaction2's own on its network, and all of a contextual one's."""

import pytest
import torch.nn as nn
from mmengine.config import Config
from mmengine.optim import build_optim_wrapper
from mmengine.registry import init_default_scope

LR, DECAY = 0.02, 1e-4


def build(repo, name, **backbone):
    """A small recognizer of a config, and its `optim_wrapper`."""
    import mmaction.models  # noqa: F401
    from mmaction.registry import MODELS

    init_default_scope('mmaction')
    cfg = Config.fromfile(repo / 'configs' / f'{name}.py')
    cfg.model.backbone.update({'depth': 18, **backbone})
    cfg.model.cls_head.update(num_classes=7, in_channels=512)
    return MODELS.build(cfg.model), cfg.optim_wrapper


def settings_of(model, optim_wrapper):
    """(Learning rate, weight decay) of each trainable parameter by name."""
    names = {id(p): name for name, p in model.named_parameters() if p.requires_grad}
    settings = {}
    for group in build_optim_wrapper(model, optim_wrapper).optimizer.param_groups:
        for parameter in group['params']:
            # Fails on a parameter that is frozen, or in a second group.
            settings[names.pop(id(parameter))] = (group['lr'], group['weight_decay'])
    assert not names, 'a trainable parameter is in no group'
    return settings


@pytest.mark.parametrize('fc_lr5', [True, False])
def test_as_mmaction2_on_its_own_network(fc_lr5, repo):
    model, optim_wrapper = build(repo, 'tsm_resnet50_k400')
    assert optim_wrapper.constructor == 'TSMOptimWrapperConstructor'
    optim_wrapper.paramwise_cfg.fc_lr5 = fc_lr5
    theirs = settings_of(model, optim_wrapper)
    optim_wrapper.constructor = 'mmctx.TSMOptimWrapperConstructor'
    ours = settings_of(model, optim_wrapper)
    assert ours.keys() == theirs.keys()
    for name, setting in theirs.items():
        assert ours[name] == pytest.approx(setting), name
    factors = {(round(lr / LR), round(decay / DECAY)) for lr, decay in ours.values()}
    assert factors == {(1, 1), (1, 0)} | ({(5, 1), (10, 0)} if fc_lr5 else {(2, 0)})


def test_mmaction2_refuses_the_contextual_network(repo):
    """Why there is a constructor of our own."""
    model, optim_wrapper = build(repo, 'tsm_ctx_resnet50_k400')
    optim_wrapper.constructor = 'mmaction.TSMOptimWrapperConstructor'
    with pytest.raises(ValueError, match='New atomic module type'):
        build_optim_wrapper(model, optim_wrapper)


CONTEXTUAL = {
    'paper': dict(),
    'modulated, layer norm': dict(preset='released', norm='LN'),
    'prior as input': dict(prior='input', depth=50, stem_channels=16, base_channels=16),
    'no prior': dict(prior='none'),
    'learning to classify': dict(out_type='logits'),
    'frozen stages': dict(frozen_stages=2),
}


@pytest.mark.parametrize('case', CONTEXTUAL)
def test_every_trainable_parameter_of_the_contextual_network(case, repo):
    model, optim_wrapper = build(repo, 'tsm_ctx_resnet50_k400', **CONTEXTUAL[case])
    settings = settings_of(model, optim_wrapper)
    kinds = (nn.BatchNorm1d, nn.BatchNorm2d, nn.LayerNorm)
    norms = {n for n, m in model.named_modules() if isinstance(m, kinds)}
    for name, setting in settings.items():
        owner, _, own = name.rpartition('.')
        if owner == 'cls_head.fc_cls':
            expected = (5 * LR, DECAY) if own == 'weight' else (10 * LR, 0)
        elif owner in norms or name.endswith(('embeddings.weight', 'logit_scale')):
            expected = (LR, 0)
        else:
            expected = (2 * LR, 0) if own == 'bias' else (LR, DECAY)
        assert setting == pytest.approx(expected), name
    found = {own for own in ('prior_weight', 'logit_scale') if any(own in n for n in settings)}
    assert found == {
        'prior as input': {'prior_weight'}, 'learning to classify': {'logit_scale'},
    }.get(case, set())  # fmt: skip


def test_factors_and_keys_of_the_user(repo):
    model, optim_wrapper = build(repo, 'tsm_ctx_resnet50_k400')
    before = settings_of(model, optim_wrapper)
    optim_wrapper.paramwise_cfg.update(
        context_lr_mult=0.5, context_decay_mult=3.0, custom_keys={'backbone.conv1': dict(lr_mult=0)}
    )
    after = settings_of(model, optim_wrapper)
    for name, (lr, decay) in before.items():
        new = any(
            part in name
            for part in ('contextualizing', 'sampling_offset_pred', 'weight_offset_pred')
        )
        expected = (lr * 0.5, decay * 3) if new else (lr, decay)
        expected = (0, DECAY) if name == 'backbone.conv1.weight' else expected
        assert after[name] == pytest.approx(expected), name


def test_rules_hold_without_options(repo):
    model, optim_wrapper = build(repo, 'tsm_ctx_resnet50_k400')
    del optim_wrapper['paramwise_cfg']
    settings = settings_of(model, optim_wrapper)
    assert settings['cls_head.fc_cls.weight'] == (LR, DECAY)
    assert settings['cls_head.fc_cls.bias'] == (2 * LR, 0)
    assert settings['backbone.bn1.weight'] == (LR, 0)
