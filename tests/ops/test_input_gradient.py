"""The gradient of x in half precision, by products of matrices and by sums."""

import pytest
import torch
from conftest import forget_launches
from contextual_cases import make_case, offset_to_one_pixel, relative_error, with_gradients

from mmctx.ops import contextual_conv2d

pytest.importorskip('triton')
pytestmark = pytest.mark.usefixtures('way')
DEVICE = 'cuda' if torch.cuda.is_available() else 'cpu'
# batch, channels, height, width, kernel, stride, padding, dilation: images of one and of several
# programs, with a row in several, and with several rows in one.
GEOMETRIES = [
    (2, 70, 6, 5, (3, 3), 2, 1, 1),
    (1, 64, 3, 21, (3, 3), 1, 1, 1),
    (1, 128, 7, 7, (7, 7), 1, 3, 1),
    (2, 130, 5, 1, (3, 5), 1, (1, 2), 1),
    (1, 16, 1, 1, (1, 1), 1, 0, 1),
]
SMALL = (1, 64, 12, 12, (3, 3), 1, 1, 1)


@pytest.fixture(params=['products', 'sums'])
def gathering(request, monkeypatch):
    """The gradient of x by products, where the shape allows it, or by sums."""
    from mmctx.ops.triton import backward

    products = request.param == 'products'
    monkeypatch.setattr(backward, 'multiplies_halves', lambda device: products)
    forget_launches()
    yield request.param
    forget_launches()


def gradient_of_x(tensors, options, backend, grad=None):
    leaves = dict(tensors, x=tensors['x'].detach().requires_grad_())
    return with_gradients(leaves, options, grad, backend=backend)['x']


def gradients_of_x(tensors, options, grad=None):
    """From the kernels, and from the reference in float64."""
    exact = {k: v if v is None else v.double() for k, v in tensors.items()}
    expected = gradient_of_x(exact, options, 'reference', grad)
    return gradient_of_x(tensors, options, 'triton', grad).double(), expected


# Seen: at most 5.5e-4 of the norm in float16, and 8.6e-3 in bfloat16, to which the interpreter cuts
# off.
@pytest.mark.parametrize(
    ('dtype', 'tolerance', 'absent'),
    [
        (torch.float16, 1e-3, ()),
        (torch.float16, 1e-3, ('weight_offset',)),
        (torch.float16, 1e-3, ('sampling_offset', 'mask')),
        (torch.bfloat16, 1.2e-2, ()),
    ],
    ids=str,
)
@pytest.mark.parametrize('depthwise', [True, False])
@pytest.mark.parametrize('geometry', GEOMETRIES, ids=str)
def test_agrees_with_the_reference(geometry, depthwise, dtype, tolerance, absent):
    tensors, options = make_case(geometry, depthwise, dtype=dtype, device=DEVICE)
    tensors.update(dict.fromkeys(absent))
    assert relative_error(*gradients_of_x(tensors, options)) < tolerance


@pytest.mark.parametrize('dtype', [torch.float16, torch.bfloat16])
@pytest.mark.parametrize('depthwise', [True, False])
def test_both_ways_agree_with_the_reference(gathering, depthwise, dtype):
    tensors, options = make_case(GEOMETRIES[0], depthwise, dtype=dtype, device=DEVICE)
    tolerance = 1e-3 if dtype == torch.float16 else 1.2e-2
    assert relative_error(*gradients_of_x(tensors, options)) < tolerance


def problem_of_case(tensors):
    from mmctx.ops.triton.problem import problem_of

    pairs = dict.fromkeys(('stride', 'padding', 'dilation'), (1, 1))
    return problem_of(**tensors, **pairs, mask_is_logits=False)


def test_chosen_way_runs(gathering):
    from mmctx.ops.triton import backward, settings

    tensors, _ = make_case(GEOMETRIES[0], True, dtype=torch.float16, device=DEVICE)
    run = backward.InputGradient(problem_of_case(tensors), settings.current(), False)
    wanted = dict(products=backward.gather_product_kernel, sums=backward.gather_kernel)
    assert run.gather.kernel is wanted[gathering]


@pytest.mark.parametrize('halves', [True, False])
def test_products_where_they_fit(halves, monkeypatch):
    from mmctx.ops.triton import backward

    monkeypatch.setattr(backward, 'multiplies_halves', lambda device: halves)
    for side in (3, 4, 5):
        for depthwise in (True, False):
            for delta in (True, False):
                for dtype in (torch.float16, torch.bfloat16, torch.float32):
                    geometry = (1, 2, 5, 5, (side, side), 1, 1, 1)
                    tensors, _ = make_case(geometry, depthwise, dtype=dtype, device=DEVICE)
                    if not delta:
                        tensors['weight_offset'] = None
                    fits = depthwise or not delta or side < 5
                    fits = fits and halves and dtype != torch.float32
                    assert backward.gathers_by_products(problem_of_case(tensors)) == fits


def test_tensor_cores_of_a_device(monkeypatch):
    from mmctx.ops.triton.problem import multiplies_halves

    def ask(hip, capability):
        monkeypatch.setattr(torch.version, 'hip', hip)
        monkeypatch.setattr(torch.cuda, 'get_device_capability', lambda device: capability)
        return multiplies_halves.__wrapped__(torch.device('cuda', 0))

    assert [ask(None, c) for c in ((7, 5), (8, 0), (9, 0), (12, 0))] == [False, True, True, True]
    assert not ask('6.2', (9, 4))


@pytest.mark.parametrize('groups', [1, 2])
@pytest.mark.parametrize('pixels', [16, 32])
def test_tiles_do_not_matter(pixels, groups):
    from mmctx.ops.triton import settings

    tensors, options = make_case(GEOMETRIES[0], True, dtype=torch.float16, device=DEVICE)
    with settings.override(gather_product=settings.Tile(pixels, groups, 64, warps=1)):
        assert relative_error(*gradients_of_x(tensors, options)) < 1e-3


@pytest.mark.parametrize('depthwise', [True, False])
def test_all_samples_on_one_pixel(depthwise):
    """A list of several steps, and all others empty."""
    tensors, options = make_case(SMALL, depthwise, dtype=torch.float16, device=DEVICE)
    tensors['sampling_offset'] = offset_to_one_pixel(tensors['sampling_offset']) - 0.25
    got, expected = gradients_of_x(tensors, options)
    assert expected.ne(0).any(1).sum() == 4
    assert torch.equal(got.eq(0), expected.eq(0))
    assert relative_error(got, expected) < 1e-3


@pytest.mark.parametrize('name', ['sampling_offset', 'mask'])
def test_nan_of_a_sample_stays_with_its_pixels(gathering, name):
    tensors, options = make_case(SMALL, True, dtype=torch.float16, device=DEVICE)
    tensors['sampling_offset'][0, :2, 2, 3] = 0.25  # inside the image
    tensors[name][0, 0, 2, 3] = float('nan')
    got = gradient_of_x(tensors, options, 'triton')
    assert 0 < got.isnan().any(1).sum() <= 4


@pytest.mark.parametrize('value', [float('inf'), float('nan')])
@pytest.mark.parametrize('depthwise', [True, False])
def test_a_gradient_that_is_no_number_does_not_spread_far(gathering, depthwise, value):
    """All tiles of 16 pixels that load it end before row 4."""
    tensors, options = make_case(SMALL, depthwise, dtype=torch.float16, device=DEVICE)
    tensors['sampling_offset'] = None
    out = contextual_conv2d(**tensors, **options, backend='triton')
    grad = torch.ones_like(out)
    grad[..., 0, 0] = value
    got = gradient_of_x(tensors, options, 'triton', grad)
    assert not got[..., :2, :2].isfinite().all()
    assert got[..., 4:, :].isfinite().all()


# The first two have few bits themselves, so that products are less precise by a few percent.
@pytest.mark.parametrize(
    ('gradient', 'kernel', 'mask', 'tolerance'),
    [(1.2e-6, 0.02, 1, 0.03), (2e-6, 6e-4, 1, 0.03), (4e4, 2, 0.01, 2e-3), (1, 0, 1, 0)],
)
def test_gradients_at_the_limits_of_float16(gathering, gradient, kernel, mask, tolerance):
    """Their products with the kernel are beyond float16, but not the gradient of x."""
    geometry = (1, 64, 8, 8, (7, 7), 1, 3, 1)
    tensors, options = make_case(geometry, True, dtype=torch.float16, device=DEVICE)
    tensors['weight'].fill_(kernel)
    tensors['mask'].fill_(mask)
    tensors['sampling_offset'].zero_()
    tensors['weight_offset'] = None
    grad = torch.full((1, 64, 8, 8), gradient, device=DEVICE, dtype=torch.float16)
    if gradient > 1:
        grad[..., 1:, :] = 0
    got, expected = gradients_of_x(tensors, options, grad)
    half_of_a_step = 3e-8
    torch.testing.assert_close(got, expected, rtol=tolerance, atol=half_of_a_step)


def test_kernels_of_many_taps(gathering):
    """The largest value of a channel may be any of them."""
    geometry = (1, 64, 5, 4, (9, 9), 1, 4, 1)
    tensors, options = make_case(geometry, True, dtype=torch.float16, device=DEVICE)
    tensors['weight_offset'] = None
    tensors['weight'].flatten(1)[:, :64] = 0
    assert relative_error(*gradients_of_x(tensors, options)) < 1e-3


def test_shared_gradients_are_not_cut_off():
    """Numbers of one sign, whose rounding errors would add up if they were of one sign too."""
    geometry = (1, 64, 6, 6, (3, 3), 1, 1, 1)
    tensors, options = make_case(geometry, False, dtype=torch.float16, device=DEVICE)
    tensors['weight'].zero_()
    tensors['weight_offset'] = tensors['weight_offset'].abs() + 0.5
    grad = torch.rand(1, 66, 6, 6, device=DEVICE).half()
    got, expected = gradients_of_x(tensors, options, grad)
    assert ((got - expected) / expected).mean().abs() < 5e-5


def parts_of_backward(geometry, depthwise):
    """What computes the gradient of x, its arguments but that of the mean, and their names."""
    from mmctx.ops.triton import settings
    from mmctx.ops.triton.backward import Backward
    from mmctx.ops.triton.launching import current_stream
    from mmctx.ops.triton.problem import channels_last

    tensors, _ = make_case(geometry, depthwise, dtype=torch.float16, device=DEVICE)
    problem = problem_of_case(tensors)
    of_x_only = (True, *[False] * 5)
    run = Backward(problem, settings.current(), of_x_only, False, pooled_image=geometry[1] + 7)
    tensors.pop('bias')
    x = channels_last(tensors.pop('x'))
    grad = 0.1 * torch.randn(len(x), problem.out_channels, *problem.out_size, device=DEVICE)
    stream = current_stream(x.device)
    _, grad, grad_sum, kernels = run.of_kernels(
        stream, channels_last(grad.half()), x, **tensors, tables=None
    )
    return run.input, dict(
        stream=stream, x=x, sampling_offset=tensors['sampling_offset'], mask=tensors['mask'],
        kernels=kernels, grad=grad, grad_sum=grad_sum,
    )  # fmt: skip


@pytest.mark.parametrize('channels', [70, 128])
@pytest.mark.parametrize('depthwise', [True, False])
def test_gradient_of_the_mean_is_added(gathering, depthwise, channels):
    """From rows at any distance, as those of the gradient of several inputs are."""
    of_x, arguments = parts_of_backward((2, channels, 5, 3, (3, 3), 1, 1, 1), depthwise)
    rows = torch.randn(2, channels + 7, device=DEVICE)
    without, with_mean = (
        of_x(**arguments, of_pooled=of_pooled[:, 7:]).double()
        for of_pooled in (torch.zeros_like(rows), rows)
    )
    share = (rows[:, 7:].double() / 15)[..., None, None].expand_as(without)
    torch.testing.assert_close(with_mean - without, share, rtol=0, atol=1e-2)
    assert share.abs().max() > 0.1


def test_nan_of_shared_gradients_is_kept(gathering):
    """Also as a GPU makes it, with all bits set but the sign."""
    of_x, arguments = parts_of_backward((1, 64, 5, 3, (3, 3), 1, 1, 1), False)
    arguments['grad_sum'].view(torch.int32).fill_(0x7FFFFFFF)
    arguments['sampling_offset'].zero_()
    assert of_x(**arguments).isnan().all()
