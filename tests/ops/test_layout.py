"""The layout in memory that maps have on a CPU."""

import pytest
import torch
from torch import nn

from mmctx import ContextualConvNeXt, ContextualResNet
from mmctx.models.layers import ContextualConv2d, contextual_conv, using_prior
from mmctx.ops.layout import channels_last_on_cpu


class Layout(nn.Module):
    def forward(self, x):
        return channels_last_on_cpu(x) + 1


def test_only_maps_on_a_cpu_change_and_none_that_is_exported():
    x = torch.randn(2, 3, 4, 5)
    assert torch.equal(channels_last_on_cpu(x), x)
    assert channels_last_on_cpu(x).is_contiguous(memory_format=torch.channels_last)
    elsewhere = torch.empty(2, 3, 4, 5, device='meta')
    assert channels_last_on_cpu(elsewhere) is elsewhere
    graph = torch.export.export(Layout(), (x,)).graph
    assert [node.target for node in graph.nodes if node.op == 'call_function'] == [
        torch.ops.aten.add.Tensor
    ]


def test_both_predictors_and_the_convolution_share_one_copy(monkeypatch):
    conv = ContextualConv2d(4, 6, 3, padding=1, prior_channels=2)
    given = []

    def predict(x, prior):
        given.append(x)
        return None, None, None

    def convolve(x, *args, **kwargs):
        given.append(x)

    monkeypatch.setattr(conv, 'predict_offsets', predict)
    monkeypatch.setattr(contextual_conv, 'contextual_conv2d', convolve)
    with using_prior(torch.randn(2, 2)):
        conv(torch.randn(2, 4, 7, 5))
    predicted, convolved = given
    assert predicted is convolved
    assert convolved.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize(
    'backbone', [ContextualConvNeXt(num_classes=40), ContextualResNet(num_classes=40)]
)
def test_a_network_does_not_change_its_layout(backbone):
    """Each convolution and norm gets and gives maps that are channels last."""
    layouts = {}

    def look(module, args, out):
        layouts[module] = all(t.is_contiguous(memory_format=torch.channels_last) for t in out)

    for name, module in backbone.named_modules():
        if isinstance(module, nn.Conv2d | nn.BatchNorm2d) and 'predictor' not in name:
            module.register_forward_hook(lambda module, args, out: look(module, args, [*args, out]))
    with torch.no_grad():
        backbone.eval()(torch.randn(2, 3, 64, 64))
    assert len(layouts) > 20
    assert all(layouts.values())
