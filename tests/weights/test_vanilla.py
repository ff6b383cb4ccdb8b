"""Vanilla networks of other code bases: their features, from their own checkpoints."""

import pytest
import torch
from torchvision.models import ConvNeXt, ResNet, convnext_tiny, resnet18, resnet50
from torchvision.models.convnext import CNBlockConfig
from torchvision.models.resnet import BasicBlock, Bottleneck

from mmctx.models.backbones import ContextualConvNeXt, ContextualResNet
from mmctx.weights import backbone_config, convert_vanilla

CHANNELS, DEPTHS = (8, 16, 24, 32), (2, 3, 4, 1)
SMALL = dict(num_classes=20, considered=(10, 6, 3), embed_dims=16)
ALL_MAPS = dict(out_indices=(0, 1, 2, 3))


def randomize(model):
    for name, value in model.state_dict().items():
        if name.endswith('running_var'):
            value.uniform_(0.5, 1.5)
        elif value.is_floating_point():
            value.normal_(std=0.3)
            value += float(name.endswith(('bn1.weight', 'bn2.weight', 'bn3.weight')))
    return model.eval()


def torchvision_convnext():
    """The network, its maps after each stage, and the last map's mean, normalised."""
    settings = [
        CNBlockConfig(channels, after, depth)
        for channels, after, depth in zip(CHANNELS, (*CHANNELS[1:], None), DEPTHS)
    ]
    network = randomize(ConvNeXt(settings, num_classes=7))

    def features(x):
        maps = []
        for i, layer in enumerate(network.features):
            x = layer(x)
            if i % 2:
                maps.append(x)
        return maps, network.classifier[0](network.avgpool(x)).flatten(1)

    return network, features


def as_timm(state):
    """Torchvision's ConvNeXt state under the names, and with the shapes, of timm's."""
    renamed = {}
    layers = dict(zip('0235', ('conv_dw', 'norm', 'mlp.fc1', 'mlp.fc2')))
    for name, value in state.items():
        part, *rest = name.split('.')
        if part == 'classifier':
            own = {'0': 'head.norm', '2': 'head.fc'}[rest[0]]
            renamed[f'{own}.{rest[1]}'] = value
            continue
        stage = int(rest[0]) // 2
        if rest[0] == '0':
            own = f'stem.{rest[1]}.{rest[2]}'
        elif int(rest[0]) % 2 == 0:
            own = f'stages.{stage}.downsample.{rest[1]}.{rest[2]}'
        elif rest[2] == 'layer_scale':
            own, value = f'stages.{stage}.blocks.{rest[1]}.gamma', value.flatten()
        else:
            own = f'stages.{stage}.blocks.{rest[1]}.{layers[rest[3]]}.{rest[4]}'
        renamed[own] = value
    return renamed


def as_timm_with_convolutions(state):
    renamed = as_timm(state)
    return {
        n: v[..., None, None] if '.mlp.fc' in n and v.ndim == 2 else v for n, v in renamed.items()
    }


LAYOUTS = {
    'torchvision': lambda state: state,
    'timm': as_timm,
    'timm, conv_mlp': as_timm_with_convolutions,
    'in model': lambda state: dict(model=as_timm(state), epoch=3),
}


@pytest.mark.parametrize('layout', LAYOUTS)
def test_convnext_features(layout, tmp_path):
    network, features = torchvision_convnext()
    path = tmp_path / 'vanilla.pth'
    torch.save(LAYOUTS[layout](network.state_dict()), path)
    maps, pooled = features(x := torch.randn(2, 3, 75, 64))
    options = dict(
        arch=dict(depths=DEPTHS, channels=CHANNELS),
        init_cfg=dict(type='Pretrained', checkpoint=str(path)),
        **SMALL,
    )
    contextual = ContextualConvNeXt(**options)
    contextual.init_weights()
    (got,) = contextual.eval()(x)
    torch.testing.assert_close(got, pooled, rtol=1e-4, atol=1e-4)

    contextual = ContextualConvNeXt(**options, gap_before_final_norm=False, **ALL_MAPS)
    contextual.init_weights()
    for stage in range(3):  # Norms of intermediate maps are the detector's own.
        setattr(contextual, f'norm{stage}', torch.nn.Identity())
    for got, expected in zip(contextual.eval()(x)[:3], maps):
        torch.testing.assert_close(got, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize('prefix', ['', 'backbone.'])
@pytest.mark.parametrize('depth', [18, 50])
def test_resnet_features(depth, prefix, tmp_path):
    if depth == 18:
        network, narrow = ResNet(BasicBlock, [2, 2, 2, 2]), {}
    else:
        network = ResNet(Bottleneck, [3, 4, 6, 3], width_per_group=8)
        narrow = dict(base_channels=8, expansion=32)
    randomize(network)
    path = tmp_path / 'vanilla.pth'
    torch.save({prefix + name: value for name, value in network.state_dict().items()}, path)
    contextual = ContextualResNet(
        depth,
        init_cfg=dict(type='Pretrained', checkpoint=str(path)),
        **narrow,
        **SMALL,
        **ALL_MAPS,
    )
    contextual.init_weights()
    x = torch.randn(2, 3, 75, 64)
    maps = contextual.eval()(x)
    x = network.maxpool(network.bn1(network.conv1(x)).relu())
    for i, got in enumerate(maps, 1):
        x = getattr(network, f'layer{i}')(x)
        torch.testing.assert_close(got, x, rtol=1e-4, atol=1e-4 * x.std().item())


@pytest.mark.parametrize(
    ('network', 'config'),
    [
        (convnext_tiny, dict(type='mmctx.ContextualConvNeXt', arch='tiny')),
        (resnet18, dict(type='mmctx.ContextualResNet', depth=18)),
        (resnet50, dict(type='mmctx.ContextualResNet', depth=50)),
    ],
)
def test_config_of_published_sizes(network, config):
    with torch.device('meta'):
        vanilla = network().state_dict()
    state, title = convert_vanilla(vanilla)
    assert backbone_config(state) == config
    assert 'torchvision' in title
    assert len(state) == len(vanilla) - 2  # the classifier's weight and bias
    assert {v.ndim for n, v in state.items() if n.endswith('gamma')} <= {1}


def test_converting_again_changes_nothing():
    state, _ = convert_vanilla(torchvision_convnext()[0].state_dict())
    again, title = convert_vanilla(state)
    assert 'mmpretrain' in title
    assert again.keys() == state.keys()
    assert all(again[name] is value for name, value in state.items())


def test_facebookresearch_names():
    given = {
        'downsample_layers.1.0.weight': 'downsample_layers.1.0.weight',
        'stages.0.0.dwconv.weight': 'stages.0.0.depthwise_conv.weight',
        'stages.2.10.pwconv2.bias': 'stages.2.10.pointwise_conv2.bias',
        'stages.3.0.gamma': 'stages.3.0.gamma',
        'norm.weight': 'norm3.weight',
    }
    state = {name: torch.zeros(1) for name in (*given, 'head.weight')}
    converted, title = convert_vanilla(state)
    assert list(converted) == [f'backbone.{name}' for name in given.values()]
    assert 'facebookresearch' in title


@pytest.mark.parametrize(
    'name',
    [
        'layers.0.blocks.0.attn.qkv.weight',
        'stages.0.0.dwconv.conv.weight',  # the released contextual code
        'layer1.0.conv2.conv.weight',
    ],
)
def test_states_of_other_networks_are_refused(name):
    with pytest.raises(ValueError, match='not a vanilla ConvNeXt or ResNet'):
        convert_vanilla({name: torch.zeros(1)})


def test_resnets_of_other_depths_are_refused():
    state = {
        f'layer{stage}.{block}.conv2.weight': torch.zeros(1)
        for stage in (1, 2, 3, 4)
        for block in range(2 * stage)
    }
    with pytest.raises(ValueError, match=r'\(2, 4, 6, 8\) blocks'):
        backbone_config(convert_vanilla(state)[0])
