"""The ImageNet and Tiny-ImageNet recipes through the command line tools, on real photos."""

from zipfile import ZipFile

import pytest
import torch
from mmengine.config import Config
from mmengine.registry import init_default_scope
from mmpretrain.models import ConvNeXt
from mmpretrain.registry import MODELS

from mmctx.models.layers import ContextualConv2d


@pytest.fixture
def few_photos(shared_data, tmp_path):
    """ImageNet with annotation files that list four photos for each split."""
    root = tmp_path / 'imagenet'
    with ZipFile(shared_data / 'imagenet_photos.zip') as photos:
        wnids = {name: label for label, name in enumerate(sorted(photos.namelist()))}
        for split, names in (('train', list(wnids)[::250]), ('val', list(wnids)[7::250])):
            photos.extractall(root / split, names)
            (root / 'meta').mkdir(exist_ok=True)
            lines = [f'{name} {wnids[name]}\n' for name in names]
            (root / 'meta' / f'{split}.txt').write_text(''.join(lines))
    return root


LOADERS = ('train_dataloader.num_workers=0', 'val_dataloader.num_workers=0')


def test_imagenet_trains_and_evaluates(few_photos, repo, tmp_path, run_tool):
    result = run_tool(
        'train.py', repo / 'configs' / 'ctx_resnet50_in1k.py', '--work-dir', tmp_path / 'work',
        '--cfg-options', 'train_cfg.max_epochs=1', 'train_dataloader.batch_size=2',
        'default_hooks.logger.interval=1', 'default_hooks.checkpoint=None', *LOADERS,
        cwd=tmp_path, IMAGENET_ROOT=str(few_photos),
    )  # fmt: skip
    assert result.returncode == 0, result.stderr[-2000:]
    log = result.stdout + result.stderr
    for figure in ('loss_stage1', 'loss_stage4', 'accuracy/top5', 'stages/recall@500_stage1',
                   'stages/recall@50_stage3', 'stages/top1_stage4'):  # fmt: skip
        assert figure in log, figure


def test_tiny_imagenet_trains_from_the_archives(shared_data, repo, tmp_path, run_tool):
    result = run_tool(
        'train.py', repo / 'configs' / 'ctx_resnet_tiny_imagenet.py',
        '--work-dir', tmp_path / 'work', '--cfg-options', 'train_cfg.max_iters=6',
        'train_cfg.val_interval=6', 'train_dataloader.batch_size=16', 'val_dataloader.batch_size=8',
        'val_dataloader.dataset.indices=16', 'default_hooks.logger.interval=1',
        cwd=tmp_path, TINY_IMAGENET_ROOT=str(shared_data / 'tiny_imagenet'),
    )  # fmt: skip
    assert result.returncode == 0, result.stderr[-2000:]
    assert 'stages/recall@100_stage1' in result.stdout + result.stderr
    assert (tmp_path / 'work' / 'iter_6.pth').is_file()


def test_vanilla_weights_start_the_recipe_as_the_vanilla_network(repo, tmp_path):
    """The classifier's own initializer reaches the predictors before the weights are loaded."""
    arch = dict(depths=[1, 1, 4, 1], channels=[8, 16, 24, 32])
    vanilla = ConvNeXt(arch)
    torch.save(dict(state_dict=vanilla.state_dict()), tmp_path / 'vanilla.pth')
    cfg = Config.fromfile(repo / 'configs' / 'ctx_convnext_t_in1k.py')
    init_default_scope('mmpretrain')
    pretrained = dict(type='Pretrained', checkpoint=str(tmp_path / 'vanilla.pth'))
    cfg.model.backbone.update(arch=arch, init_cfg=pretrained)
    model = MODELS.build(cfg.model)
    model.init_weights()
    layers = [layer for layer in model.modules() if isinstance(layer, ContextualConv2d)]
    assert len(layers) == 4
    for layer in layers:
        assert not layer.sampling_offset_predictor[-1].weight.any()
        assert not layer.weight_offset_predictor[-1].weight.any()
    for name, value in vanilla.state_dict().items():
        if not name.startswith('norm'):
            assert torch.equal(model.backbone.state_dict()[name], value), name
