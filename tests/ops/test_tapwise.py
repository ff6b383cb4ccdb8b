"""What the CPU back end adds to the common checks: its operators and its own backward."""

from itertools import product

import pytest
import torch
from contextual_cases import make_case

from mmctx.ops import contextual_conv2d
from mmctx.ops import tapwise as operators

# batch, channels, height, width, kernel, stride, padding, dilation
GEOMETRIES = [
    (1, 17, 13, 5, (7, 7), 1, 3, 1),
    (3, 5, 11, 9, (3, 3), 2, 1, 2),
    (2, 33, 4, 7, (5, 5), 1, 2, 1),
]
NAMES = ('x', 'weight', 'bias', 'sampling_offset', 'weight_offset', 'mask')


def gradients(tensors, options, names, backend='tapwise'):
    """Output, and gradients of the named tensors where only they need any."""
    leaves = {k: v.detach().clone().requires_grad_(k in names) for k, v in tensors.items()}
    out = contextual_conv2d(**leaves, **options, backend=backend)
    cotangent = torch.randn(out.shape, generator=torch.Generator().manual_seed(0)).to(out)
    return out.detach(), torch.autograd.grad(out, [leaves[n] for n in names], cotangent)


def assert_agrees(tensors, options, names=NAMES):
    out, got = gradients(tensors, options, names)
    expected, wanted = gradients(tensors, options, names, 'reference')
    torch.testing.assert_close(out, expected, rtol=1e-12, atol=1e-12)
    for name, a, b in zip(names, got, wanted):
        torch.testing.assert_close(a, b, rtol=1e-11, atol=1e-11, msg=f'{name}: {{}}'.format)
    return dict(zip(names, got))


@pytest.mark.parametrize('depthwise', [True, False])
@pytest.mark.parametrize('geometry', GEOMETRIES, ids=str)
@pytest.mark.parametrize('spread', [0.0, 1.5, 200.0])
def test_agrees_with_the_reference(geometry, depthwise, spread):
    assert_agrees(*make_case(geometry, depthwise, spread))


@pytest.mark.parametrize('depthwise', [True, False])
def test_any_subset_of_gradients(depthwise):
    tensors, options = make_case(GEOMETRIES[1], depthwise)
    everything = dict(zip(NAMES, gradients(tensors, options, NAMES)[1]))
    for chosen in product([False, True], repeat=len(NAMES)):
        names = [n for n, wanted in zip(NAMES, chosen) if wanted]
        if names:
            for name, got in zip(names, gradients(tensors, options, names)[1]):
                torch.testing.assert_close(got, everything[name], rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize('depthwise', [True, False])
def test_every_sample_at_one_pixel(depthwise):
    tensors, options = make_case((2, 6, 9, 8, (3, 3), 1, 1, 1), depthwise)
    row, column = torch.arange(9.0).double()[:, None], torch.arange(8.0).double()
    sampling_offset = tensors['sampling_offset'].zero_().unflatten(1, (3, 3, 2))
    for i, j in product(range(3), repeat=2):
        sampling_offset[:, i, j, 0] = 4 - (row - 1 + i)
        sampling_offset[:, i, j, 1] = 3 - (column - 1 + j)
    by_x = assert_agrees(tensors, options)['x']
    assert by_x[:, :, 4, 3].abs().min() > 0
    by_x[:, :, 4, 3] = 0
    assert not by_x.any()


@pytest.mark.parametrize('depthwise', [True, False])
def test_nothing_sampled_gives_no_gradient(depthwise):
    tensors, options = make_case(GEOMETRIES[0], depthwise)
    tensors['sampling_offset'].fill_(1e6)
    got = assert_agrees(tensors, options)
    assert got['bias'].any()
    assert not any(got[n].any() for n in NAMES if n != 'bias')


def test_sorting_some_taps_at_a_time_changes_nothing(monkeypatch):
    tensors, options = make_case(GEOMETRIES[0], True)
    at_once = gradients(tensors, options, NAMES)[1]
    monkeypatch.setattr(operators, 'SORTED_AT_ONCE', 4 * 13 * 5 * 4)  # lots of 4 of the 49 taps
    for a, b in zip(gradients(tensors, options, NAMES)[1], at_once):
        assert torch.equal(a, b)


@pytest.mark.parametrize('depthwise', [True, False])
def test_repeats_bit_by_bit(depthwise):
    # 2 · 24² pixels are enough for PyTorch to share the work out between threads.
    tensors, options = make_case((2, 16, 24, 24, (3, 3), 1, 1, 1), depthwise, dtype=torch.float32)
    threads = torch.get_num_threads()
    results = []
    try:
        for count in (1, 2, 2):
            torch.set_num_threads(count)
            out, by_inputs = gradients(tensors, options, NAMES)
            results.append((out, *by_inputs))
    finally:
        torch.set_num_threads(threads)
    alone, *together = results
    for a, b, c in zip(alone, *together):
        assert torch.equal(b, c)
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize('depthwise', [True, False])
def test_gradients_of_an_empty_batch(depthwise):
    tensors, options = make_case(GEOMETRIES[1], depthwise)
    none = {k: v if k in ('weight', 'bias') else v[:0] for k, v in tensors.items()}
    for name, by_input in zip(NAMES, gradients(none, options, NAMES)[1]):
        assert by_input.shape == none[name].shape
        assert not by_input.any()


def test_operators_are_registered_soundly():
    generator = torch.Generator().manual_seed(0)
    rows = torch.randn(8, 3, generator=generator, dtype=torch.float64)
    indices = torch.randint(0, 8, (2, 2, 3, 4), generator=generator)
    corners = torch.rand(indices.shape, generator=generator, dtype=torch.float64)
    kernels = torch.randn(2, 2, 3, generator=generator, dtype=torch.float64)
    grad = torch.randn(2, 3, 3, generator=generator, dtype=torch.float64)
    samples = indices.flatten(0, 2), corners.flatten(0, 2)
    by_sample = torch.randn(12, 3, generator=generator, dtype=torch.float64)
    for needed in ([True, True, True], [False, True, False], [True, False, False]):
        torch.library.opcheck(
            operators.sampled_depthwise_conv_backward,
            (grad, rows, indices, corners, kernels, needed),
        )
    for needed in ([True, True], [False, True]):
        torch.library.opcheck(operators.sampled_rows_backward, (by_sample, rows, *samples, needed))
    leaves = [t.clone().requires_grad_() for t in (rows, corners, kernels)]
    torch.library.opcheck(
        operators.sampled_depthwise_conv, (leaves[0], indices, leaves[1], leaves[2])
    )
    torch.library.opcheck(
        operators.sampled_rows, (leaves[0], samples[0], samples[1].clone().requires_grad_())
    )


@pytest.mark.parametrize('depthwise', [True, False])
def test_trains_compiled_without_a_graph_break(depthwise):
    tensors, options = make_case(GEOMETRIES[1], depthwise)
    torch.compiler.reset()
    compiled = torch.compile(contextual_conv2d, backend='aot_eager', fullgraph=True)
    leaves = [t.requires_grad_() for t in tensors.values()]
    cotangent = torch.ones_like(contextual_conv2d(**tensors, **options))
    got, wanted = (
        torch.autograd.grad(f(**tensors, **options, backend='tapwise'), leaves, cotangent)
        for f in (compiled, contextual_conv2d)
    )
    for a, b in zip(got, wanted):
        torch.testing.assert_close(a, b)


@pytest.mark.parametrize('depthwise', [True, False])
def test_derivatives_it_lacks_are_refused(depthwise):
    tensors, options = make_case(GEOMETRIES[1], depthwise)
    x = tensors['x'].requires_grad_()
    out = contextual_conv2d(**tensors, **options, backend='tapwise')
    by_x = torch.autograd.grad(out.square().sum(), x, create_graph=True)[0]
    with pytest.raises(NotImplementedError, match='second derivatives'):
        by_x.sum().backward()


@pytest.mark.parametrize(
    ('name', 'depthwise'), [('sampled_depthwise_conv', True), ('sampled_rows', False)]
)
def test_rows_of_one_image_are_laid_out_for_the_gather(name, depthwise, monkeypatch):
    """Strided rows give the same numbers, ten times as slowly."""
    laid_out, operator = [], getattr(operators, name)

    def look(rows, *rest):
        laid_out.append(rows.is_contiguous())
        return operator(rows, *rest)

    monkeypatch.setattr(operators, name, look)
    tensors, options = make_case((1, 5, 7, 9, (3, 3), 1, 1, 1), depthwise)
    contextual_conv2d(**tensors, **options, backend='tapwise')
    assert laid_out == [True]
