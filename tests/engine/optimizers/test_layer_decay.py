"""The detectors' layer-wise decay against mmdet's own."""

import copy

import pytest
import torch.nn as nn
from mmengine.config import Config
from mmengine.optim import build_optim_wrapper
from mmengine.registry import init_default_scope

import mmctx
from mmctx.engine.optimizers.layer_decay import depth_in_backbone
from mmctx.errors import UserError


def groups_of(path):
    """(learning rate, weight decay) of each trainable parameter of a config's model, by name."""
    from mmdet.registry import MODELS
    from mmdet.utils import register_all_modules

    register_all_modules(init_default_scope=False)
    cfg = Config.fromfile(path)
    init_default_scope('mmdet')
    cfg.model.backbone.init_cfg = None
    model = MODELS.build(cfg.model)
    cfg.optim_wrapper.type = 'OptimWrapper'
    groups = build_optim_wrapper(model, cfg.optim_wrapper).optimizer.param_groups
    names = {id(p): name for name, p in model.named_parameters() if p.requires_grad}
    settings = {}
    for group in groups:
        for parameter in group['params']:
            name = names.pop(id(parameter))
            settings[name] = (group['lr'], group['weight_decay'])
    assert not names, 'a trainable parameter is in no group'
    return settings


def test_contextual_detector_decays_as_the_vanilla_one(repo):
    pytest.importorskip('mmdet')
    vanilla = groups_of(repo / 'configs' / 'mask_rcnn_convnext_t_coco.py')
    contextual = groups_of(repo / 'configs' / 'mask_rcnn_ctx_convnext_t_coco.py')
    for name, setting in vanilla.items():
        assert contextual[name] == pytest.approx(setting), name
    new = contextual.keys() - vanilla.keys()
    assert contextual['backbone.contextualizing.embeddings.weight'] == (1e-4, 0.0)
    assert any('sampling_offset_predictor' in name for name in new)
    assert not any('classifying' in name or 'logit_scale' in name for name in new)


class Network(nn.Module):
    """Stands in for a detector: a backbone and a head."""

    def __init__(self, depth):
        super().__init__()
        sizes = dict(stem_channels=8, base_channels=8, embed_dims=8, num_classes=4)
        self.backbone = mmctx.ContextualResNet(depth, **sizes)
        self.head = nn.Linear(2, 2)


def test_a_student_decays_as_its_detector_alone():
    detector = Network(50)
    pair = nn.ModuleDict(dict(student=detector, teacher=copy.deepcopy(detector)))
    pair['teacher'].requires_grad_(False)
    alone, within = depth_in_backbone(detector), depth_in_backbone(pair)
    depths = {name: alone(name) for name, _ in detector.named_parameters()}
    assert {name: within(f'student.{name}') for name in depths} == depths
    assert len(set(depths.values())) == 8


def test_networks_whose_layers_have_no_depth_are_refused():
    learning = nn.ModuleDict(dict(student=Network(18), teacher=Network(18)))
    with pytest.raises(
        UserError, match=r'ModuleDict has student\.backbone, teacher\.backbone: set'
    ):
        depth_in_backbone(learning)
    with pytest.raises(UserError, match=r'Linear has none: set optim_wrapper\.constructor'):
        depth_in_backbone(nn.Linear(2, 2))
    with pytest.raises(UserError, match='ContextualResNet of this depth'):
        depth_in_backbone(Network(18))
