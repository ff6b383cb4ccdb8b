"""Linear layers of pixels against matrix products in float64."""

import pytest
import torch
from torch import nn

from mmctx.ops.pointwise import linear_of_pixels


@pytest.mark.parametrize('shape', [(1, 5, 1, 1), (2, 7, 3, 4), (0, 7, 3, 4)])
@pytest.mark.parametrize('layout', [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize('dtype', [torch.float64, torch.float32, torch.bfloat16])
def test_agrees_with_a_matrix_product(shape, layout, dtype):
    x = torch.randn(shape).to(dtype, memory_format=layout).requires_grad_()
    # A slice, as the weights of some of a layer's channels are
    whole = torch.randn(6, 9 + shape[1], dtype=dtype, requires_grad=True)
    weight = whole[:, 9:]
    exact = [t.detach().double().requires_grad_() for t in (x, weight)]
    expected = torch.einsum('bchw,oc->bhwo', *exact)
    got = linear_of_pixels(x, weight)
    tolerance = {torch.float64: 1e-12, torch.float32: 1e-5, torch.bfloat16: 5e-2}[dtype]
    grad = torch.randn(expected.shape).double()
    by_got = torch.autograd.grad(got, (x, weight), grad.to(dtype))
    for a, b in zip((got, *by_got), (expected, *torch.autograd.grad(expected, exact, grad))):
        assert a.dtype == dtype
        torch.testing.assert_close(a.double(), b, rtol=tolerance, atol=tolerance)


def test_an_exporter_sees_a_linear_layer():
    class Layer(nn.Module):
        def forward(self, x, weight):
            return linear_of_pixels(x, weight)

    graph = torch.export.export(Layer(), (torch.randn(2, 4, 3, 5), torch.randn(6, 4))).graph
    assert torch.ops.aten.linear.default in [node.target for node in graph.nodes]
