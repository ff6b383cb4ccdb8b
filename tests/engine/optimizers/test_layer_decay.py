"""The detectors' layer-wise decay against mmdet's own."""

import pytest
from mmengine.config import Config
from mmengine.optim import build_optim_wrapper
from mmengine.registry import init_default_scope


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
