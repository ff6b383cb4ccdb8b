"""The contextual layers through the predictors' kernels against the same layers in PyTorch."""

import re
from copy import deepcopy

import pytest
import torch
import torch.nn as nn

pytest.importorskip('triton')
pytest.importorskip('mmpretrain')  # which a machine with just a GPU may lack

from mmctx.models.context_record import record_context
from mmctx.models.layers import (
    ContextualConv2d,
    Contextualizing,
    contextualizing,
    using_prior,
)
from mmctx.ops.contextualizing import run_stage

pytestmark = pytest.mark.usefixtures('way', 'exact')
DEVICE = 'cuda' if torch.cuda.is_available() else 'cpu'
LAYOUTS = {
    'depthwise': dict(
        groups=6, kernel_size=3, padding=1, depthwise_predictor=True, weight_offset_hidden=2
    ),
    'depthwise, dense predictor': dict(
        groups=6,
        kernel_size=3,
        padding=1,
        sampling_offset_hidden=3,
        weight_offset_hidden=3,
        modulated=True,
    ),
    'dense': dict(
        kernel_size=3,
        padding=1,
        stride=2,
        sampling_offset_hidden=4,
        weight_offset_hidden=4,
        norm='BN',
    ),
    'depthwise, BN': dict(
        groups=6,
        kernel_size=3,
        padding=1,
        depthwise_predictor=True,
        weight_offset_hidden=4,
        norm='BN',
    ),
}


@pytest.fixture
def exact(monkeypatch):
    monkeypatch.setattr(torch.backends.cudnn, 'allow_tf32', False)


def make_conv(layout, prior_channels=5, **options):
    conv = ContextualConv2d(6, 6, prior_channels=prior_channels, **LAYOUTS[layout], **options)
    for parameter in conv.parameters():
        nn.init.normal_(parameter, std=0.3)
    for module in conv.modules():
        if hasattr(module, 'running_var'):
            nn.init.uniform_(module.running_mean, -1, 1)
            nn.init.uniform_(module.running_var, 0.5, 2)
    return conv.to(DEVICE)


def both_ways(monkeypatch, run):
    results = []
    for backend in ('tapwise', 'triton'):
        monkeypatch.setenv('MMCTX_BACKEND', backend)
        results.append(run())
    return results


def predictions(conv, x, prior):
    sampling_offset, mask_logits = conv.predict_sampling_offset(x, prior)
    return [
        t
        for t in (sampling_offset, mask_logits, conv.predict_weight_offset(x, prior))
        if t is not None
    ]


def gradients(outputs, leaves):
    cotangents = [torch.arange(out.numel(), device=DEVICE).view(out.shape).cos() for out in outputs]
    return torch.autograd.grad(outputs, leaves, cotangents)


@pytest.mark.parametrize('channels_last', [True, False])
@pytest.mark.parametrize('layout', LAYOUTS)
def test_predicts_the_same(layout, channels_last, monkeypatch):
    conv = make_conv(layout)
    x = torch.randn(2, 6, 7, 5, device=DEVICE)
    if channels_last:
        x = x.to(memory_format=torch.channels_last)
    x.requires_grad_()
    prior = torch.randn(2, 5, device=DEVICE, requires_grad=True)
    leaves = [
        x,
        prior,
        *conv.sampling_offset_predictor.parameters(),
        *conv.weight_offset_predictor.parameters(),
    ]

    def run():
        outputs = predictions(conv, x, prior)
        return [*outputs, *gradients(outputs, leaves)]

    plain, kernels = both_ways(monkeypatch, run)
    for got, want in zip(kernels, plain, strict=True):
        torch.testing.assert_close(got, want, rtol=1e-4, atol=2e-4)


@pytest.mark.parametrize(
    'layout, prior_channels', [*((layout, 5) for layout in LAYOUTS), ('dense', 0)]
)
def test_predicts_the_same_in_inference(layout, prior_channels, monkeypatch):
    conv = make_conv(layout, prior_channels).eval()
    x = torch.randn(1, 6, 5, 3, device=DEVICE)
    prior = torch.randn(1, prior_channels, device=DEVICE)
    monkeypatch.setenv('MMCTX_BACKEND', 'triton')
    expected = conv.predict_offsets(x, prior)
    with torch.no_grad():
        got = conv.predict_offsets(x, prior)
    for a, b in zip(got, expected, strict=True):
        assert (a is None) == (b is None)
        if a is not None:
            assert not a.requires_grad
            torch.testing.assert_close(a, b, rtol=1e-4, atol=2e-4)


@pytest.mark.parametrize('layout', LAYOUTS)
def test_half_precision_predicts_float32(layout, monkeypatch):
    """Under autocast and with parameters of half precision."""
    conv = make_conv(layout)
    x, prior = torch.randn(2, 6, 7, 5, device=DEVICE), torch.randn(2, 5, device=DEVICE)
    expected = predictions(conv, x, prior)
    monkeypatch.setenv('MMCTX_BACKEND', 'triton')
    with torch.autocast(DEVICE, torch.bfloat16):
        autocast = predictions(conv, x, prior)
    halved = predictions(conv.bfloat16(), x.bfloat16(), prior.bfloat16())
    grids = 2 if conv.modulated else 1
    for result in (autocast, halved):
        assert all(grid.dtype == torch.float32 for grid in result[:grids])
        assert any((grid != grid.bfloat16().float()).any() for grid in result[:grids])
        for got, want in zip(result, expected, strict=True):
            error = (got.float() - want).abs().max() / want.abs().max()
            assert error < 0.05, f'{error:.3f}'


@pytest.mark.parametrize('training', [True, False])
@pytest.mark.parametrize(('batch', 'size'), [(1, (3, 4)), (2, (4, 3))])
@pytest.mark.parametrize('layout', LAYOUTS)
def test_the_whole_layer_agrees_with_gradients(layout, batch, size, training, monkeypatch):
    """Batch norms train, or keep the statistics that they have while the weights train."""
    if training and batch == 1 and LAYOUTS[layout].get('norm') == 'BN':
        pytest.skip('batch norm cannot train on one image')
    conv = make_conv(layout).train(training)
    x = torch.randn(batch, 6, *size, device=DEVICE, requires_grad=True)
    prior = torch.randn(batch, 5, device=DEVICE, requires_grad=True)
    check_layer(conv, x, prior, [x, prior, *conv.parameters()], monkeypatch)


@pytest.mark.parametrize('layout', LAYOUTS)
def test_a_layer_does_the_same_with_and_without_gradients(layout, monkeypatch):
    """In turn and with the same shapes, though the kernels write less without.

    A compiler may round the two otherwise.
    """
    monkeypatch.setenv('MMCTX_BACKEND', 'triton')
    conv = make_conv(layout).eval()
    x, prior = torch.randn(2, 6, 4, 3, device=DEVICE), torch.randn(2, 5, device=DEVICE)
    outs = []
    for grad in (True, False, True, False):
        with using_prior(prior), torch.set_grad_enabled(grad):
            outs.append(conv(x))
    for out in outs[1:]:
        torch.testing.assert_close(out, outs[0], rtol=1e-5, atol=1e-5)


def check_layer(conv, x, prior, leaves, monkeypatch, tolerance=3e-4):
    """Output, gradients and running statistics of a layer through kernels and in PyTorch."""

    def run():
        before = deepcopy(conv.state_dict())
        with using_prior(prior):
            out = conv(x)
        grads = gradients([out], leaves)
        statistics = [buffer.clone() for buffer in conv.buffers()]
        conv.load_state_dict(before)
        return out, grads, statistics

    plain, kernels = both_ways(monkeypatch, run)
    torch.testing.assert_close(kernels[0], plain[0], rtol=1e-4, atol=1e-4)
    for got, want in zip(kernels[2], plain[2], strict=True):
        torch.testing.assert_close(got, want, rtol=1e-5, atol=1e-5)
    for leaf, got, want in zip(leaves, kernels[1], plain[1], strict=True):
        assert got.dtype == want.dtype and got.shape == want.shape
        error = (got - want).abs().max() / want.abs().max().clamp(min=1)
        assert error < tolerance, f'{error:.1e} of {tuple(leaf.shape)}'


@pytest.mark.parametrize('offsets', [('sampling',), ('weight',)])
@pytest.mark.parametrize('layout', LAYOUTS)
def test_a_layer_with_one_predictor_agrees(layout, offsets, monkeypatch):
    conv = make_conv(layout, offsets=offsets)
    x = torch.randn(2, 6, 4, 5, device=DEVICE, requires_grad=True)
    prior = torch.randn(2, 5, device=DEVICE, requires_grad=True)
    check_layer(conv, x, prior, [x, prior, *conv.parameters()], monkeypatch)


@pytest.mark.parametrize('layout', ['depthwise', 'dense'])
def test_a_layer_without_a_prior_agrees(layout, monkeypatch):
    conv = make_conv(layout, prior_channels=0)
    x = torch.randn(2, 6, 4, 5, device=DEVICE, requires_grad=True)
    check_layer(conv, x, x.new_zeros(2, 0), [x, *conv.parameters()], monkeypatch)


@pytest.mark.parametrize('trained', ['x', 'prior', 'weight', 'sampling', 'weight_offset'])
@pytest.mark.parametrize('layout', ['depthwise, dense predictor', 'dense'])
def test_each_gradient_alone_agrees(layout, trained, monkeypatch):
    conv = make_conv(layout).requires_grad_(False)
    x, prior = torch.randn(2, 6, 4, 5, device=DEVICE), torch.randn(2, 5, device=DEVICE)
    leaves = {
        'x': [x],
        'prior': [prior],
        'weight': [conv.weight],
        'sampling': list(conv.sampling_offset_predictor.parameters()),
        'weight_offset': list(conv.weight_offset_predictor.parameters()),
    }[trained]
    for leaf in leaves:
        leaf.requires_grad_()
    check_layer(conv, x, prior, leaves, monkeypatch)


@pytest.mark.parametrize(('layout', 'dtype', 'tolerance'), [
    ('depthwise', torch.float16, 0.03), ('dense', torch.float16, 0.03),
    ('depthwise', torch.bfloat16, 0.1),
])  # fmt: skip
def test_a_layer_in_half_precision_agrees_under_autocast(
    layout, dtype, tolerance, way, monkeypatch
):
    """The backward pass, too, in case that it is called there.

    Where a sample is close to a pixel, rounding can move it past, which changes its gradients.
    """
    conv = make_conv(layout)
    x = torch.randn(5, 6, 3, 4, device=DEVICE, requires_grad=True)
    prior = torch.randn(5, 5, device=DEVICE, requires_grad=True)
    # The bias before a batch norm has no gradient but what rounding leaves.
    leaves = [x, prior, *(p for n, p in conv.named_parameters() if not n.endswith('.0.bias'))]

    def run(dtype=None):
        with using_prior(prior), torch.autocast(DEVICE, dtype, enabled=dtype is not None):
            out = conv(x)
            return gradients([out.float()], leaves)

    if way == 'interpreter' and dtype is torch.bfloat16:
        tolerance = 0.3  # it cuts off where a GPU rounds
    expected = run()
    monkeypatch.setenv('MMCTX_BACKEND', 'triton')
    for leaf, got, want in zip(leaves, run(dtype), expected, strict=True):
        assert got.dtype == torch.float32
        error = (got - want).norm() / want.norm()
        assert error < tolerance, f'{error:.3f} of {leaf.shape}'


def test_saved_tensors_may_come_back_in_another_layout(monkeypatch):
    """As from hooks that keep them on the CPU for a while."""
    monkeypatch.setenv('MMCTX_BACKEND', 'triton')
    conv = make_conv('depthwise')
    x = torch.randn(1, 6, 3, 4, device=DEVICE, requires_grad=True)
    prior = torch.randn(1, 5, device=DEVICE, requires_grad=True)
    leaves = [x, prior, *conv.parameters()]

    def run():
        with using_prior(prior):
            return conv(x)

    expected = gradients([run()], leaves)
    with torch.autograd.graph.saved_tensors_hooks(lambda t: t.contiguous(), lambda t: t):
        out = run()
    for got, want in zip(gradients([out], leaves), expected, strict=True):
        torch.testing.assert_close(got, want)


@pytest.mark.parametrize('training', [True, False])
def test_statistics_changed_before_backward_are_noticed(training, monkeypatch):
    """Those that a batch norm normalised with; in training these are the batch's own."""
    monkeypatch.setenv('MMCTX_BACKEND', 'triton')
    conv = make_conv('dense').train(training)
    x = torch.randn(2, 6, 4, 5, device=DEVICE, requires_grad=True)
    with using_prior(torch.randn(2, 5, device=DEVICE)):
        out = conv(x)
        conv.train()(x)  # which updates the running statistics
    if training:
        out.sum().backward()
    else:
        with pytest.raises(RuntimeError, match='modified by an inplace operation'):
            out.sum().backward()


def test_a_prior_on_another_device_is_refused_by_pytorch(monkeypatch):
    monkeypatch.setenv('MMCTX_BACKEND', 'triton')
    conv = make_conv('depthwise')
    x = torch.randn(2, 6, 4, 5, device=DEVICE)
    with using_prior(torch.randn(2, 5, device='meta')), pytest.raises(RuntimeError, match='meta'):
        conv(x)


def test_second_derivatives_of_a_layer_are_refused(monkeypatch):
    """Rather than taken for zero."""
    monkeypatch.setenv('MMCTX_BACKEND', 'triton')
    conv = make_conv('depthwise')
    x = torch.randn(2, 6, 4, 5, device=DEVICE, requires_grad=True)
    with using_prior(torch.randn(2, 5, device=DEVICE)):
        out = conv(x)
    (grad,) = torch.autograd.grad(out.sum(), x, create_graph=True)
    with pytest.raises(NotImplementedError, match='no second derivatives'):
        grad.square().sum().backward()


@pytest.mark.skipif(DEVICE != 'cpu', reason='there is a GPU')
def test_kernels_without_a_gpu_are_refused_by_name(monkeypatch):
    monkeypatch.setenv('MMCTX_BACKEND', 'triton')
    monkeypatch.setenv('TRITON_INTERPRET', '0')
    conv = make_conv('depthwise')
    with using_prior(torch.randn(2, 5)), pytest.raises(NotImplementedError, match='needs tensors'):
        conv(torch.randn(2, 6, 4, 4))


def test_a_map_smaller_than_the_kernel_is_refused(monkeypatch):
    monkeypatch.setenv('MMCTX_BACKEND', 'triton')
    conv = ContextualConv2d(6, 6, 3, prior_channels=5).to(DEVICE)
    with using_prior(torch.randn(2, 5, device=DEVICE)), pytest.raises(ValueError, match='fit'):
        conv(torch.randn(2, 6, 2, 2, device=DEVICE))


def test_a_norm_that_synchronises_runs_as_a_module(monkeypatch):
    """Kernels would normalise with the statistics of one process alone."""

    class Synchronising(nn.BatchNorm2d):
        calls = 0

        def forward(self, x):
            self.calls += 1
            return super().forward(x)

    conv = make_conv('dense')
    norm = conv.sampling_offset_predictor[1]
    conv.sampling_offset_predictor[1] = Synchronising(norm.num_features).to(DEVICE)
    x = torch.randn(2, 6, 4, 5, device=DEVICE, requires_grad=True)
    prior = torch.randn(2, 5, device=DEVICE, requires_grad=True)
    check_layer(conv, x, prior, [x, prior, *conv.parameters()], monkeypatch)
    assert conv.sampling_offset_predictor[1].calls == 2


@pytest.mark.parametrize('layout', ['depthwise', 'dense'])
def test_layer_compiles_without_a_graph_break(layout, monkeypatch):
    monkeypatch.setenv('MMCTX_BACKEND', 'triton')
    conv = make_conv(layout)
    x, prior = torch.randn(2, 6, 5, 4, device=DEVICE), torch.randn(2, 5, device=DEVICE)

    def run(x, prior):
        with using_prior(prior):
            return conv(x)

    compiled = torch.compile(run, backend='aot_eager', fullgraph=True)
    leaves = [parameter for parameter in conv.parameters() if parameter.requires_grad]
    results = []
    for function in (compiled, run):
        out = function(x, prior)
        results.append([out, *torch.autograd.grad(out.square().sum(), leaves)])
    for got, want in zip(*results, strict=True):
        torch.testing.assert_close(got, want, rtol=1e-3, atol=3e-4)


@pytest.mark.parametrize('selection', ['reduce', 'rerank'])
@pytest.mark.parametrize('norm', ['LN', 'BN'])
@pytest.mark.parametrize('batch', [1, 4])
@pytest.mark.parametrize('training', [False, True])
def test_contextualizes_the_same(training, batch, norm, selection, monkeypatch):
    if training and batch == 1 and norm == 'BN':
        pytest.skip('batch norm cannot train on one image')
    layer = Contextualizing(
        (3, 5, 4), (4, 6), 11, (6, 2), embed_dims=8, norm=norm, selection=selection
    )
    layer = layer.to(DEVICE).train(training)
    maps = [
        torch.randn(batch, channels, 4, 4, device=DEVICE, requires_grad=True)
        for channels in (3, 5, 4)
    ]
    # The bias before a batch norm has no gradient but what rounding leaves.
    leaves = [*maps, *(p for n, p in layer.named_parameters() if not n.endswith('.0.bias'))]

    def run():
        ours = deepcopy(layer.state_dict())
        kept, found, scores = None, [], []
        for index, x in enumerate(maps):
            logits, kept, prior = layer(x, index, kept)
            scores.append(logits.clamp(min=-100))
            found += [t for t in (logits, kept, prior) if t is not None]
            scores += [] if prior is None else [prior]
        found += gradients(scores, leaves)
        statistics = [buffer.clone() for buffer in layer.buffers()]
        layer.load_state_dict(ours)
        return found + statistics

    plain, kernels = both_ways(monkeypatch, run)
    for got, want in zip(kernels, plain, strict=True):
        torch.testing.assert_close(got, want, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize('half', [False, True])
@pytest.mark.parametrize('selection', ['reduce', 'rerank'])
@pytest.mark.parametrize(('norm', 'batch'), [('LN', 1), ('BN', 3)])
def test_contextualizes_the_same_in_inference(norm, batch, selection, half, monkeypatch):
    layer = Contextualizing(
        (3, 5, 4), (4, 6), 11, (6, 2), embed_dims=8, norm=norm, selection=selection
    )
    layer = layer.to(DEVICE).eval()
    maps = [torch.randn(batch, channels, 4, 4, device=DEVICE) for channels in (3, 5, 4)]
    if half:
        layer, maps = layer.bfloat16(), [x.bfloat16() for x in maps]
    monkeypatch.setenv('MMCTX_BACKEND', 'triton')
    results = []
    for grad in (True, False):
        kept, found = None, []
        with torch.set_grad_enabled(grad):
            for index, x in enumerate(maps):
                found.append(layer(x, index, kept))
                kept = found[-1].kept
        results.append(found)
    tolerance = 0.05 if half else 1e-4
    # Rounding decides which classes are kept of an image whose last ones are about equally likely.
    clear = torch.ones(batch, dtype=torch.bool, device=DEVICE)
    for index, (expected, got) in enumerate(zip(*results, strict=True)):
        check_same(got.logits, expected.logits, clear, tolerance)
        if index < len(layer.considered):
            ranked, last = expected.logits.sort(1, descending=True)[0], layer.considered[index]
            clear &= ranked[:, last - 1] - ranked[:, last] > 4 * tolerance
        check_same(got.kept, expected.kept, clear, tolerance)
        check_same(got.prior, expected.prior, clear, tolerance)


def check_same(got, expected, images, tolerance):
    assert (got is None) == (expected is None)
    if got is not None:
        assert got.dtype == expected.dtype and not got.requires_grad
        torch.testing.assert_close(got[images], expected[images], rtol=tolerance, atol=tolerance)


def run_stages(layer, maps):
    """Scores, which have gradients, of all stages, and all else that they conclude."""
    kept, scores, others = None, [], []
    for index, x in enumerate(maps):
        logits, kept, prior = layer(x, index, kept)
        scores += [logits.clamp(min=-100), *([] if prior is None else [prior])]
        others += [] if kept is None else [kept]
    return scores, others


@pytest.mark.parametrize(('norm', 'dtype'), [
    ('LN', torch.float32), ('LN', torch.float16), ('BN', torch.float32),
    ('fixed BN', torch.float32),
])  # fmt: skip
def test_stages_of_many_values_agree_with_float64(norm, dtype, monkeypatch):
    """More images, channels, classes and hidden values than one program holds at once."""
    torch.manual_seed(0)
    layer = Contextualizing((70, 33), (40,), 90, (70,), embed_dims=65, norm=norm[-2:]).to(DEVICE)
    for name, parameter in layer.named_parameters():
        if name != 'logit_scale':
            nn.init.normal_(parameter, std=0.3)
    layer.train(norm != 'fixed BN')
    maps = [torch.randn(35, channels, 3, 2, device=DEVICE).to(dtype) for channels in (70, 33)]
    leaves = [n for n, _ in layer.named_parameters() if not re.search(r'classifying.\d.0.bias', n)]
    results = []
    for backend, of in (('tapwise', torch.float64), ('triton', torch.float32)):
        monkeypatch.setenv('MMCTX_BACKEND', backend)
        exact = deepcopy(layer).to(of)
        given = [x.to(of if backend == 'tapwise' else dtype).requires_grad_() for x in maps]
        scores, others = run_stages(exact, given)
        named = dict(exact.named_parameters())
        found = gradients(scores, [*given, *(named[name] for name in leaves)])
        results.append([*scores, *others, *found, *exact.buffers()])
    for want, got in zip(*results, strict=True):
        # One number is the sum of many, which may cancel out.
        scale = want.double().abs().max().clamp(min=1e-3 if want.ndim else 1.0)
        error = (got.double() - want.double()).abs().max() / scale
        assert error < (1e-3 if got.dtype == torch.float16 else 3e-5), f'{error:.1e}'


FROZEN = {
    'nothing': '', 'all that classifies': r'classifying|logit_scale', 'the first': r'classifying.0',
    'merging': r'merging', 'embeddings': r'embeddings|logit_scale', 'last biases': r'3.bias|1.bias',
    'all but last weights': r'^(?!.*(3.weight|joint.0.weight)).*$',
}  # fmt: skip


@pytest.mark.parametrize(
    ('frozen', 'seen'),
    [*((name, False) for name in FROZEN), ('nothing', True), ('all that classifies', True)],
)
def test_frozen_parameters_have_no_gradients(frozen, seen, monkeypatch):
    """And the others the same ones, whether or not gradients flow back into the maps."""
    layer = Contextualizing((3, 5), (4,), 11, (6,), embed_dims=8).to(DEVICE)
    for name, parameter in layer.named_parameters():
        parameter.requires_grad_(not (FROZEN[frozen] and re.search(FROZEN[frozen], name)))
    maps = [torch.randn(2, channels, 4, 4, device=DEVICE) for channels in (3, 5)]
    leaves = [x.requires_grad_() for x in maps] if seen else []
    leaves += [p for p in layer.parameters() if p.requires_grad]

    def run():
        scores = [score for score in run_stages(layer, maps)[0] if score.requires_grad]
        cotangents = [torch.arange(s.numel(), device=DEVICE).view(s.shape).cos() for s in scores]
        return torch.autograd.grad(scores, leaves, cotangents, allow_unused=True)

    plain, kernels = both_ways(monkeypatch, run)
    for got, want in zip(kernels, plain, strict=True):
        want = torch.zeros_like(got) if want is None else want
        torch.testing.assert_close(got, want, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize('norm', ['LN', 'BN'])
def test_stages_stay_in_float32_under_autocast(norm, monkeypatch):
    """Forwards, and backwards where that is called inside of the context, too."""
    monkeypatch.setenv('MMCTX_BACKEND', 'triton')
    layer = Contextualizing((3, 5), (4,), 11, (6,), embed_dims=8, norm=norm).to(DEVICE)
    maps = [torch.randn(3, channels, 4, 4, device=DEVICE) for channels in (3, 5)]
    results = []
    for enabled in (False, True):
        with torch.autocast(DEVICE, torch.bfloat16, enabled=enabled):
            scores, _ = run_stages(layer, maps)
            results.append([*scores, *gradients(scores, list(layer.parameters()))])
    for want, got in zip(*results, strict=True):
        assert got.dtype == torch.float32
        torch.testing.assert_close(got, want, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize('merging', [None, dict(temperature=2.0)])
def test_second_derivatives_are_refused(merging, monkeypatch):
    """Those of a loss, whose cotangent is a constant, too."""
    monkeypatch.setenv('MMCTX_BACKEND', 'triton')
    layer = Contextualizing((3, 5), (4,), 11, (6,), embed_dims=8, norm='BN', merging=merging)
    layer.to(DEVICE)
    x = torch.randn(2, 3, 4, 4, device=DEVICE, requires_grad=True)
    logits, _, prior = layer(x, 0)
    weights = layer.embeddings.weight, layer.merging[0]['each'][0].weight
    asked = ((logits, weights[0]), (logits, x), (prior, weights[1]))
    # With a temperature, PyTorch merges.
    for result, leaf in asked[: 2 if merging else 3]:
        (first,) = torch.autograd.grad(result.square().sum(), leaf, create_graph=True)
        with pytest.raises(NotImplementedError, match='second derivatives'):
            torch.autograd.grad(first.sum(), leaf, retain_graph=True)


@pytest.mark.parametrize('norm', ['LN', 'BN'])
@pytest.mark.parametrize('grad', [False, True])
@pytest.mark.parametrize('backend', ['tapwise', 'triton'])
def test_no_images_have_no_contexts(backend, grad, norm, monkeypatch):
    monkeypatch.setenv('MMCTX_BACKEND', backend)
    layer = Contextualizing((3, 5), (4,), 11, (6,), embed_dims=8, norm=norm).to(DEVICE).eval()
    with torch.set_grad_enabled(grad):
        first = layer(torch.zeros(0, 3, 4, 4, device=DEVICE), 0)
        last = layer(torch.zeros(0, 5, 4, 4, device=DEVICE), 1, first.kept)
    assert first.prior.shape == (0, 4) and first.kept.shape == last.logits.shape == (0, 11)


class Reversed(Contextualizing):
    """Keeps the least likely classes."""

    def keep(self, logits, stage_index):
        return super().keep(-logits, stage_index)


@pytest.mark.parametrize('merging', [None, dict(normalize=True, hidden=12), dict(temperature=2.0)])
@pytest.mark.parametrize('kind', [Contextualizing, Reversed])
@pytest.mark.parametrize('hooked', [False, True])
def test_kernels_are_used_for_what_they_compute(hooked, kind, merging, monkeypatch):
    """Neither a subclass's way to keep classes, options nor hooks on merging are passed over."""
    options = dict(embed_dims=8, selection='rerank', merging=merging)
    layer = kind((3, 5, 4), (4, 6), 11, (6, 2), **options).to(DEVICE).eval()
    priors, asked = [], []
    if hooked:
        for part in (layer.merging[0], layer.merging[1]['joint']):
            part.register_forward_hook(lambda module, args, prior: priors.append(prior))
    monkeypatch.setattr(
        contextualizing, 'run_stage', lambda *args: asked.append(1) or run_stage(*args)
    )
    maps = [torch.randn(2, channels, 4, 4, device=DEVICE) for channels in (3, 5, 4)]

    def run():
        kept, found = None, []
        with torch.no_grad():
            for index, x in enumerate(maps):
                found += layer(x, index, kept)
                kept = found[-2]
        return [t for t in found if t is not None]

    plain, kernels = both_ways(monkeypatch, run)
    for got, want in zip(kernels, plain, strict=True):
        torch.testing.assert_close(got, want, rtol=1e-4, atol=1e-4)
    assert len(priors) == (4 if hooked else 0)
    own = kind is Contextualizing and not hooked and 'temperature' not in (merging or {})
    assert len(asked) == (3 if own else 0)


def test_weights_that_are_turned_in_memory_train_alike(monkeypatch):
    layer = Contextualizing((3, 5), (4,), 11, (6,), embed_dims=8).to(DEVICE)
    for module in layer.modules():
        if isinstance(module, nn.Linear):
            module.weight = nn.Parameter(module.weight.detach().t().contiguous().t())
    x = torch.randn(4, 3, 4, 4, device=DEVICE)

    def run():
        context = layer(x, 0)
        leaves = [p for n, p in layer.named_parameters() if '.1.' not in n or 'merging' in n]
        found = torch.autograd.grad(
            context.logits.square().sum() + context.prior.square().sum(), leaves, allow_unused=True
        )
        return [grad for grad in found if grad is not None]

    plain, kernels = both_ways(monkeypatch, run)
    for got, want in zip(kernels, plain, strict=True):
        torch.testing.assert_close(got, want, rtol=1e-4, atol=1e-4)


def test_what_layers_did_is_recorded_in_inference(monkeypatch):
    monkeypatch.setenv('MMCTX_BACKEND', 'triton')
    conv = make_conv('dense').eval()
    layer = Contextualizing((3, 5), (4,), 11, (6,), embed_dims=8).to(DEVICE).eval()
    network = nn.ModuleDict(dict(conv=conv, contextualizing=layer))
    with torch.no_grad(), record_context(network) as record:
        with using_prior(torch.randn(1, 5, device=DEVICE)):
            conv(torch.randn(1, 6, 5, 3, device=DEVICE))
        context = layer(torch.randn(1, 3, 4, 4, device=DEVICE), 0)
    assert record.stages[1] is context and context.kept.sum() == 6
    assert record.convolutions['conv'].sampling_offset.abs().sum() > 0


@pytest.mark.skipif(DEVICE == 'cpu', reason='the host waits for a GPU only where there is one')
@pytest.mark.parametrize('norm', ['LN', 'BN'])
def test_the_host_never_waits_for_the_gpu(norm):
    """Neither in inference nor in training, so that launches run ahead of the kernels."""
    conv = make_conv('dense' if norm == 'BN' else 'depthwise')
    layer = Contextualizing((6,), (5,), 11, (6,), embed_dims=8, norm=norm).to(DEVICE)
    x = torch.randn(3, 6, 5, 3, device=DEVICE)

    def run(training):
        for module in (conv, layer):
            module.train(training)
        with torch.set_grad_enabled(training), torch.autocast(DEVICE, torch.float16):
            logits, _, prior = layer(x, 0)
            with using_prior(prior):
                loss = conv(x).float().mean() + logits.mean()
        if training:
            loss.backward()

    for training in (False, True):
        run(training)  # Kernels are compiled at the first call.
        torch.cuda.set_sync_debug_mode('error')
        try:
            run(training)
        finally:
            torch.cuda.set_sync_debug_mode('default')
