"""Any CNN made contextual: equal to the vanilla network at first, trained, exported, refused."""

import copy
import io
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
import torch.nn as nn
import torchvision
from torchvision.models._utils import IntermediateLayerGetter

import mmctx
from mmctx.errors import UserError
from mmctx.models.layers import ContextualConv2d
from mmctx.models.losses import StagewiseCrossEntropy

RESNET = ['layer1', 'layer2', 'layer3', 'layer4']
FEW = dict(num_classes=12, embed_dims=16)


def features(*numbers):
    return [f'features.{number}' for number in numbers]


def of_mmpretrain(name, **options):
    from mmpretrain import models

    return getattr(models, name)(**options)


def of_timm(name, **options):
    timm = pytest.importorskip('timm')
    return timm.create_model(name, pretrained=False, num_classes=5, **options)


# The network, its stages, convolutions and how many of them become contextual.
NETWORKS = {
    'resnet18': (lambda: torchvision.models.resnet18(num_classes=5), RESNET, None, 6),
    'resnet50, conv2': (lambda: torchvision.models.resnet50(num_classes=5), RESNET, 'conv2', 7),
    'convnext': (
        lambda: torchvision.models.convnext_tiny(num_classes=5), features(1, 3, 5, 7), 'block.0', 9,
    ),
    'mobilenet_v3': (
        lambda: torchvision.models.mobilenet_v3_small(num_classes=5), features(1, 3, 8, 11),
        None, 3,
    ),
    'efficientnet_b0': (
        lambda: torchvision.models.efficientnet_b0(num_classes=5), features(2, 3, 5, 7), None, 4,
    ),
    'vgg11': (
        lambda: torchvision.models.vgg11(num_classes=5),
        ['features[0:6]', 'features[6:11]', 'features[11:16]', 'features[16:]'], None, 3,
    ),
    'mmpretrain ConvNeXt V2': (
        lambda: of_mmpretrain('ConvNeXt', arch='atto', use_grn=True, layer_scale_init_value=0.0),
        [f'stages.{i}' for i in range(4)], 'depthwise_conv', 5,
    ),
    'mmpretrain MobileNetV3': (
        lambda: of_mmpretrain('MobileNetV3', arch='small'),
        [f'layer{i}' for i in (1, 3, 8, 11)], 'depthwise_conv.conv', 3,
    ),
    'timm convnext_atto': (
        lambda: of_timm('convnext_atto'), [f'stages.{i}' for i in range(4)], 'conv_dw', 5,
    ),
    'timm resnet26': (lambda: of_timm('resnet26', zero_init_last=False), RESNET, 'conv2', 3),
    'timm efficientnet_b0': (
        lambda: of_timm('efficientnet_b0'), [f'blocks.{i}' for i in (1, 2, 4, 6)], 'conv_dw', 4,
    ),
}  # fmt: skip


def run(network, x):
    out = network(x)
    return out[-1] if isinstance(out, tuple) else out


def randomize(network):
    for layer in network.modules():
        if isinstance(layer, ContextualConv2d):
            for predictor in (layer.sampling_offset_predictor, layer.weight_offset_predictor):
                nn.init.normal_(predictor[-1].weight, std=0.05)
    return network


@pytest.mark.parametrize('name', NETWORKS)
def test_output_is_the_vanilla_networks_until_trained(name):
    build, stages, convolutions, expected = NETWORKS[name]
    network = build().double()
    network.eval()  # returns nothing in mmpretrain
    x = torch.randn(2, 3, 64, 64).double()
    before = run(network, x)
    names = set(network.state_dict())
    same = mmctx.contextualize(network, stages, convolutions, **FEW)
    assert same is network
    assert names <= set(network.state_dict())
    contextual = [m for m in network.modules() if isinstance(m, ContextualConv2d)]
    assert len(contextual) == expected
    scale = before.abs().max()
    assert scale > 0 and (run(network, x) - before).abs().max() < 1e-12 * scale
    randomize(network)
    assert (run(network, x) - before).abs().max() > 1e-9 * scale


def small(**options):
    torch.manual_seed(0)
    network = torchvision.models.resnet18(num_classes=5)
    return mmctx.contextualize(network, RESNET, **FEW, **options)


def test_considered_numbers():
    assert small().contextualizing.considered == (6, 2, 1)
    network = torchvision.models.resnet18(num_classes=5)
    mmctx.contextualize(network, RESNET[2:], num_classes=100)
    assert network.contextualizing.considered == (5,)


def test_trains_everything_but_what_no_loss_reaches():
    network = randomize(small())
    trainable = {n for n, p in network.named_parameters() if p.requires_grad}
    assert not any('classifying' in name or 'logit_scale' in name for name in trainable)
    network(torch.randn(2, 3, 64, 64)).square().sum().backward()
    without = {n for n, p in network.named_parameters() if p.requires_grad and p.grad is None}
    assert without == set()
    assert network.contextualizing.embeddings.weight.grad.any()


def test_stage_losses_teach_the_classifying_layers():
    network = randomize(small(stage_losses=True))
    optimizer = torch.optim.SGD(network.parameters(), 0.01)
    x, target = torch.randn(4, 3, 64, 64), torch.tensor([0, 1, 2, 3])
    stagewise = StagewiseCrossEntropy((0.15, 0.15, 0.15))
    losses = []
    for _ in range(4):
        with mmctx.collect_stage_logits(network) as logits:
            scores = network(x)
        assert [tuple(stage.shape) for stage in logits] == [(4, 12)] * 3
        assert [int((stage > -torch.inf).sum(1).max()) for stage in logits] == [12, 6, 2]
        loss = nn.functional.cross_entropy(scores, target) + sum(stagewise(logits, target))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss))
    assert losses[-1] < losses[0]
    assert network.contextualizing.logit_scale.grad is not None
    with mmctx.collect_stage_logits(network) as logits:
        pass
    assert logits == []


def test_copies_pickles_and_threads():
    network = randomize(small()).eval()
    images = [torch.randn(2, 3, 64, 64) for _ in range(3)]
    with torch.no_grad():
        alone = [network(x) for x in images]
        file = io.BytesIO()
        torch.save(network, file)
        file.seek(0)
        for other in (copy.deepcopy(network), torch.load(file, weights_only=False)):
            torch.testing.assert_close(other(images[0]), alone[0])
            # The hooks are those of the copy.
            nn.init.zeros_(other.contextualizing.merging[0]['joint'][0].weight)
            assert not torch.equal(other(images[0]), alone[0])
            assert torch.equal(network(images[0]), alone[0])

    def work(number):
        with torch.no_grad():
            return [network(images[number]) for _ in range(3)]

    with ThreadPoolExecutor(3) as pool:
        for results, expected in zip(pool.map(work, range(3)), alone):
            for result in results:
                torch.testing.assert_close(result, expected)


def test_compiles_as_one_graph():
    network = randomize(small()).eval()
    x = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        compiled = torch.compile(network, fullgraph=True, backend='aot_eager')
        torch.testing.assert_close(compiled(x), network(x), rtol=0, atol=0)


def test_from_a_config():
    from mmctx.registry import MODELS

    network = MODELS.build(
        dict(
            type='mmctx.Contextualized',
            network=dict(type='mmpretrain.ResNet', depth=18),
            stages=RESNET,
            **FEW,
        )
    )
    x = torch.randn(2, 3, 64, 64)
    network.init_weights()
    for layer in network.modules():
        if isinstance(layer, ContextualConv2d):
            assert not layer.sampling_offset_predictor[-1].weight.any()
    network.eval()
    assert network(x)[-1].shape == (2, 512, 2, 2)


REFUSALS = {
    'grouped': (
        torchvision.models.resnext50_32x4d, RESNET, {}, r'layer2\.0\.conv2 is grouped \(groups',
    ),
    'grouped in RegNet': (
        torchvision.models.regnet_y_400mf,
        [f'trunk_output.block{i}' for i in range(1, 5)], {}, r'is grouped',
    ),
    'no such stage': (torchvision.models.resnet18, ['layer1', 'layer9'], {}, 'layer9'),
    'one stage': (torchvision.models.resnet18, ['layer1'], {}, 'two modules or more'),
    'no such convolution': (
        torchvision.models.resnet18, RESNET, dict(convolutions='conv7'), "no convolution 'conv7'",
    ),
    'no convolution': (
        torchvision.models.resnet18, RESNET, dict(convolutions='bn1'), 'is a BatchNorm2d',
    ),
    'other order': (
        torchvision.models.resnet18, RESNET[::-1], {}, 'should run once each in their order',
    ),
    'no map': (
        torchvision.models.resnet18, ['layer1', 'layer4', 'fc'], {}, 'no convolution',
    ),
    'considered': (
        torchvision.models.resnet18, RESNET, dict(considered=(3, 6, 9)), 'considered',
    ),
    'sequential': (
        lambda: torchvision.models.vgg11().features, ['2', '5'], {}, 'is an nn.Sequential',
    ),
    'module list': (
        lambda: nn.ModuleList(torchvision.models.vgg11().features), ['2', '5'], {},
        'is an nn.ModuleList',
    ),
    # A ModuleDict with a call of its own, over its members.
    'module dict': (
        lambda: IntermediateLayerGetter(torchvision.models.resnet18(), dict(layer3='map')),
        ['layer1', 'layer2', 'layer3'], {}, 'is an nn.ModuleDict',
    ),
    'every': (torchvision.models.resnet18, RESNET, dict(every=0), 'every should be'),
    'five stages': (
        torchvision.models.resnet18, ['conv1', *RESNET], {}, 'state considered for 5 stages',
    ),
    'empty slice': (torchvision.models.vgg11, ['features[0:3]', 'features[90:]'], {}, 'is empty'),
}  # fmt: skip


@pytest.mark.parametrize('name', REFUSALS)
def test_refuses(name):
    build, stages, options, reason = REFUSALS[name]
    network = build()
    before = set(network.state_dict())
    with pytest.raises(UserError, match=reason):
        mmctx.contextualize(network, stages, **options)
    assert set(network.state_dict()) == before


def test_refuses_a_second_time_and_what_is_vanilla():
    with pytest.raises(UserError, match='contextual already'):
        mmctx.contextualize(small(), RESNET)
    with (
        pytest.raises(UserError, match='that `contextualize` has changed'),
        mmctx.collect_stage_logits(nn.Linear(1, 1)),
    ):
        pass


def test_padding_that_is_not_of_zeros_is_refused():
    network = torchvision.models.resnet18()
    network.layer2[0].conv1.padding_mode = 'reflect'
    with pytest.raises(UserError, match=r"layer2\.0\.conv1 pads by \(1, 1\), 'reflect'"):
        mmctx.contextualize(network, RESNET)
