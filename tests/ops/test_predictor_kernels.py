"""The predictors' kernels against PyTorch in float64, in every way (`conftest`)."""

from copy import deepcopy

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode

from mmctx.ops.contextualizing import (
    train_batch_norm_step,
    trains_batch_norm_in_kernels,
    unit_vectors,
)
from mmctx.ops.predicting import conv2d_in_float32, norm_relu, runs_kernels
from mmctx.ops.triton.predictor_operators import (
    norm_relu_backward_operator,
    static_conv_backward_operator,
    static_conv_operator,
)

pytest.importorskip('triton')
pytestmark = pytest.mark.usefixtures('way', 'through_kernels')
DEVICE = 'cuda' if torch.cuda.is_available() else 'cpu'
TOLERANCES = {torch.float32: 1e-5, torch.float16: 2e-3, torch.bfloat16: 2e-2}
# channels, out channels, groups, height, width, kernel, stride, padding, dilation
CONVOLUTIONS = {
    'depthwise 7×7': (98, 98, 98, 5, 2, (7, 7), (1, 1), (3, 3), (1, 1)),
    'depthwise of odd channels': (147, 147, 147, 3, 6, (3, 3), (1, 1), (1, 1), (1, 1)),
    'depthwise with strides': (6, 6, 6, 9, 8, (5, 3), (3, 2), (2, 0), (1, 2)),
    'depthwise, one pixel': (3, 3, 3, 1, 1, (3, 3), (1, 1), (1, 1), (1, 1)),
    'dense 3×3': (32, 18, 1, 6, 5, (3, 3), (1, 1), (1, 1), (1, 1)),
    'dense with strides': (130, 27, 1, 9, 8, (3, 3), (2, 2), (1, 1), (1, 1)),
    'dense with dilation': (4, 27, 1, 7, 6, (3, 3), (1, 2), (2, 1), (2, 3)),
    'dense 5×5': (12, 75, 1, 4, 3, (5, 5), (1, 1), (2, 2), (1, 1)),
    'dense of one channel': (1, 2, 1, 4, 3, (3, 3), (1, 1), (1, 1), (1, 1)),
}


@pytest.fixture
def through_kernels(through_kernels, monkeypatch):
    """Without TF32 beside them."""
    monkeypatch.setattr(torch.backends.cudnn, 'allow_tf32', False)


def with_gradients(function, *tensors, dtype=None):
    """Output and gradients, of leaves cast to a type, under a cotangent that is always the same."""
    leaves = [t if t is None else t.detach().to(dtype or t.dtype).requires_grad_() for t in tensors]
    out = function(*leaves)
    cotangent = torch.linspace(-1, 2, out.numel(), device=out.device).view(out.shape)
    grads = torch.autograd.grad(
        out, [leaf for leaf in leaves if leaf is not None], cotangent.to(out.dtype)
    )
    return [out.detach(), *grads]


def assert_near(got, expected, dtype):
    for value, exact in zip(got, expected, strict=True):
        assert value.shape == exact.shape
        # Sums of many terms are as precise as their largest ones.
        scale = exact.abs().max().clamp(min=1e-6)
        error = (value.double() - exact).abs().max() / scale
        assert error <= TOLERANCES[dtype], f'{error:.1e} of {tuple(exact.shape)}'


@pytest.mark.parametrize('dtype', TOLERANCES)
@pytest.mark.parametrize(('batch', 'pixels', 'channels'), [
    (1, 1, 1), (3, 49, 98), (1, 65, 147), (2, 130, 6), (2, 70, 12), (2, 5, 64),
])  # fmt: skip
def test_norm_relu_agrees_with_pytorch(batch, pixels, channels, dtype):
    rows = torch.randn(batch, pixels, 1, channels, device=DEVICE).to(dtype)
    shares = torch.randn(batch, channels, device=DEVICE) * 2
    scale, shift = torch.randn(2, channels, device=DEVICE)

    def exact(rows, shares, scale, shift):
        x = rows + shares[:, None, None]
        return F.relu(F.layer_norm(x, (channels,), scale, shift, 1e-6))

    if channels == 1:
        shift = shift.abs() + 1  # nothing varies over one channel
    tensors = rows, shares, scale, shift
    got = with_gradients(lambda *t: norm_relu(*t, 1e-6), *tensors)
    expected = with_gradients(exact, *tensors, dtype=torch.float64)
    assert [t.dtype for t in got[:2]] == [dtype, dtype]
    assert_near(got, expected, dtype)


def test_norm_relu_lets_nan_through():
    rows = torch.full((1, 2, 1, 3), torch.nan, device=DEVICE)
    ones = rows.new_ones(3)
    assert norm_relu(rows, ones[None], ones, ones, 1e-6).isnan().all()


@pytest.mark.parametrize(('dtype', 'batch', 'biased'), [
    (torch.float32, 1, True), (torch.float32, 3, False), (torch.float16, 3, True),
    (torch.bfloat16, 1, False),
])  # fmt: skip
@pytest.mark.parametrize('name', CONVOLUTIONS)
def test_convolution_agrees_with_pytorch(name, batch, biased, dtype):
    channels, out_channels, groups, *size, kernel, stride, padding, dilation = CONVOLUTIONS[name]
    x = torch.randn(batch, channels, *size, device=DEVICE).to(dtype)
    # Representable in the map's type, to which dense kernels are rounded.
    weight = torch.randn(out_channels, channels // groups, *kernel, device=DEVICE).to(dtype).float()
    bias = torch.randn(out_channels, device=DEVICE) if biased else None
    geometry = stride, padding, dilation
    got = with_gradients(lambda *t: conv2d_in_float32(*t, *geometry, groups), x, weight, bias)
    expected = with_gradients(
        lambda *t: F.conv2d(*t, *geometry, groups), x, weight, bias, dtype=torch.float64
    )
    assert [t.dtype for t in got[:3]] == [torch.float32, dtype, torch.float32]
    assert got[0].is_contiguous(memory_format=torch.channels_last)
    assert_near(got[:1], expected[:1], torch.float32)
    assert_near(got, expected, dtype)


@pytest.mark.parametrize('groups', [1, 4])
def test_an_empty_batch_has_empty_results_and_zero_gradients(groups):
    x = torch.zeros(0, 4, 5, 6, device=DEVICE)
    weight, bias = torch.ones(4, 4 // groups, 3, 3, device=DEVICE), torch.ones(4, device=DEVICE)
    out, *grads = with_gradients(
        lambda *t: conv2d_in_float32(*t, (1, 1), (1, 1), (1, 1), groups), x, weight, bias
    )
    assert out.shape == (0, 4, 5, 6)
    assert not any(grad.any() for grad in grads)
    out, *grads = with_gradients(
        lambda *t: norm_relu(*t, 1e-6), x.permute(0, 2, 3, 1), x[..., 0, 0], bias, bias
    )
    assert out.shape == (0, 5, 6, 4)
    assert not any(grad.any() for grad in grads)


@pytest.mark.parametrize('groups', [1, 4])
def test_compiles_without_a_graph_break(groups):
    def steps(x, shares, scale, shift, weight, bias):
        hidden = norm_relu(x, shares, scale, shift, 1e-6).permute(0, 3, 1, 2)
        return conv2d_in_float32(hidden, weight, bias, (1, 1), (1, 1), (1, 1), groups)

    compiled = torch.compile(steps, backend='aot_eager', fullgraph=True)
    for size in (3, 5):
        tensors = [
            torch.randn(shape, device=DEVICE)
            for shape in [(2, size, 4, 4), (2, 4), (4,), (4,), (4, 4 // groups, 3, 3), (4,)]
        ]
        for got, want in zip(with_gradients(compiled, *tensors), with_gradients(steps, *tensors)):
            torch.testing.assert_close(got, want)


def layouts(tensors):
    # What the stride of a single element is, makes no difference.
    strides = [[s for s, n in zip(t.stride(), t.shape) if n > 1] for t in tensors]
    return [(t.shape, t.dtype, of) for t, of in zip(tensors, strides)]


@pytest.mark.parametrize('dtype', [torch.float32, torch.float16])
@pytest.mark.parametrize('name', ['depthwise 7×7', 'dense with strides', 'dense of one channel'])
def test_compiled_code_is_told_the_layout_of_gradients(name, dtype):
    channels, out_channels, groups, height, width, kernel, *geometry = CONVOLUTIONS[name]
    rows = torch.randn(2, height, width, channels, device=DEVICE).to(dtype)
    weight = torch.randn(out_channels, channels // groups, *kernel, device=DEVICE)
    out = static_conv_operator(rows, weight, weight[:, 0, 0, 0].contiguous(), *geometry)
    real = static_conv_backward_operator(torch.ones_like(out), rows, weight, *geometry)
    with FakeTensorMode() as mode:
        grad, *inputs = map(mode.from_tensor, (out, rows, weight))
        assumed = static_conv_backward_operator(grad, *inputs, *geometry)
    assert layouts(real) == layouts(assumed)


@pytest.mark.parametrize('dtype', [torch.float32, torch.float16])
def test_compiled_code_is_told_the_layout_of_norm_gradients(dtype):
    rows, shares = torch.randn(2, 6, 8, device=DEVICE).to(dtype), torch.randn(2, 8, device=DEVICE)
    arguments = rows, rows, shares, *torch.randn(2, 8, device=DEVICE)
    real = norm_relu_backward_operator(*arguments, 1e-6)
    with FakeTensorMode() as mode:
        assumed = norm_relu_backward_operator(*map(mode.from_tensor, arguments), 1e-6)
    assert layouts(real) == layouts(assumed)


def test_no_kernels_run_if_a_tracer_or_counter_must_see_operators():
    from torch.utils.flop_counter import FlopCounterMode

    x = torch.randn(2, 3, 4, 4, device=DEVICE)
    assert runs_kernels(x)
    assert not runs_kernels(x.double())
    with FlopCounterMode(display=False) as counter:
        conv2d_in_float32(x, x.new_ones(5, 3, 3, 3), None, (1, 1), (1, 1), (1, 1), 1)
    assert counter.get_total_flops() == 2 * x[:, 0].numel() * 5 * 27


@pytest.mark.parametrize('fixed_statistics', [False, True])
@pytest.mark.parametrize((
    'dtype', 'batch', 'size', 'channels', 'prior_channels', 'hidden_channels'
), [
    (torch.float32, 1, (1, 1), 1, 1, 2), (torch.float32, 1, (33, 34), 6, 0, 12),
    (torch.bfloat16, 2, (9, 8), 70, 5, 98), (torch.float16, 3, (5, 5), 64, 130, 147),
    (torch.float16, 1, (3, 4), 300, 270, 18),
])  # fmt: skip
def test_hidden_maps_and_vectors_agree_with_pytorch(
    dtype, batch, size, channels, prior_channels, hidden_channels, fixed_statistics
):
    from mmctx.ops.triton.hidden_layers import HiddenRows, HiddenVectors
    from mmctx.ops.triton.layer_problem import NormKind
    from mmctx.ops.triton.static_conv import taps_first

    rows = torch.randn(batch, *size, channels, device=DEVICE).to(dtype)
    prior = torch.randn(batch, prior_channels, device=DEVICE)
    weight = torch.randn(hidden_channels, prior_channels + channels, 1, 1, device=DEVICE)
    bias, scale, shift, mean = torch.randn(4, hidden_channels, device=DEVICE)
    variance = torch.rand(hidden_channels, device=DEVICE) + 0.5
    if not fixed_statistics:
        mean = variance = None

    def exact(*parts):
        x = torch.cat([part.double() for part in parts], -1)
        x = F.linear(x, weight.flatten(1).to(x), bias.to(x))
        if fixed_statistics:
            x = (x - mean) / (variance + 1e-5).double().sqrt()
        else:
            x = F.layer_norm(x, (hidden_channels,), eps=1e-5)
        return F.relu(x * scale + shift)

    norm = scale, shift, mean, variance
    last = torch.randn(4, hidden_channels, 2, 3, device=DEVICE)
    arguments = prior_channels, hidden_channels, last.shape, last.stride(), torch.float32, 1e-5
    run = HiddenRows(rows.shape, dtype, *arguments, tf32=False, keeps=True, pools=True)
    hidden, reduced, shares, parts, sums, taps, turned = run(
        0, rows, prior, weight, bias, last, norm
    )
    assert parts is None and reduced.dtype == dtype
    assert torch.equal(taps, taps_first(last, torch.float32).view(taps.shape))
    assert torch.equal(turned, taps.transpose(1, 2))
    of_prior = weight.flatten(1)[:, :prior_channels]
    assert_near(
        [shares], [F.linear(prior.double(), of_prior.double(), bias.double())], torch.float32
    )
    assert hidden.dtype == dtype
    # The kernel multiplies in the type of the rows.
    weight_before = weight
    weight = torch.cat(
        [weight[:, :prior_channels], weight[:, prior_channels:].to(dtype).to(weight)], 1
    )
    at_each_pixel = prior[:, None, None].expand(-1, *size, -1)
    assert_near([hidden], [exact(at_each_pixel, rows)], dtype)
    weight = weight_before
    kind = NormKind('fixed' if fixed_statistics else 'layer', 1e-5)
    run = HiddenVectors(
        sums.shape, size[0] * size[1], prior_channels, hidden_channels, kind, keeps=True
    )
    vectors, before, inputs = run(0, prior, sums, weight.flatten(1), bias, norm)
    mean_rows = rows.double().mean((1, 2))
    assert_near([vectors], [exact(prior, mean_rows)], torch.float32)
    together = torch.cat([prior.double(), mean_rows], 1)
    assert_near([inputs], [together], torch.float32)
    assert_near([before], [F.linear(together, weight.flatten(1).double())], torch.float32)


@pytest.mark.parametrize('dtype', TOLERANCES)
@pytest.mark.parametrize(('batch', 'size', 'channels'), [(1, (2, 3), 3), (3, (9, 8), 20)])
def test_batch_norm_of_rows_trains_like_pytorch(batch, size, channels, dtype):
    """Statistics from those of tiles, the norm itself, its gradients and running statistics."""
    from mmctx.ops.triton.batch_statistics import BatchStatistics
    from mmctx.ops.triton.hidden_layers import HiddenRows
    from mmctx.ops.triton.norm_relu import NormRelu

    pixels = size[0] * size[1]
    x = (torch.randn(batch, *size, 5, device=DEVICE) + 3).to(dtype)
    prior = torch.randn(batch, 4, device=DEVICE)
    weight, bias = (
        torch.randn(channels, 9, 1, 1, device=DEVICE),
        torch.randn(channels, device=DEVICE),
    )
    weight = weight.to(dtype).float()
    reference = nn.BatchNorm2d(channels, eps=1e-3, momentum=0.3).double()
    for parameter in reference.parameters():
        nn.init.normal_(parameter)
    reference.to(DEVICE)
    scale, shift = (parameter.detach().float() for parameter in reference.parameters())
    mean, variance, batches = (buffer.clone() for buffer in reference.buffers())
    running = mean.float(), variance.float(), batches
    rows = HiddenRows(
        x.shape,
        dtype,
        4,
        channels,
        (2, channels, 1, 1),
        (channels, 1, 1, 1),
        dtype,
        1e-3,
        False,
        True,
        False,
    )
    last = torch.zeros(2, channels, 1, 1, device=DEVICE)
    hidden, reduced, shares, parts, *_ = rows(0, x, prior, weight, bias, last, None)
    assert hidden is None
    statistics = BatchStatistics(parts.shape, pixels, rows.tile, 0.3)(0, parts, running)
    run = NormRelu((batch, pixels, channels), 1e-3, batch_norm=True)
    norm = scale, shift, *statistics.unbind()
    out = run(0, reduced, shares, norm)
    exact_rows, exact_shares = reduced.double().requires_grad_(), shares.double().requires_grad_()
    normed = reference((exact_rows + exact_shares[:, None, None]).permute(0, 3, 1, 2))
    normed = normed.permute(0, 2, 3, 1)
    exact = F.relu(normed)
    # The statistics are of rows before they are rounded, so a value near 0 may change its sign.
    grad = torch.linspace(-1, 2, out.numel(), device=DEVICE).view(out.shape).to(dtype)
    grad = grad.masked_fill(normed.abs() < 10 * TOLERANCES[dtype], 0)
    grad_rows, grad_shares, totals = run.gradients(0, grad, reduced, shares, norm)
    leaves = [exact_rows, exact_shares, *reference.parameters()]
    want = torch.autograd.grad(exact, leaves, grad.double())
    got = out, grad_rows, grad_shares, totals[1], totals[2]
    for value, of in zip(got, (exact, *want), strict=True):
        error = (value.double() - of).norm() / of.norm().clamp(min=1)
        assert error < TOLERANCES[dtype] * 3, f'{error:.1e} of {tuple(of.shape)}'
    torch.testing.assert_close(totals[0], grad_shares.sum(0), rtol=1e-3, atol=1e-3)
    for got, of in zip(running, reference.buffers(), strict=True):
        tolerance = 5 * TOLERANCES[dtype]
        torch.testing.assert_close(got.double(), of.double(), rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize('log_length', [None, 2.5])
@pytest.mark.parametrize(('count', 'length'), [(1, 1), (3, 256), (40, 65), (0, 4)])
def test_vectors_get_one_length(count, length, log_length):
    vectors = torch.randn(count, length, device=DEVICE) * 3
    vectors[1:2] = 0
    scale = None if log_length is None else torch.tensor(log_length, device=DEVICE)

    def exact(vectors, scale):
        out = F.normalize(vectors, dim=1, eps=1e-12)
        return out if scale is None else out * scale.exp()

    got = with_gradients(unit_vectors, vectors, scale)
    expected = with_gradients(exact, vectors, scale, dtype=torch.float64)
    for part in got, expected:
        assert torch.isfinite(torch.cat([t.flatten() for t in part])).all()
        # Where a vector is zero, PyTorch divides the gradient by its epsilon as well.
        part[1][1:2] *= 1e-12
    if count:
        assert_near(got, expected, torch.float32)


@pytest.mark.parametrize('dtype', [torch.float32, torch.float16])
@pytest.mark.parametrize(('count', 'inner', 'channels'), [(2, 3, 1), (5, 4, 17), (300, 6, 33)])
def test_batch_norm_step_agrees_with_pytorch(count, inner, channels, dtype):
    torch.manual_seed(0)
    norm = nn.BatchNorm1d(channels, momentum=0.3, eps=1e-3)
    for tensor in (norm.weight, norm.bias, norm.running_mean):
        nn.init.normal_(tensor)
    norm = norm.to(DEVICE, dtype)
    reference = deepcopy(norm).double()
    x, weight = (
        torch.randn(count, inner, device=DEVICE),
        torch.randn(channels, inner, device=DEVICE),
    )
    tensors = [t.to(dtype) for t in (x + 2, weight, weight[:, 0].contiguous())]
    assert trains_batch_norm_in_kernels(tensors[0], norm)

    def ours(x, weight, bias, *_):
        return train_batch_norm_step(x, weight, bias, norm)

    def exact(x, weight, bias, *_):
        return F.relu(reference(F.linear(x, weight, bias)))

    results = []
    for function, module, of in ((ours, norm, dtype), (exact, reference, torch.float64)):
        leaves = [t.to(of).requires_grad_() for t in tensors]
        out = function(*leaves)
        cotangent = torch.linspace(-1, 2, out.numel(), device=DEVICE).view(out.shape).to(of)
        leaves += [module.weight, module.bias]
        grads = torch.autograd.grad(out, leaves, cotangent)
        assert grads[2].abs().max() < 0.1  # rounding alone
        results.append([out.detach(), *grads[:2], *grads[3:], *module.buffers()])
    # Half precision rounds the product before the norm, too.
    assert results[0][-1] == results[1][-1] == 1
    for got, want in zip(*results, strict=True):
        scale = want.double().abs().max().clamp(min=1)
        error = (got.double() - want).abs().max() / scale
        assert error < {torch.float32: 2e-5, torch.float16: 1e-2}[dtype], f'{error:.1e}'


@pytest.mark.parametrize('norm', [
    nn.SyncBatchNorm(3), nn.BatchNorm1d(3, momentum=None), nn.BatchNorm1d(3).eval(),
    nn.BatchNorm1d(3, affine=False), nn.BatchNorm1d(3, track_running_stats=False),
    nn.LayerNorm(3),
])  # fmt: skip
def test_other_norms_train_as_modules(norm):
    x = torch.randn(2, 3, device=DEVICE)
    assert trains_batch_norm_in_kernels(x, nn.BatchNorm1d(3).to(DEVICE))
    assert not trains_batch_norm_in_kernels(x, norm.to(DEVICE))


def test_batch_norm_step_stays_in_float32_under_autocast():
    """Forwards, and backwards where that is called inside of the context, too."""
    norm = nn.BatchNorm1d(3).to(DEVICE)
    tensors = torch.randn(5, 4, device=DEVICE), torch.randn(3, 4, device=DEVICE), norm.bias
    results = []
    for enabled in (False, True):
        with torch.autocast(DEVICE, torch.bfloat16, enabled=enabled):
            results.append(with_gradients(lambda *t: train_batch_norm_step(*t, norm), *tensors))
    for got, want in zip(*results, strict=True):
        assert got.dtype == torch.float32 and torch.equal(got, want)
