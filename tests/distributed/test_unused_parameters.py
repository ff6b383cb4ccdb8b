"""Every contextual config trains under DDP without `find_unused_parameters`.

DDP says at the second iteration which parameters got no gradient, also on one process.
"""

import importlib
from pathlib import Path

import pytest
import torch
from mmengine.config import Config
from mmengine.model import MMDistributedDataParallel
from mmengine.optim import build_optim_wrapper
from mmengine.registry import MODELS, init_default_scope

CONFIGS = Path(__file__).resolve().parents[2] / 'configs'
SMALL = {
    'mmctx.ContextualConvNeXt': dict(arch=dict(depths=[1, 1, 3, 1], channels=[16, 16, 16, 16])),
    'mmctx.ContextualResNet': dict(depth=18, base_channels=16, stem_channels=16),
}
FEW_CLASSES = dict(num_classes=64, considered=(32, 16, 8), embed_dims=16)
# Arguments that decide which parameters there are and what uses them; all others are sizes.
KIND = ('type', 'out_type', 'prior', 'offsets', 'contextual_stages')


def contextual_configs():
    """The first config of each kind that mmctx ships, with a small backbone."""
    seen = []
    for path in sorted([*CONFIGS.glob('*.py'), *CONFIGS.glob('ablations/*.py')]):
        cfg = Config.fromfile(path, import_custom_modules=False)
        backbone = cfg.model.backbone
        kind = [backbone.get(key) for key in KIND]
        if backbone.type in SMALL and kind not in seen:
            seen.append(kind)
            backbone.pop('init_cfg', None)
            backbone.update(SMALL[backbone.type], **FEW_CLASSES)
            if backbone.get('prior') == 'input':
                # It needs the 1×1 convolutions of bottlenecks.
                backbone.depth = 50
            yield pytest.param(cfg, id=path.stem)


@pytest.fixture(scope='module', autouse=True)
def process_group():
    """A group of this process alone."""
    torch.distributed.init_process_group(
        'gloo', store=torch.distributed.HashStore(), rank=0, world_size=1
    )
    yield
    torch.distributed.destroy_process_group()


def build(cfg):
    importlib.import_module(f'{cfg.default_scope}.models')
    init_default_scope(cfg.default_scope)
    backbone = cfg.model.backbone
    cfg.model.setdefault('data_preprocessor', cfg.get('data_preprocessor'))
    if cfg.default_scope == 'mmdet':
        cfg.model.neck.in_channels = backbone.arch.channels
    elif cfg.model.get('neck'):
        # A vanilla head, which takes the widest map.
        cfg.model.head.in_channels = 8 * backbone.base_channels
    if cfg.default_scope == 'mmpretrain':
        # Mixup's targets are as wide as this says.
        cfg.model.data_preprocessor.num_classes = (
            cfg.model.head.get('num_classes') or backbone.num_classes
        )
    model = MODELS.build(cfg.model)
    wrapper = build_optim_wrapper(model, dict(optimizer=dict(type='SGD', lr=1e-4)))
    return MMDistributedDataParallel(model), wrapper


def batch_for(cfg):
    if cfg.default_scope == 'mmdet':
        from mmdet.testing import demo_mm_inputs

        return demo_mm_inputs(
            2, image_shapes=[(3, 64, 64)] * 2, num_items=[3, 3], num_classes=8, with_mask=True
        )
    from mmpretrain.structures import DataSample

    images = torch.randint(0, 256, (4, 3, 48, 48), dtype=torch.uint8)
    return dict(inputs=list(images), data_samples=[DataSample().set_gt_label(i) for i in range(4)])


def train(cfg, iterations=2):
    model, wrapper = build(cfg)
    for _ in range(iterations):
        losses = model.train_step(batch_for(cfg), wrapper)
        assert torch.isfinite(torch.as_tensor(losses['loss']))
    return model


@pytest.mark.parametrize('cfg', contextual_configs())
def test_two_iterations_without_finding_unused_parameters(cfg):
    assert not cfg.get('find_unused_parameters')
    model = train(cfg)
    assert not model.find_unused_parameters


def test_an_unused_parameter_would_be_noticed():
    cfg = next(param.values[0] for param in contextual_configs() if 'in1k' in param.id)
    model, wrapper = build(cfg)
    backbone = model.module.backbone
    backbone.register_parameter('unused', torch.nn.Parameter(torch.zeros(3)))
    model = MMDistributedDataParallel(model.module)
    model.train_step(batch_for(cfg), wrapper)
    with pytest.raises(RuntimeError, match='find_unused_parameters=True'):
        model.train_step(batch_for(cfg), wrapper)
