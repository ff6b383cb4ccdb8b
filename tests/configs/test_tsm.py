"""The rows of Table 2: full-size networks, TSM's recipe, the weights they start from."""

import pytest
import torch
import torchvision

from mmctx.cli.config import load_config
from mmctx.errors import UserError
from mmctx.cli.starting_weights import pretrained_weights
from mmctx.cli.running import build_model

# ResNet50 and 101 without their classifiers, the contextual one without that of stage 4, and the
# classifier of 400 classes.
SIZES = {'tsm_resnet50_k400': 24.328, 'tsm_resnet101_k400': 43.320, 'tsm_ctx_resnet50_k400': 27.568}


@pytest.fixture
def load(repo):
    """Load one of the configs with `--cfg-options`."""

    def load(name, **options):
        options = {key.replace('__', '.'): value for key, value in options.items()}
        return load_config(str(repo / 'configs' / f'{name}.py'), options)

    return load


def parameters(model):
    return sum(parameter.numel() for parameter in model.parameters())


@pytest.mark.parametrize('name', SIZES)
def test_size_and_recipe(name, load):
    cfg = load(name, pretrained=None)
    model = build_model(cfg)
    assert parameters(model) / 1e6 == pytest.approx(SIZES[name], abs=6e-4)
    assert model.backbone.num_segments == model.cls_head.num_segments == 16
    for split in ('train', 'val', 'test'):
        steps = {step['type']: step for step in cfg[f'{split}_dataloader'].dataset.pipeline}
        assert steps['SampleFrames']['num_clips'] == 16
    optimizer = cfg.optim_wrapper.optimizer
    settings = (optimizer.type, optimizer.lr, optimizer.momentum, optimizer.weight_decay)
    assert settings == ('SGD', 0.02, 0.9, 1e-4)
    assert cfg.optim_wrapper.paramwise_cfg.fc_lr5
    assert cfg.optim_wrapper.clip_grad.max_norm == 20
    assert (cfg.train_cfg.max_epochs, cfg.param_scheduler[1].milestones) == (50, [25, 45])
    assert cfg.auto_scale_lr.base_batch_size == 128
    assert cfg.model.cls_head.dropout_ratio == 0.5


def test_contextual_row_keeps_the_classes_of_imagenet(load):
    backbone = build_model(load('tsm_ctx_resnet50_k400', pretrained=None)).backbone
    assert backbone.contextualizing.embeddings.num_embeddings == 1000
    assert backbone.contextualizing.considered == (500, 200, 50)
    assert not backbone.average_prior
    averaging = load('tsm_ctx_resnet50_k400', pretrained=None, model__backbone__average_prior=True)
    assert build_model(averaging).backbone.average_prior


def test_every_parameter_of_the_full_size_network_learns(load):
    from mmaction.structures import ActionDataSample

    model = build_model(load('tsm_ctx_resnet50_k400', pretrained=None)).train()
    samples = [ActionDataSample().set_gt_label(399)]
    losses = model(torch.randn(1, 16, 3, 64, 64), samples, mode='loss')
    total, _ = model.parse_losses(losses)
    total.backward()
    assert total.isfinite()
    missing = [n for n, p in model.named_parameters() if p.requires_grad and p.grad is None]
    assert missing == []


@pytest.mark.parametrize('name', SIZES)
@pytest.mark.parametrize('root', ['/data/k400', '/data/k400/'])
def test_data_root_with_and_without_slash(name, root, load, monkeypatch):
    monkeypatch.setenv('K400_ROOT', root)
    cfg = load(name)
    for split in ('train', 'val', 'test'):
        dataset = cfg[f'{split}_dataloader'].dataset
        assert dataset.data_root == '/data/k400/'
        assert ('train' in dataset.ann_file) == (split == 'train')


def test_missing_weights_of_the_contextual_row(load):
    with pytest.raises(UserError, match=r'ctx_resnet50_in1k\.pth does not exist') as caught:
        pretrained_weights(load('tsm_ctx_resnet50_k400'), {})
    for way_out in ('pretrained=torchvision://resnet50', 'pretrained=None'):
        assert way_out in str(caught.value)


@pytest.mark.parametrize(
    ('name', 'address'),
    [
        ('tsm_resnet50_k400', 'torchvision://resnet50'),
        ('tsm_resnet101_k400', 'torchvision://resnet101'),
    ],
)
def test_vanilla_rows_start_from_torchvision(name, address, load):
    assert load(name).model.backbone.pretrained == address
    scratch = load(name, pretrained=None)
    assert not pretrained_weights(scratch, {})
    model = build_model(scratch)
    model.init_weights()
    assert model.backbone.layer1[0].conv1.conv.net.weight.any()


@pytest.mark.parametrize('name', ['tsm_resnet50_k400', 'tsm_ctx_resnet50_k400'])
def test_weights_named_on_the_command_line(name, load, tmp_path):
    from mmctx.checkpoints.fitting import check_fit

    path = str(tmp_path / 'resnet50.pth')
    state = torchvision.models.resnet50().state_dict()
    torch.save(state, path)
    cfg = load(name, pretrained=path)
    model = build_model(cfg)
    (weights,) = pretrained_weights(cfg, {})
    check_fit(model, weights)
    model.init_weights()
    loaded = {n.replace('.net.', '.'): v for n, v in model.backbone.state_dict().items()}
    for own in ('layer1.0.conv1', 'layer3.2.conv2', 'layer4.2.conv3'):
        (found,) = (loaded[n] for n in (f'{own}.weight', f'{own}.conv.weight') if n in loaded)
        assert torch.equal(found, state[f'{own}.weight']), own


def test_vanilla_row_refuses_names_that_it_would_pass_over(load, tmp_path):
    from mmctx.checkpoints.fitting import check_fit

    path = str(tmp_path / 'classifier.pth')
    torch.save({'state_dict': {'backbone.conv1.weight': torch.zeros(64, 3, 7, 7)}}, path)
    cfg = load('tsm_resnet50_k400', pretrained=path)
    (weights,) = pretrained_weights(cfg, {})
    with pytest.raises(UserError, match="not the names of torchvision's ResNet"):
        check_fit(build_model(cfg), weights)


def test_two_weights_of_a_vanilla_row(repo, tmp_path):
    config = tmp_path / 'two.py'
    config.write_text(f"_base_ = '{repo}/configs/tsm_resnet50_k400.py'\npretrained = 'other.pth'\n")
    with pytest.raises(
        UserError, match=r'model\.backbone\.pretrained loads torchvision://resnet50'
    ):
        load_config(str(config))
    options = {'model.backbone.pretrained': 'mine.pth'}
    assert load_config(str(config), options).model.backbone.pretrained == 'mine.pth'
