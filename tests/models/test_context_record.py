"""What a network reports of its context, held to what its layers compute and to plain NumPy."""

import threading

import numpy as np
import pytest
import torch
import torch.nn as nn

from mmctx.errors import UserError
from mmctx.models.backbones import ContextualConvNeXt, ContextualResNet
from mmctx.models.context_record import (
    choose_convolution,
    contextual_convolutions,
    mean_shift,
    recalls,
    record_context,
    relative_weight_offset,
    sampling_positions,
)
from mmctx.models.contextualize import contextualize
from mmctx.models.layers import ContextualConv2d, using_prior
from mmctx.models.losses import StagewiseCrossEntropy

SMALL = dict(
    depth=18, stem_channels=8, base_channels=8, num_classes=12, considered=(8, 5, 3), embed_dims=8
)


def moved(network):
    """A network whose offsets are not zero."""
    for conv in contextual_convolutions(network).values():
        for predictor in (conv.sampling_offset_predictor, conv.weight_offset_predictor):
            if predictor is not None:
                nn.init.normal_(predictor[-1].weight, std=0.3)
    return network.eval()


def test_a_compiled_network_is_recorded_too():
    network = moved(ContextualResNet(**SMALL, out_type='logits'))
    images = torch.randn(1, 3, 32, 32)
    network.forward = torch.compile(network.forward, backend='eager')
    with torch.no_grad():
        network(images)
        with record_context(network) as record:
            network(images)
    assert list(record.stages) == [1, 2, 3, 4] and record.convolutions


@pytest.mark.parametrize('preset', ['paper', 'released'])
def test_record_is_what_the_network_computed(preset):
    network = moved(ContextualResNet(**SMALL, preset=preset, out_type='logits'))
    images = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        plain = network(images)
        with record_context(network) as record:
            logits = network(images)
    for one, other in zip(plain, logits):
        assert torch.equal(one, other)
    assert list(record.stages) == [1, 2, 3, 4]
    for seen, of_network in zip(record.stages.values(), logits):
        assert seen.logits is of_network
    numbers = [record.stages[stage].kept.sum(1).tolist() for stage in (1, 2, 3)]
    assert numbers == [[8, 8], [5, 5], [3, 3]] and record.stages[4].kept is None
    assert list(record.convolutions) == list(contextual_convolutions(network))
    for name, context in record.convolutions.items():
        conv = network.get_submodule(name)
        prior = record.stages[int(name[5]) - 1].prior
        offset, mask = conv.predict_sampling_offset(context.x, prior)
        torch.testing.assert_close(context.sampling_offset, offset)
        torch.testing.assert_close(
            context.weight_offset, conv.predict_weight_offset(context.x, prior)
        )
        if preset == 'paper':
            assert context.mask is None
        else:
            torch.testing.assert_close(context.mask, mask.sigmoid())


def test_stages_of_a_backbone_that_skips_the_first_ones_keep_their_numbers():
    network = ContextualResNet(**SMALL, contextual_stages=(4,)).eval()
    with torch.no_grad(), record_context(network) as record:
        network(torch.randn(1, 3, 64, 64))
    assert list(record.stages) == [3]


@pytest.mark.parametrize('offsets', [('sampling',), ('weight',)])
def test_offset_that_is_not_predicted_is_none(offsets):
    conv = ContextualConv2d(4, 4, 3, padding=1, prior_channels=2, offsets=offsets)
    with record_context(conv) as record, using_prior(torch.randn(1, 2)):
        conv(torch.randn(1, 4, 5, 5))
    (context,) = record.convolutions.values()
    assert (context.sampling_offset is None) == ('sampling' not in offsets)
    assert (context.weight_offset is None) == ('weight' not in offsets)


def test_any_contextualized_cnn_is_recorded():
    class Plain(nn.Module):
        def __init__(self):
            super().__init__()
            self.one = nn.Conv2d(3, 8, 3, 2, 1)
            self.two = nn.Conv2d(8, 8, 3, 2, 1)

        def forward(self, images):
            return self.two(self.one(images))

    network, images = Plain(), torch.randn(1, 3, 32, 32)
    contextualize(network, ['one', 'two'], num_classes=6, considered=(4,), example=images)
    with record_context(network.eval()) as record:
        network(images)
    assert list(record.stages) == [1] and record.stages[1].kept.sum() == 4
    assert list(record.convolutions) == ['two'] and choose_convolution(network) == 'two'
    with pytest.raises(UserError, match='name the layer instead of a stage: two'):
        choose_convolution(network, stage=2)


def test_only_the_network_asked_for_and_only_this_thread_are_recorded():
    network, other = (ContextualResNet(**SMALL).eval() for _ in range(2))
    first, second = torch.randn(2, 1, 3, 64, 64)
    with torch.no_grad(), record_context(network) as record:
        other(first)
        thread = threading.Thread(target=lambda: network(first))
        thread.start()
        thread.join()
        assert not record.stages and not record.convolutions
        with record_context(other) as inner:
            other(second)
        network(second)
        kept = record.stages[1]
        # A second call inside, such as that of a checkpoint, changes nothing.
        network(first)
    network(first)
    assert record.stages[1] is kept
    features = network.blocks_of(1)(network.enter_stage(second, 1))
    torch.testing.assert_close(kept.logits, network.contextualizing.classify(features, 0))
    assert inner.stages and list(inner.convolutions) == list(record.convolutions)


def test_gradients_of_a_checkpointed_block_survive_recording():
    network = moved(ContextualResNet(**SMALL, with_cp=True, out_type='logits'))
    images = torch.randn(2, 3, 64, 64, requires_grad=True)

    def gradient(recorded):
        network.zero_grad()
        if recorded:
            with record_context(network):
                network(images)[-1].logsumexp(1).sum().backward()
        else:
            network(images)[-1].logsumexp(1).sum().backward()
        return network.layer2[0].conv2.weight.grad.clone()

    torch.testing.assert_close(gradient(True), gradient(False))


@pytest.mark.parametrize('soft', [False, True])
def test_recall_is_counted_with_the_labels_that_the_loss_got(soft):
    class Classifier(nn.Module):
        def __init__(self):
            super().__init__()
            self.backbone = ContextualResNet(**SMALL, out_type='logits')
            self.loss = StagewiseCrossEntropy()

        def forward(self, images, target):
            return sum(self.loss(self.backbone(images), target))

    network = Classifier().eval()
    labels = torch.arange(6)
    target = nn.functional.one_hot(labels, 12).float() if soft else labels
    with torch.no_grad(), record_context(network) as record:
        network(torch.randn(6, 3, 64, 64), target)
    found = recalls(record)
    assert list(found) == [1, 2, 3]
    for stage, recall in found.items():
        kept = record.stages[stage].kept
        assert recall.item() == pytest.approx(np.mean([kept[i, i].item() for i in range(6)]))
    record.target = None
    assert recalls(record) == {}


def test_sizes_of_the_offsets_on_known_ones():
    offset = torch.tensor([1.0, -3.0]).repeat(9).view(1, 18, 1, 1).expand(2, 18, 4, 5)
    assert mean_shift(offset).item() == 2
    dense = torch.full((4, 3, 3, 3), 2.0)
    # Images whose Δw are a tenth of each kernel and none: the quadratic mean is 0.1 / √2.
    change = torch.stack([dense[:1] * 0.1, dense[:1] * 0])
    assert relative_weight_offset(change, dense).item() == pytest.approx(0.1 / 2**0.5)
    depthwise = torch.randn(5, 1, 7, 7)
    change = 0.25 * depthwise[None].expand(3, -1, -1, -1, -1)
    lengths = np.linalg.norm(depthwise.flatten(1).numpy(), axis=1)
    expected = 0.25 * np.sqrt(np.mean(lengths**2)) / np.mean(lengths)
    assert relative_weight_offset(change, depthwise).item() == pytest.approx(expected, rel=1e-6)


def test_convolution_of_a_stage_and_block():
    network = ContextualConvNeXt(
        arch=dict(depths=[1, 1, 4, 1], channels=[8, 8, 8, 8]), num_classes=12, considered=(8, 5, 3)
    )
    assert choose_convolution(network) == 'stages.3.0.depthwise_conv'
    assert choose_convolution(network, 3, 3) == 'stages.2.3.depthwise_conv'
    assert choose_convolution(network, layer='stages.1.0.depthwise_conv').startswith('stages.1')
    for wrong in (dict(stage=3, block=1), dict(stage=3, block=9), dict(layer='stages.0.0')):
        with pytest.raises(UserError, match=r'stages\.1\.0\.depthwise_conv, stages\.2\.0'):
            choose_convolution(network, **wrong)
    with pytest.raises(UserError, match='no contextual convolution'):
        choose_convolution(nn.Linear(2, 2))


def test_sampling_positions_are_those_of_a_convolution():
    """The gradient of one output of the op is where the points say that it samples."""
    conv = ContextualConv2d(
        1, 1, 3, stride=2, padding=2, dilation=2, prior_channels=1, offsets=('sampling',)
    )
    nn.init.ones_(conv.weight)
    shift = torch.randint(-1, 2, (18,)).float()
    with torch.no_grad():
        conv.sampling_offset_predictor[-1].bias.copy_(shift)
    x = torch.randn(1, 1, 15, 15, requires_grad=True)
    with record_context(conv) as record, using_prior(torch.zeros(1, 1)):
        y = conv(x)
    y[0, 0, 3, 4].backward()
    offset = record.convolutions[''].sampling_offset[0]
    regular, points = sampling_positions(conv, offset, 3, 4)
    assert regular[0].tolist() == [4, 6] and regular[-1].tolist() == [8, 10]
    expected = torch.zeros(15, 15)
    for row, column in points.long().tolist():
        expected[row, column] += 1
    torch.testing.assert_close(x.grad[0, 0], expected)
    assert torch.equal(sampling_positions(conv, None, 3, 4)[1], regular)
