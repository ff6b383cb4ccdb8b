"""Every row of Tables 1, 4, 5 and 6: it has the size of its metafile, and all of it learns."""

import pytest
import torch
from mmengine.config import Config
from mmengine.registry import init_default_scope
from mmpretrain.registry import MODELS
from mmpretrain.structures import DataSample

from benchmarks.tables.paper import ROOT, read_models
from mmctx.apis import build_classifier

# Parameters of every classifier that the metafiles list, by its config.
SIZES = {
    model['Config'].removeprefix('configs/').removesuffix('.py'): int(
        model['Metadata']['Parameters']
    )
    for model in read_models(ROOT)
    if not model['Name'].startswith(('tsm', 'mask_rcnn'))
}
# mmpretrain's own networks.
VANILLA = ('swin', 'convnext', 'resnet50', 'ablations/a1', 'ablations/b1', 'ablations/c1')
OURS = [name for name in SIZES if not name.startswith(VANILLA)]


@pytest.fixture(scope='module', params=SIZES)
def row(request, repo):
    """Name and model of a row."""
    init_default_scope('mmpretrain')
    cfg = Config.fromfile(repo / 'configs' / f'{request.param}.py')
    cfg.model.setdefault('data_preprocessor', cfg.data_preprocessor)
    return request.param, MODELS.build(cfg.model)


def test_size_is_that_of_the_metafile(row):
    name, model = row
    assert sum(p.numel() for p in model.parameters()) == SIZES[name]


@pytest.mark.parametrize('row', OURS, indirect=True)
def test_every_parameter_gets_a_gradient(row):
    """What DistributedDataParallel needs to run without find_unused_parameters."""
    _, model = row
    samples = [DataSample().set_gt_label(label) for label in (3, 700)]
    batch = dict(inputs=list(torch.randint(0, 256, (2, 3, 64, 64)).byte()), data_samples=samples)
    losses = model(**model.train().data_preprocessor(batch, training=True), mode='loss')
    total, _ = model.parse_losses(losses)
    total.backward()
    assert total.isfinite()
    missing = [n for n, p in model.named_parameters() if p.requires_grad and p.grad is None]
    assert missing == []


@pytest.mark.parametrize(
    ('name', 'root'),
    [
        *((name, '/data/in1k') for name in SIZES if '/' not in name),
        ('ctx_convnext_b_in1k', '/data/in1k/'),
        ('ablations/c2_stage4', '/data/in1k/'),
    ],
)
def test_data_root_with_and_without_slash(name, root, repo, monkeypatch):
    monkeypatch.setenv('IMAGENET_ROOT', root)
    cfg = Config.fromfile(repo / 'configs' / f'{name}.py')
    for split in ('train', 'val', 'test'):
        dataset = cfg[f'{split}_dataloader'].dataset
        assert (dataset.type, dataset.data_root) == ('mmctx.ImageNet', '/data/in1k/')
        assert dataset.split == ('train' if split == 'train' else 'val')


@pytest.mark.parametrize(('arch', 'drop_path'), [('t', 0.1), ('s', 0.4), ('b', 0.5)])
def test_recipe_of_contextual_convnext(arch, drop_path, repo):
    cfg = Config.fromfile(repo / 'configs' / f'ctx_convnext_{arch}_in1k.py')
    optimizer = cfg.optim_wrapper.optimizer
    assert (optimizer.type, optimizer.lr, optimizer.weight_decay) == ('AdamW', 1e-3, 0.05)
    assert cfg.auto_scale_lr.base_batch_size == 4096
    assert cfg.train_cfg.max_epochs == 300
    warmup, cosine = cfg.param_scheduler
    assert (warmup.end, cosine.begin, cosine.type) == (20, 20, 'CosineAnnealingLR')
    assert cfg.model.backbone.drop_path_rate == drop_path
    assert {a.type: a.alpha for a in cfg.model.train_cfg.augments} == {'Mixup': 0.8, 'CutMix': 1.0}
    assert cfg.model.head.loss.label_smoothing == 0.1
    transforms = {t.type: t for t in cfg.train_dataloader.dataset.pipeline}
    assert transforms['RandomErasing'].erase_prob == 0.25
    augment = transforms['RandAugment']
    assert (augment.magnitude_level, augment.magnitude_std) == (9, 0.5)
    assert [(h.type, h.momentum) for h in cfg.custom_hooks] == [('EMAHook', 1e-4)]


def test_recipe_of_contextual_resnet50(repo):
    cfg = Config.fromfile(repo / 'configs' / 'ctx_resnet50_in1k.py')
    optimizer = cfg.optim_wrapper.optimizer
    assert (optimizer.type, optimizer.lr, optimizer.weight_decay) == ('SGD', 0.1, 1e-4)
    assert (cfg.train_cfg.max_epochs, cfg.auto_scale_lr.base_batch_size) == (100, 256)
    assert cfg.param_scheduler.milestones == [30, 60, 90]


# In the layout of the released code.
RELEASED = {
    27.972: dict(),
    27.563: dict(offsets=('weight',)),
    25.973: dict(offsets=('sampling',)),
    27.780: dict(contextual_stages=(3, 4)),
}


@pytest.mark.parametrize('millions', RELEASED)
def test_sizes_of_the_released_layout(millions):
    model = build_classifier(
        dict(type='mmctx.ContextualResNet', preset='released', **RELEASED[millions])
    )
    assert round(sum(p.numel() for p in model.parameters()) / 1e6, 3) == millions


def test_parts_of_the_released_layout():
    model = build_classifier(dict(type='mmctx.ContextualResNet', preset='released'))
    parts = dict.fromkeys(
        ('weight_offset_predictor', 'sampling_offset_predictor', 'embeddings', 'classifying', 'merging', 'body'), 0
    )
    for name, parameter in model.named_parameters():
        parts[next((part for part in parts if part in name), 'body')] += parameter.numel()
    assert {part: round(number / 1e6, 3) for part, number in parts.items()} == dict(
        weight_offset_predictor=1.998,
        sampling_offset_predictor=0.409,
        embeddings=0.256,
        classifying=1.642,
        merging=0.158,
        body=23.508,
    )
