"""Contextual ResNet: vanilla features at first, options of its base."""

import pytest
import torch
from mmpretrain.models import ResNet

from mmctx.models.backbones import ContextualResNet
from mmctx.models.layers import ContextualConv2d

NARROW = dict(stem_channels=16, base_channels=16)
SMALL = dict(num_classes=20, considered=(10, 6, 3), embed_dims=16, **NARROW)
MAPS = dict(out_indices=(0, 1, 2, 3))


def make(depth=50, **options):
    return ContextualResNet(depth, **{**SMALL, **MAPS, **options})


def randomize(model):
    for name, value in model.state_dict().items():
        if name.endswith('running_var'):
            value.uniform_(0.5, 1.5)
        elif value.is_floating_point() and value.ndim > 1:
            value.normal_(std=value[0].numel() ** -0.5)
        elif value.is_floating_point():
            value.normal_(mean=float(name.endswith('weight')), std=0.2)
    return model


def contextual_convs(model):
    return {n: m for n, m in model.named_modules() if isinstance(m, ContextualConv2d)}


VANILLA_OPTIONS = {
    '50': dict(depth=50),
    '34': dict(depth=34),
    'caffe': dict(depth=50, style='caffe'),
    'deep stem': dict(depth=50, deep_stem=True, avg_down=True),
    'dilated': dict(depth=50, strides=(1, 2, 2, 1), dilations=(1, 1, 1, 2)),
}


@pytest.mark.parametrize('options', VANILLA_OPTIONS.values(), ids=VANILLA_OPTIONS)
@pytest.mark.parametrize('size', [(64, 64), (33, 75)])
def test_vanilla_checkpoints_give_vanilla_features(options, size, tmp_path):
    vanilla = randomize(ResNet(**NARROW, **MAPS, **options))
    path = tmp_path / 'vanilla.pth'
    torch.save({'state_dict': {f'backbone.{k}': v for k, v in vanilla.state_dict().items()}}, path)
    contextual = make(**options, init_cfg=dict(type='Pretrained', checkpoint=str(path)))
    contextual.init_weights()
    vanilla.double().eval(), contextual.double().eval()
    x = torch.randn(2, 3, *size).double()
    for got, expected in zip(contextual(x), vanilla(x), strict=True):
        torch.testing.assert_close(got, expected)


def test_trained_predictors_bend_the_features():
    model = randomize(make()).eval()
    for layer in contextual_convs(model).values():
        layer.zero_predictors()
    x = torch.randn(2, 3, 64, 64)
    before = model(x)
    randomize(model.layer3[2].conv2.weight_offset_predictor)
    after = model(x)
    assert torch.equal(before[1], after[1])
    assert not torch.allclose(before[2], after[2], rtol=1e-2)


@pytest.mark.parametrize('norm', ['BN', 'LN'])
def test_initialization_leaves_the_predictors_at_zero(norm):
    model = make(norm=norm)
    randomize(model)
    model.init_weights()
    assert contextual_convs(model)
    for layer in contextual_convs(model).values():
        assert not layer.sampling_offset_predictor[-1].weight.any()
        assert not layer.weight_offset_predictor[-1].weight.any()
        assert layer.weight_offset_predictor[0].weight.any()
    assert not model.layer2[0].norm3.weight.any()


def test_pretrained_weights_survive_initialization(tmp_path):
    trained = randomize(make())
    path = tmp_path / 'contextual.pth'
    torch.save({'state_dict': trained.state_dict()}, path)
    loaded = make(init_cfg=dict(type='Pretrained', checkpoint=str(path)))
    loaded.init_weights()
    assert loaded.layer1[0].norm3.weight.any()
    for name, value in trained.state_dict().items():
        assert torch.equal(loaded.state_dict()[name], value), name


@pytest.mark.parametrize(
    ('every', 'blocks'),
    [
        (1, ['20', '21', '22', '23', '30', '31', '32', '33', '34', '35', '40', '41', '42']),
        (2, ['20', '22', '30', '32', '34', '40', '42']),
        (9, ['20', '30', '40']),
    ],
)
def test_every_chooses_the_blocks(every, blocks):
    names = contextual_convs(make(every=every))
    assert list(names) == [f'layer{b[0]}.{b[1]}.conv2' for b in blocks]


@pytest.mark.parametrize('preset', ['paper', 'released'])
@pytest.mark.parametrize('selection', ['reduce', 'rerank'])
def test_gradient_checkpointing_changes_nothing(preset, selection):
    plain = randomize(make(preset=preset, selection=selection, norm='LN'))
    saving = make(preset=preset, selection=selection, norm='LN', with_cp=True)
    saving.load_state_dict(plain.state_dict())
    x = torch.randn(2, 3, 48, 40)
    results = []
    for model in (plain, saving):
        model.double().train()
        # Recomputing would update batch norm's running statistics twice.
        for layer in model.modules():
            if isinstance(layer, torch.nn.BatchNorm2d):
                layer.eval()
        inputs = x.double().requires_grad_()
        sum(m.square().mean() for m in model(inputs)).backward()
        results.append({'x': inputs.grad, **{n: p.grad for n, p in model.named_parameters()}})
    for name, value in results[0].items():
        torch.testing.assert_close(results[1][name], value, msg=name)


@pytest.mark.parametrize('out_type', ['featmap', 'logits'])
@pytest.mark.parametrize('offsets', [('sampling', 'weight'), ('sampling',), ('weight',)])
def test_every_trainable_parameter_gets_a_gradient(out_type, offsets):
    """What DistributedDataParallel needs to run without find_unused_parameters."""
    model = randomize(make(out_type=out_type, out_indices=(3,), offsets=offsets))
    outputs = [map_.clamp(-9, 9) for map_ in model(torch.randn(2, 3, 64, 64))]
    sum(map_.square().sum() for map_ in outputs).backward()
    missing = [n for n, p in model.named_parameters() if p.requires_grad and p.grad is None]
    assert missing == []


def test_frozen_stages_stay_as_they_are():
    model = make(frozen_stages=2)
    model.train()
    assert model.training and not model.layer2.training and model.layer3.training
    for name, parameter in model.named_parameters():
        # Merging 0 and the embeddings feed the frozen stage 2; classifying and τ learn from no map.
        frozen = (
            'conv1.', 'bn1.', 'layer1.', 'layer2.', 'contextualizing.merging.0.',
            'contextualizing.embeddings.',
            'contextualizing.classifying.', 'contextualizing.logit_scale',
        )  # fmt: skip
        assert parameter.requires_grad != name.startswith(frozen), name


def test_frozen_batch_norm_keeps_its_statistics():
    model = randomize(make(frozen_stages=2))
    model.train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    model(torch.randn(2, 3, 64, 64))
    changed = {n for n, v in model.state_dict().items() if not torch.equal(v, before[n])}
    assert changed
    assert all(n.startswith(('layer3.', 'layer4.')) for n in changed), changed


def test_norm_eval_reaches_the_predictors():
    model = randomize(make(norm_eval=True))
    model.train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    model(torch.randn(2, 3, 64, 64))
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_one_image_trains_with_layer_norm_only():
    x = torch.randn(1, 3, 64, 64)
    model = make(norm='LN', norm_eval=True)
    model.train()
    model(x)[-1].sum().backward()
    assert model.layer4[2].conv2.weight_offset_predictor[-1].weight.grad.any()
    model = make(norm='BN')
    model.train()
    with pytest.raises(ValueError, match="pass norm='LN'"):
        model(x)
    assert len(model.eval()(x)) == 4


@pytest.mark.parametrize('depth', [18, 34, 101])
def test_other_depths_narrow_the_classes_too(depth):
    model = make(depth, out_type='logits')
    logits = model(torch.randn(2, 3, 32, 32))
    assert [(t > -torch.inf).sum(1).tolist() for t in logits] == [[n, n] for n in (20, 10, 6, 3)]
    assert make(depth).feat_dim == (512 if depth > 34 else 128)


@pytest.mark.parametrize(
    ('change', 'message'),
    [
        (dict(depth=51), 'depth should be one of'),
        (dict(preset='author'), 'preset'),
        (dict(out_type='scores'), 'out_type'),
        (dict(every=0), 'every'),
        (dict(num_stages=3), 'four stages'),
        (dict(norm='GN'), 'norm'),
        (dict(offsets=()), 'offsets'),
        (dict(offsets=('sampling', 'colour')), 'offsets'),
        (dict(considered=(30, 6, 3)), '30 classes cannot be kept of 20'),
        (dict(selection='sort'), 'selection'),
    ],
)
def test_wrong_arguments_are_named(change, message):
    with pytest.raises(ValueError, match=message):
        make(**change)


def test_refuses_images_smaller_than_the_stride():
    with pytest.raises(ValueError, match='31×64 pixels are smaller than the stride 32'):
        make()(torch.zeros(2, 3, 31, 64))
