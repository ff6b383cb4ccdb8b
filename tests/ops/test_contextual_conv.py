"""The contextual convolution against torchvision, PyTorch, hand-worked cases and gradcheck."""

import pytest
import torch
import torch.nn.functional as F
from contextual_cases import GEOMETRIES, by_torchvision, make_case, relative_error
from torch.autograd import forward_ad
from torch.fx.experimental.proxy_tensor import make_fx

from mmctx.errors import UserError
from mmctx.models.layers.contextual_conv import ContextualConv2d
from mmctx.ops import BACKENDS, contextual_conv2d

# Triton without a GPU runs in an interpreter: test_triton.py, on fewer cases.
ON_CPU = [name for name in BACKENDS if name != 'triton']
PLACES = [(name, 'cpu') for name in ON_CPU]
if torch.cuda.is_available():
    PLACES += [(name, 'cuda') for name in BACKENDS]


@pytest.mark.parametrize(('backend', 'device'), PLACES)
@pytest.mark.parametrize('depthwise', [True, False])
@pytest.mark.parametrize('geometry', GEOMETRIES, ids=str)
@pytest.mark.parametrize('spread', [0.7, 30.0])
def test_agrees_with_torchvision(geometry, depthwise, backend, spread, device):
    tensors, options = make_case(geometry, depthwise, spread, device=device)
    leaves = [t.requires_grad_() for t in tensors.values()]
    out = contextual_conv2d(**tensors, **options, backend=backend)
    expected = by_torchvision(**tensors, **options)
    torch.testing.assert_close(out, expected, rtol=1e-12, atol=1e-12)
    cotangent = torch.randn_like(out)
    for got, want in zip(
        torch.autograd.grad(out, leaves, cotangent),
        torch.autograd.grad(expected, leaves, cotangent),
    ):
        torch.testing.assert_close(got, want, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize(('backend', 'device'), PLACES)
@pytest.mark.parametrize('depthwise', [True, False])
@pytest.mark.parametrize('masked', [True, False])
def test_gradients_are_the_numerical_ones(depthwise, masked, backend, device):
    tensors, options = make_case((2, 3, 5, 4, (3, 3), 2, 1, 1), depthwise, device=device)
    if not masked:
        tensors['mask'] = None
    names = [name for name, tensor in tensors.items() if tensor is not None]

    def function(*leaves):
        return contextual_conv2d(
            **{**tensors, **dict(zip(names, leaves))}, **options, backend=backend
        )

    leaves = [tensors[n].requires_grad_() for n in names]
    # The order in which a GPU adds up the gradient of x is up to chance.
    tolerance = 1e-12 if device == 'cuda' else 0.0
    assert torch.autograd.gradcheck(function, leaves, nondet_tol=tolerance)


@pytest.mark.parametrize(('backend', 'device'), PLACES)
@pytest.mark.parametrize('depthwise', [True, False])
@pytest.mark.parametrize('geometry', GEOMETRIES, ids=str)
def test_without_context_it_is_a_convolution(geometry, depthwise, backend, device):
    tensors, options = make_case(geometry, depthwise, device=device)
    x, weight, bias = tensors['x'], tensors['weight'], tensors['bias']
    expected = F.conv2d(x, weight, bias, groups=x.shape[1] if depthwise else 1, **options)
    plain = contextual_conv2d(x, weight, bias, **options, backend=backend)
    torch.testing.assert_close(plain, expected, rtol=1e-12, atol=1e-12)
    zero = torch.zeros_like(tensors['sampling_offset'])
    still = contextual_conv2d(x, weight, bias, sampling_offset=zero, **options, backend=backend)
    torch.testing.assert_close(still, expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(('backend', 'device'), PLACES)
def test_integer_offset_shifts_the_image(backend, device):
    x = torch.arange(20.0, device=device).view(1, 1, 4, 5)
    sampling_offset = torch.tensor([1.0, -2.0], device=device).view(1, 2, 1, 1).expand(1, 2, 4, 5)
    out = contextual_conv2d(
        x, x.new_ones(1, 1, 1, 1), sampling_offset=sampling_offset, backend=backend
    )
    expected = torch.zeros_like(x)
    expected[..., :3, 2:] = x[..., 1:, :3]
    assert torch.equal(out, expected)


@pytest.mark.parametrize(('backend', 'device'), PLACES)
def test_between_pixels_and_across_the_border(backend, device):
    x = torch.tensor([[1.0, 3.0], [5.0, 11.0]], device=device).view(1, 1, 2, 2)
    # 1×1 kernel; positions (0.25, 0.5), (-0.5, 1), (1.75, 0), (-1, -1)
    sampling_offset = (
        torch.tensor([[0.25, 0.5], [-0.5, 0.0], [0.75, 0.0], [-2.0, -2.0]]).t().to(device)
    )
    out = contextual_conv2d(
        x,
        x.new_full((1, 1, 1, 1), 2.0),
        sampling_offset=sampling_offset.reshape(1, 2, 2, 2),
        backend=backend,
    )
    # 0.75·(1+3)/2 + 0.25·(5+11)/2; half of 3; a quarter of 5; nothing. Times the kernel's 2.
    assert torch.allclose(out.flatten().cpu(), torch.tensor([7.0, 3.0, 2.5, 0.0]))


@pytest.mark.parametrize(
    ('dtype', 'tolerance'), [(torch.float32, 2e-6), (torch.bfloat16, 8e-3), (torch.float16, 1e-3)]
)
@pytest.mark.parametrize(('backend', 'device'), PLACES)
@pytest.mark.parametrize('depthwise', [True, False])
def test_lower_precision_agrees_with_float64(depthwise, backend, dtype, tolerance, device):
    tensors, options = make_case(GEOMETRIES[1], depthwise, dtype=dtype, device=device)
    exact = {k: v.double().requires_grad_() for k, v in tensors.items()}
    leaves = [t.requires_grad_() for t in tensors.values()]
    out = contextual_conv2d(**tensors, **options, backend=backend)
    expected = contextual_conv2d(**exact, **options, backend='reference')
    assert out.dtype == dtype
    assert relative_error(out.double(), expected) < tolerance
    cotangent = torch.randn_like(out)
    got = torch.autograd.grad(out, leaves, cotangent)
    want = torch.autograd.grad(expected, list(exact.values()), cotangent.double())
    for name, a, b in zip(tensors, got, want):
        assert a.dtype == dtype
        assert relative_error(a.double(), b) < tolerance, name


@pytest.mark.parametrize(('backend', 'device'), PLACES)
@pytest.mark.parametrize('depthwise', [True, False])
def test_empty_batch_and_mixed_types(depthwise, backend, device):
    tensors, options = make_case(GEOMETRIES[1], depthwise, dtype=torch.float32, device=device)
    expected = contextual_conv2d(**tensors, **options, backend=backend)
    mixed = dict(
        tensors, mask=tensors['mask'].double(), sampling_offset=tensors['sampling_offset'].double()
    )
    torch.testing.assert_close(
        contextual_conv2d(**mixed, **options, backend=backend), expected, rtol=1e-5, atol=1e-5
    )
    none = {k: v if k in ('weight', 'bias') else v[:0] for k, v in tensors.items()}
    empty = contextual_conv2d(**none, **options, backend=backend)
    assert empty.shape == (0, *expected.shape[1:])


@pytest.mark.parametrize(('backend', 'device'), PLACES)
def test_positions_keep_float32_under_half_precision(backend, device):
    x = torch.rand(1, 1, 4, 64, device=device)
    far = torch.zeros(1, 2, 4, 64, device=device)
    far[:, 1] = 8.03  # not a bfloat16: its neighbours are 8 and 8.0625
    weight = torch.ones(1, 1, 1, 1, device=device)
    low = x.bfloat16()
    exact, rounded = (
        contextual_conv2d(low.float(), weight, sampling_offset=sampling_offset, backend=backend)
        for sampling_offset in (far, far.bfloat16().float())
    )
    out = contextual_conv2d(low, weight, sampling_offset=far, backend=backend)
    step = 2**-8  # of a bfloat16 below 1
    assert (out - exact).abs().max() <= step / 2 + 2**-11
    assert (rounded - exact).abs().max() > 4 * step
    with torch.autocast(device, torch.bfloat16):
        assert torch.equal(
            contextual_conv2d(x.bfloat16().float(), weight, sampling_offset=far, backend=backend),
            out,
        )


@pytest.mark.parametrize(('backend', 'device'), PLACES)
@pytest.mark.parametrize('depthwise', [True, False])
def test_autocast_casts_x_alone(depthwise, backend, device):
    tensors, options = make_case(GEOMETRIES[0], depthwise, dtype=torch.float32, device=device)
    leaves = [t.requires_grad_() for t in tensors.values()]
    with torch.autocast(device, torch.bfloat16):
        out = contextual_conv2d(**tensors, **options, backend=backend)
    cast = dict(tensors, x=tensors['x'].bfloat16())
    assert torch.equal(out, contextual_conv2d(**cast, **options, backend=backend))
    assert [g.dtype for g in torch.autograd.grad(out.sum(), leaves)] == [torch.float32] * 6


@pytest.mark.parametrize(('backend', 'device'), PLACES)
def test_mask_as_logits(backend, device):
    tensors, options = make_case(GEOMETRIES[0], True, device=device)
    logits = torch.randn_like(tensors.pop('mask')).requires_grad_()
    out = contextual_conv2d(**tensors, mask_logits=logits, **options, backend=backend)
    expected = contextual_conv2d(**tensors, mask=logits.sigmoid(), **options, backend='reference')
    torch.testing.assert_close(out, expected)
    got, want = (torch.autograd.grad(o.square().sum(), logits)[0] for o in (out, expected))
    torch.testing.assert_close(got, want)


def test_reference_refuses_no_derivative_and_others_refuse_aloud():
    """An operator that drops a tangent, or a second derivative, would be wrong in silence."""
    tensors, options = make_case((1, 2, 4, 4, (3, 3), 1, 1, 1), True)
    for backend in BACKENDS:
        with forward_ad.dual_level():
            dual = forward_ad.make_dual(tensors['x'], torch.ones_like(tensors['x']))
            arguments = {**tensors, **options, 'x': dual, 'backend': backend}
            if backend == 'reference':
                tangent = forward_ad.unpack_dual(contextual_conv2d(**arguments)).tangent
                assert tangent.abs().sum() > 0
                continue
            logits = forward_ad.make_dual(tensors['mask'], torch.ones_like(tensors['mask']))
            of_logits = {**arguments, 'x': tensors['x'], 'mask': None, 'mask_logits': logits}
            for some in (arguments, of_logits):
                with pytest.raises(NotImplementedError, match='forward-mode'):
                    contextual_conv2d(**some)


@pytest.mark.parametrize('depthwise', [True, False])
def test_derivatives_by_torch_func_need_the_reference(depthwise):
    tensors, options = make_case(GEOMETRIES[0], depthwise)
    weight = tensors.pop('weight')

    def total(weight, backend):
        return contextual_conv2d(weight=weight, **tensors, **options, backend=backend).sum()

    expected = torch.autograd.grad(total(weight.requires_grad_(), 'tapwise'), weight)[0]
    derivative = torch.func.grad(total)
    torch.testing.assert_close(derivative(weight.detach(), 'reference'), expected)
    two = torch.stack([weight.detach()] * 2)
    for tested in (derivative, lambda w, b: torch.func.vmap(derivative, (0, None))(two, b)):
        with pytest.raises(NotImplementedError, match=r'torch\.func'):
            tested(weight.detach(), 'tapwise')


@pytest.mark.parametrize('depthwise', [True, False])
def test_compiles_without_a_graph_break(depthwise):
    tensors, options = make_case(GEOMETRIES[0], depthwise, dtype=torch.float32)
    compiled = torch.compile(contextual_conv2d, backend='aot_eager', fullgraph=True)
    # To the last bit: by the same back end.
    torch.testing.assert_close(
        compiled(**tensors, **options), contextual_conv2d(**tensors, **options), rtol=0, atol=0
    )


def test_triton_without_a_gpu_says_so():
    with pytest.raises(NotImplementedError, match='needs tensors on a GPU'):
        contextual_conv2d(torch.zeros(1, 1, 3, 3), torch.zeros(1, 1, 3, 3), backend='triton')


def test_environment_chooses_the_backend(monkeypatch):
    monkeypatch.setenv('MMCTX_BACKEND', 'nonsense')
    with pytest.raises(ValueError, match='nonsense'):
        contextual_conv2d(torch.zeros(1, 1, 3, 3), torch.zeros(1, 1, 3, 3))


@pytest.mark.parametrize(
    ('change', 'message'),
    [
        (dict(x=torch.zeros(2, 3, 4)), '4 axes'),
        (dict(x=torch.zeros(2, 4, 6, 5, dtype=torch.long)), 'floating-point'),
        (dict(weight=torch.zeros(4, 2, 3, 3)), 'neither depthwise nor dense'),
        (dict(bias=torch.zeros(3)), 'bias'),
        (dict(sampling_offset=torch.zeros(2, 9, 6, 5)), 'sampling_offset'),
        (dict(weight_offset=torch.zeros(2, 1, 4, 3, 3)), 'weight_offset'),
        (dict(mask=torch.zeros(1, 9, 6, 5)), 'mask'),
        (dict(mask=torch.zeros(2, 9, 6, 5), mask_logits=torch.zeros(2, 9, 6, 5)), 'not both'),
        (dict(x=torch.zeros(2, 4, 1, 1), padding=0), 'does not fit'),
    ],
)
def test_bad_shapes_are_named(change, message):
    arguments = dict(x=torch.zeros(2, 4, 6, 5), weight=torch.zeros(4, 1, 3, 3), padding=1)
    with pytest.raises(ValueError, match=message):
        contextual_conv2d(**{**arguments, **change})


def test_traced_with_symbolic_sizes():
    """As exporters trace: sizes are symbols, which no cache can look up."""
    tensors, options = make_case((2, 4, 6, 5, (3, 3), 1, 1, 1), True, dtype=torch.float32)

    def run(x, sampling_offset):
        return contextual_conv2d(x, tensors['weight'], sampling_offset=sampling_offset, **options)

    graph = make_fx(run, tracing_mode='symbolic', _allow_non_fake_inputs=True)(
        tensors['x'], tensors['sampling_offset']
    )
    other, _ = make_case((3, 4, 6, 5, (3, 3), 1, 1, 1), True, dtype=torch.float32)
    torch.testing.assert_close(
        graph(other['x'], other['sampling_offset']), run(other['x'], other['sampling_offset'])
    )


@pytest.mark.parametrize(
    ('change', 'message'),
    [
        (dict(stride=0), 'stride should be at least 1, got 0'),
        (dict(stride=(1, 0)), 'stride should be at least 1'),
        (dict(stride=1.5), 'stride should be a whole number'),
        (dict(padding='same'), "padding should be a whole number of pixels or two, got 'same'"),
        (dict(padding=None), 'padding should be a whole number'),
        (dict(padding=-1), 'padding should be at least 0'),
        (dict(dilation=0), 'dilation should be at least 1'),
        (dict(dilation=(1, 1, 1)), 'dilation should be a whole number'),
    ],
)
def test_impossible_geometry_is_named(change, message):
    with pytest.raises(UserError, match=message):
        contextual_conv2d(torch.zeros(1, 4, 8, 8), torch.zeros(4, 1, 3, 3), **change)
    with pytest.raises(UserError, match=message):
        ContextualConv2d(4, 4, 3, groups=4, prior_channels=8, **change)
