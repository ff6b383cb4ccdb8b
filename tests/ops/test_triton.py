"""The Triton kernels: in every way that this machine has (`conftest`)."""

import contextlib
import os

import pytest
import torch
from contextual_cases import (
    by_torchvision,
    make_case,
    offset_to_one_pixel,
    relative_error,
    with_gradients,
)
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils.flop_counter import FlopCounterMode

from mmctx.ops import BACKENDS, contextual_conv2d
from mmctx.ops.triton import operator

pytest.importorskip('triton')
pytestmark = pytest.mark.usefixtures('way')
DEVICE = 'cuda' if torch.cuda.is_available() else 'cpu'
# batch, channels, height, width, kernel, stride, padding, dilation
GEOMETRIES = [
    (1, 5, 7, 9, (3, 3), 1, 1, 1),
    (2, 70, 6, 5, (3, 3), 2, 1, 1),
    (3, 2, 6, 7, (3, 3), 1, 2, 2),
    (2, 2, 8, 6, (5, 3), (2, 1), (2, 0), (1, 2)),
    (1, 16, 1, 1, (3, 3), 1, 1, 1),
]
SEVEN = (1, 24, 5, 4, (7, 7), 1, 3, 1)


@contextlib.contextmanager
def deterministic(switch):
    """PyTorch's own switch, under which x's gradient sorts its lists."""
    # Without it PyTorch refuses matrix products on a GPU.
    os.environ.setdefault('CUBLAS_WORKSPACE_CONFIG', ':4096:8')
    before = torch.are_deterministic_algorithms_enabled()
    torch.use_deterministic_algorithms(switch)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before)


def assert_same(got, expected, tolerance):
    assert got.keys() == expected.keys()
    for name, value in got.items():
        torch.testing.assert_close(
            value, expected[name], rtol=tolerance, atol=tolerance, msg=lambda m, n=name: f'{n}: {m}'
        )


def leaves_of(geometry, depthwise, **kwargs):
    tensors, options = make_case(geometry, depthwise, device=DEVICE, **kwargs)
    return {k: v.requires_grad_() for k, v in tensors.items()}, options


# In float64 the interpreter came within 2e-13 of the reference, sums over 70·9 terms included.
@pytest.mark.parametrize('depthwise', [True, False])
@pytest.mark.parametrize('geometry', [*GEOMETRIES, SEVEN], ids=str)
def test_agrees_with_the_reference(geometry, depthwise):
    tensors, options = leaves_of(geometry, depthwise)
    expected = with_gradients(tensors, options, backend='reference')
    for switch in (False, True):
        with deterministic(switch):
            assert_same(with_gradients(tensors, options, backend='triton'), expected, 1e-11)


@pytest.mark.parametrize('depthwise', [True, False])
def test_agrees_with_torchvision_far_outside(depthwise):
    tensors, options = leaves_of(GEOMETRIES[3], depthwise, spread=30.0)
    out = contextual_conv2d(**tensors, **options, backend='triton')
    expected = by_torchvision(**tensors, **options)
    torch.testing.assert_close(out, expected, rtol=1e-11, atol=1e-11)
    leaves, cotangent = list(tensors.values()), torch.randn_like(out)
    for got, want in zip(
        torch.autograd.grad(out, leaves, cotangent),
        torch.autograd.grad(expected, leaves, cotangent),
    ):
        torch.testing.assert_close(got, want, rtol=1e-11, atol=1e-11)


def test_integer_positions_and_the_border():
    """Where the weights have a kink the gradient is the reference's one; far is nothing."""
    tensors, options = leaves_of((1, 3, 5, 6, (3, 3), 1, 1, 1), True)
    sampling_offset = torch.randint(-3, 4, tensors['sampling_offset'].shape).to(
        tensors['sampling_offset']
    )
    sampling_offset[..., 0, 0] = float('inf')
    sampling_offset[..., 1, 0] = -1e30
    tensors['sampling_offset'] = sampling_offset.requires_grad_()
    got = with_gradients(tensors, options, backend='triton')
    assert_same(got, with_gradients(tensors, options, backend='reference'), 1e-12)


@pytest.mark.parametrize('depthwise', [True, False])
def test_all_samples_on_one_pixel(depthwise):
    """A list of x's gradient as long as there are samples, and all others empty."""
    tensors, options = leaves_of((1, 3, 6, 5, (3, 3), 1, 1, 1), depthwise)
    tensors['sampling_offset'] = offset_to_one_pixel(tensors['sampling_offset']).requires_grad_()
    expected = with_gradients(tensors, options, backend='reference')
    for switch in (False, True):
        with deterministic(switch):
            assert_same(with_gradients(tensors, options, backend='triton'), expected, 1e-11)


@pytest.mark.parametrize('few_programs', [True, False])
@pytest.mark.parametrize('depthwise', [True, False])
def test_results_do_not_depend_on_the_tiles(depthwise, few_programs, monkeypatch):
    from mmctx.ops.triton import forward, settings

    if not few_programs:
        monkeypatch.setattr(forward, 'ENOUGH_PROGRAMS', 0)
    tensors, options = leaves_of((2, 70, 5, 4, (3, 3), 1, 1, 1), depthwise)
    tile = settings.Tile(8, 2, 16, warps=1)
    kernels = ('depthwise', 'columns', 'sampling_gradient', 'gather')
    with settings.override(**dict.fromkeys(kernels, tile)):
        assert settings.current().tile('gather', torch.float64, 70) is tile
        got = with_gradients(tensors, options, backend='triton')
    assert settings.current().tile('gather', torch.float64, 70) is not tile
    assert_same(got, with_gradients(tensors, options, backend='reference'), 1e-11)


@pytest.mark.parametrize('dtype', [torch.float16, torch.float32])
def test_gradients_are_the_same_every_time(dtype):
    tensors, options = make_case((2, 40, 7, 6, (3, 3), 1, 1, 1), True, 3.0, dtype, DEVICE)
    tensors = {k: v.requires_grad_() for k, v in tensors.items()}
    with deterministic(True):
        first, second = (with_gradients(tensors, options, backend='triton') for _ in range(2))
    for name, value in first.items():
        assert torch.equal(value, second[name]), name


# Seen: at most 4e-7 of the norm in float32, 4e-4 in float16; in bfloat16, to which the interpreter
# cuts off where a GPU rounds, 3.3e-3, and 8.9e-3 where matrices of it are multiplied. A GPU makes
# float32 products of three TF32 ones, which the interpreter does not.
@pytest.mark.parametrize(
    ('dtype', 'tolerance'),
    [
        (torch.float32, 3e-6 if DEVICE == 'cuda' else 1e-6),
        (torch.float16, 1e-3),
        (torch.bfloat16, 1.2e-2),
    ],
)
@pytest.mark.parametrize('depthwise', [True, False])
def test_lower_precision_agrees_with_the_reference(depthwise, dtype, tolerance):
    tensors, options = make_case(GEOMETRIES[0], depthwise, dtype=dtype, device=DEVICE)
    tensors = {k: v.requires_grad_() for k, v in tensors.items()}
    exact = {k: v.detach().double().requires_grad_() for k, v in tensors.items()}
    expected = with_gradients(exact, options, backend='reference')
    got = with_gradients(tensors, options, backend='triton')
    for name, value in got.items():
        assert value.dtype == dtype
        assert relative_error(value.double(), expected[name]) < tolerance, name


def test_a_gradient_summed_over_outputs_is_of_float32():
    # In float16 the sum would be infinite, and the gradient of x with Δw = 0 no number.
    x = torch.ones(2, 4, 3, 3, device=DEVICE, dtype=torch.float16, requires_grad=True)
    weight = torch.full((2048, 4, 1, 1), 0.01, device=DEVICE)
    weight_offset = torch.zeros(2, 1, 4, 1, 1, device=DEVICE, requires_grad=True)
    out = contextual_conv2d(x, weight, weight_offset=weight_offset, backend='triton')
    grad = torch.full_like(out, 40)
    of_x, of_delta = torch.autograd.grad(out, (x, weight_offset), grad)
    torch.testing.assert_close(of_x, torch.full_like(x, 2048 * 40 * 0.01), rtol=2e-3, atol=0)
    torch.testing.assert_close(of_delta, torch.full_like(weight_offset, 9 * 2048 * 40.0))


def test_gradient_of_a_dense_weight_offset_is_precise_in_half_precision():
    x = torch.randn(2, 3, 9, 8, device=DEVICE).bfloat16()
    weight = torch.randn(256, 3, 1, 1, device=DEVICE)
    weight_offset = torch.zeros(2, 1, 3, 1, 1, device=DEVICE, requires_grad=True)
    out = contextual_conv2d(x, weight, weight_offset=weight_offset, backend='triton')
    grad = torch.randn(2, 256, 9, 8, device=DEVICE).bfloat16()
    (found,) = torch.autograd.grad(out, weight_offset, grad)
    expected = torch.einsum('bohw,bchw->bc', grad.double(), x.double()).view_as(found)
    assert relative_error(found, expected) < 1e-5


@pytest.mark.parametrize('depthwise', [True, False])
@pytest.mark.parametrize('absent', ['bias', 'sampling_offset', 'weight_offset', 'mask', 'all'])
def test_what_is_not_given(absent, depthwise):
    tensors, options = leaves_of((1, 3, 4, 5, (3, 3), 1, 1, 1), depthwise)
    for name in ('bias', 'sampling_offset', 'weight_offset', 'mask'):
        if absent in (name, 'all'):
            tensors[name] = None
    got = with_gradients(tensors, options, backend='triton')
    assert_same(got, with_gradients(tensors, options, backend='reference'), 1e-12)


@pytest.mark.parametrize('depthwise', [True, False])
def test_only_gradients_asked_for(depthwise, monkeypatch):
    """Each alone is as among all, and nothing is launched for the others."""
    tensors, options = leaves_of((1, 2, 4, 3, (3, 3), 1, 1, 1), depthwise)
    expected = with_gradients(tensors, options, backend='triton')
    from mmctx.ops.triton.launching import Launch

    launched, launch = [], Launch.__call__

    def record(self, *arguments):
        launched.append(self.kernel.__name__)
        launch(self, *arguments)

    monkeypatch.setattr(Launch, '__call__', record)
    for name in tensors:
        alone = {k: v.detach().requires_grad_(k == name) for k, v in tensors.items()}
        launched.clear()
        got = with_gradients(alone, options, backend='triton')
        assert_same(got, {k: expected[k] for k in ('out', name)}, 1e-12)
        names = set(launched[2:] if depthwise else launched[1:])
        assert ('sampling_gradient_kernel' in names) == (name not in ('x', 'bias'))
        assert ('gather_kernel' in names) == (name == 'x')


def test_any_memory_layout():
    tensors, options = make_case((2, 6, 5, 7, (3, 3), 1, 1, 1), True, device=DEVICE)
    expected = contextual_conv2d(**tensors, **options, backend='reference')
    grid = torch.cat([tensors['sampling_offset'], tensors['mask']], 1)
    x = torch.stack([tensors['x'], tensors['x']], 2)[:, :, 1]
    for layout in (torch.contiguous_format, torch.channels_last):
        sampling_offset, mask = grid.contiguous(memory_format=layout).split([18, 9], 1)
        for image in (x, tensors['x'].contiguous(memory_format=layout)):
            given = dict(tensors, x=image, sampling_offset=sampling_offset, mask=mask)
            out = contextual_conv2d(**given, **options, backend='triton')
            torch.testing.assert_close(out, expected, rtol=1e-12, atol=1e-12)
            assert out.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize('geometry', [GEOMETRIES[3], SEVEN])
def test_dense_weight_in_any_memory_layout(geometry):
    """Also of more taps than a single image is split into."""
    tensors, options = leaves_of(geometry, False)
    weight = tensors['weight'].detach()
    for last in ((0, 2, 3, 1), (3, 2, 1, 0)):
        back = [last.index(axis) for axis in range(4)]
        given = weight.permute(last).contiguous().permute(back)
        tensors['weight'] = given.requires_grad_()
        got = with_gradients(tensors, options, backend='triton')
        assert_same(got, with_gradients(tensors, options, backend='reference'), 1e-11)


@pytest.mark.parametrize('depthwise', [True, False])
def test_mask_as_logits(depthwise):
    tensors, options = leaves_of((1, 3, 4, 5, (3, 3), 1, 1, 1), depthwise)
    tensors['mask_logits'] = torch.randn_like(tensors.pop('mask')).requires_grad_()
    got = with_gradients(tensors, options, backend='triton')
    assert_same(got, with_gradients(tensors, options, backend='reference'), 1e-12)


@pytest.mark.parametrize('depthwise', [True, False])
def test_registered_soundly(depthwise):
    tensors, _ = leaves_of((1, 2, 3, 4, (1, 1), 1, 0, 1), depthwise, dtype=torch.float32)
    arguments = (*tensors.values(), [1, 1], [0, 0], [1, 1], False)
    torch.library.opcheck(operator.contextual_conv2d_operator, arguments)
    given = (tensors['bias'], None, None, None)
    torch.library.opcheck(
        operator.contextual_conv2d_operator,
        (tensors['x'], tensors['weight'], *given, *arguments[6:]),
    )


@pytest.mark.parametrize('depthwise', [True, False])
def test_gradients_lie_in_memory_as_promised(depthwise):
    """What a compiler is told of their strides is so; with kernels of one pixel it always is."""
    tensors, _ = make_case((2, 4, 4, 5, (3, 3), 1, 1, 1), depthwise, device=DEVICE)
    arguments = (*tensors.values(), [1, 1], [1, 1], [1, 1], False)
    out = operator.contextual_conv2d_operator(*arguments)
    backward = operator.contextual_conv2d_backward_operator
    real = backward(torch.randn_like(out), *arguments, [True] * 6)
    with FakeTensorMode() as mode:
        fakes = [mode.from_tensor(t) for t in (out, *tensors.values())]
        promised = backward(*fakes, *arguments[6:], [True] * 6)
    for name, got, fake in zip(tensors, real, promised):
        assert (got.shape, got.stride()) == (fake.shape, fake.stride()), name


@pytest.mark.parametrize('dynamic', [False, True])
def test_compiles_without_a_graph_break(dynamic):
    compiled = torch.compile(
        contextual_conv2d, backend='aot_eager', fullgraph=True, dynamic=dynamic
    )
    for geometry in [(1, 3, 4, 5, (1, 1), 1, 0, 1), (2, 3, 5, 3, (1, 1), 1, 0, 1)]:
        tensors, options = leaves_of(geometry, True, dtype=torch.float32)
        out = compiled(**tensors, **options, backend='triton')
        expected = contextual_conv2d(**tensors, **options, backend='triton')
        torch.testing.assert_close(out, expected)
        got, want = (
            torch.autograd.grad(o.square().sum(), tensors['sampling_offset'])
            for o in (out, expected)
        )
        torch.testing.assert_close(got, want)


@pytest.mark.parametrize('depthwise', [True, False])
def test_counted_alike_through_every_back_end(depthwise):
    tensors, options = make_case((2, 3, 5, 4, (3, 3), 2, 1, 1), depthwise, device=DEVICE)
    per_pixel = 9 * 3 if depthwise else 9 * 3 * (5 + 1)
    for backend in BACKENDS:
        with FlopCounterMode(display=False) as counter:
            out = contextual_conv2d(**tensors, **options, backend=backend)
        assert counter.get_total_flops() == 2 * per_pixel * 2 * out[0, 0].numel(), backend


@pytest.mark.skipif(DEVICE == 'cuda', reason='complexity is measured on the CPU')
def test_complexity_is_the_same_through_every_back_end(monkeypatch):
    pytest.importorskip('mmpretrain')  # which a machine with just a GPU may lack
    from mmctx.apis.complexity import measure_complexity
    from mmctx.models.layers import ContextualConv2d, using_prior

    class Model(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = ContextualConv2d(3, 4, 3, 2, 1, prior_channels=2, weight_offset_hidden=2)
            self.depthwise = ContextualConv2d(
                4,
                4,
                3,
                groups=4,
                prior_channels=2,
                depthwise_predictor=True,
                weight_offset_hidden=2,
            )

        def forward(self, x):
            prior = x.new_ones(len(x), 2)
            with using_prior(prior):
                return self.depthwise(self.conv(x))

    model, figures = Model(), set()
    for backend in ('tapwise', 'triton'):
        monkeypatch.setenv('MMCTX_BACKEND', backend)
        figures.add(measure_complexity(model, (9, 8)))
    assert len(figures) == 1


def test_no_second_derivatives():
    tensors, options = leaves_of((1, 2, 3, 3, (3, 3), 1, 1, 1), True)
    out = contextual_conv2d(**tensors, **options, backend='triton')
    (first,) = torch.autograd.grad(out.sum(), tensors['x'], create_graph=True)
    with pytest.raises(NotImplementedError, match='second derivatives'):
        first.sum().backward()


@pytest.mark.parametrize('depthwise', [True, False])
def test_empty_batch(depthwise):
    tensors, options = leaves_of((2, 3, 4, 4, (3, 3), 1, 1, 1), depthwise)
    none = {
        k: v if k in ('weight', 'bias') else v.detach()[:0].requires_grad_()
        for k, v in tensors.items()
    }
    got = with_gradients(none, options, backend='triton')
    assert got['out'].shape[0] == 0
    assert all(not got[k].any() and got[k].shape == v.shape for k, v in none.items())
