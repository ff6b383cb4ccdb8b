"""The mean over pixels and its derivatives, against PyTorch's own mean."""

import pytest
import torch

from mmctx.ops.pooling import pooled


def plain(x, dtype):
    return x.mean((2, 3), dtype=dtype)


@pytest.mark.parametrize('of', [torch.float32, torch.float64])
@pytest.mark.parametrize('dtype', [torch.float16, torch.float32])
@pytest.mark.parametrize('channels_last', [False, True])
def test_mean_and_gradient_are_pytorchs(channels_last, dtype, of):
    x = torch.randn(2, 3, 5, 4).to(dtype)
    x = x.to(memory_format=torch.channels_last) if channels_last else x
    results = []
    cotangent = torch.randn(2, 3, dtype=of)
    for function in (pooled, plain):
        leaf = x.detach().requires_grad_()
        out = function(leaf, of)
        results.append((out, *torch.autograd.grad(out, leaf, cotangent)))
    for got, want in zip(*results, strict=True):
        assert got.dtype == want.dtype and torch.equal(got, want)


def test_gradient_is_not_written_out_for_each_pixel():
    x = torch.randn(2, 3, 5, 4, requires_grad=True)
    (grad,) = torch.autograd.grad(pooled(x, torch.float32).sum(), x)
    assert grad.stride()[2:] == (0, 0)


def test_has_second_and_forward_derivatives():
    x = torch.randn(2, 3, 4, 2, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x: pooled(x, torch.float64), x, check_forward_ad=True)
    assert torch.autograd.gradgradcheck(lambda x: pooled(x, torch.float64).square(), x)


def test_takes_part_in_function_transforms():
    x, cotangent = torch.randn(4, 2, 3, 4, 2), torch.randn(2, 3)
    results = [
        torch.func.vmap(torch.func.grad(lambda x, f=f: (f(x, x.dtype) * cotangent).sum()))(x)
        for f in (pooled, plain)
    ]
    torch.testing.assert_close(*results)
