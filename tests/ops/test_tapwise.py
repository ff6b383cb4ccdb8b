"""What the CPU back end adds to the common checks: its operators and its own backward."""

from itertools import product

import pytest
import torch
from contextual_cases import make_case
from torch._subclasses import FakeTensorMode
from torch.utils.flop_counter import FlopCounterMode

from mmctx.ops import contextual_conv2d, tapwise, tapwise_depthwise

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


@pytest.mark.parametrize('table_values', [tapwise_depthwise.TABLE_VALUES, 0], ids=['', 'no table'])
@pytest.mark.parametrize('depthwise', [True, False])
def test_any_argument_may_be_absent(depthwise, table_values, monkeypatch):
    monkeypatch.setattr(tapwise_depthwise, 'TABLE_VALUES', table_values)
    everything, options = make_case(GEOMETRIES[1], depthwise)
    optional = [name for name in NAMES if name not in ('x', 'weight')]
    for chosen in product([False, True], repeat=len(optional)):
        absent = [name for name, left_out in zip(optional, chosen) if left_out]
        tensors = {name: t for name, t in everything.items() if name not in absent}
        assert_agrees(tensors, options, list(tensors))


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


@pytest.mark.parametrize(('values', 'taps'), [(49, 49), (20, 20), (4, 4), (3, 0)])
def test_tables_of_any_size_agree(values, taps, monkeypatch):
    """Tables of all taps, of unequal length, and none at all."""
    tensors, options = make_case((3, 6, 9, 8, (7, 7), 1, 3, 1), True)
    monkeypatch.setattr(tapwise_depthwise, 'TABLE_VALUES', values * tensors['x'].numel())
    assert tapwise_depthwise.taps_of_table(tensors['x'].numel()) == taps
    assert_agrees(tensors, options)


def test_sorting_some_taps_at_a_time_changes_nothing(monkeypatch):
    tensors, options = make_case(GEOMETRIES[0], True)
    at_once = gradients(tensors, options, NAMES)[1]
    # lots of 4 of the 49 taps
    monkeypatch.setattr(tapwise_depthwise, 'SORTED_AT_ONCE', 4 * 13 * 5 * 4)
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


def double(*shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(sum(shape))).double()


@pytest.mark.parametrize(
    ('name', 'kernels'),
    [
        ('sampled_depthwise_conv', [double(2, 5, 4)]),
        ('sampled_dense_conv', [double(6, 4, 5), double(2, 5, 4)]),
        ('sampled_dense_conv', [double(6, 5, 4).transpose(1, 2), None]),
    ],
    ids=['depthwise', 'dense', 'dense, channels last, without Δw'],
)
@pytest.mark.parametrize('tap_by_tap', [False, True])
def test_operators_are_registered_soundly(name, kernels, tap_by_tap):
    operator, backward = (getattr(torch.ops.mmctx, name + end) for end in ('', '_backward'))
    x, corners = double(2, 8, 4), double(2, 3, 5, 4)  # 8 pixels, 3 output pixels, 5 taps
    indices = torch.randint(0, 8, corners.shape, dtype=torch.int32)
    if tap_by_tap:
        indices, corners = (t.movedim(2, 0).contiguous().movedim(0, 2) for t in (indices, corners))
    grad = operator(x, indices, corners, *kernels)
    tensors = x, corners, *kernels
    for needed in product([True, False], repeat=len(tensors)):
        needed = [wanted and t is not None for wanted, t in zip(needed, tensors)]
        torch.library.opcheck(backward, (grad, x, indices, corners, *kernels, needed))
        # A compiler relies on the layouts that the fake gradients have.
        with FakeTensorMode() as mode:
            fakes = [t if t is None else mode.from_tensor(t) for t in (grad, x, indices, corners)]
            of_kernels = [t if t is None else mode.from_tensor(t) for t in kernels]
            expected = backward(*fakes, *of_kernels, needed)
        for got, fake in zip(backward(grad, x, indices, corners, *kernels, needed), expected):
            assert got.stride() == fake.stride()
    leaves = [None if t is None else t.clone().requires_grad_() for t in tensors]
    torch.library.opcheck(operator, (leaves[0], indices, *leaves[1:]))


@pytest.mark.parametrize('depthwise', [True, False])
def test_its_result_may_be_changed_in_place(depthwise):
    """As after a convolution without a bias, whose result is then no sum."""
    tensors, options = make_case(GEOMETRIES[1], depthwise)
    del tensors['bias']
    names = list(tensors)
    leaves = {k: v.clone().requires_grad_() for k, v in tensors.items()}
    out = contextual_conv2d(**leaves, **options, backend='tapwise').relu_()
    expected = contextual_conv2d(**leaves, **options, backend='reference').relu()
    for name, got, wanted in zip(
        names,
        torch.autograd.grad(out.square().sum(), leaves.values()),
        torch.autograd.grad(expected.square().sum(), leaves.values()),
    ):
        torch.testing.assert_close(got, wanted, rtol=1e-10, atol=1e-10, msg=f'{name}: {{}}'.format)


@pytest.mark.parametrize(('depthwise', 'name'), [(True, 'x'), (False, 'x'), (False, 'weight')])
def test_no_gradient_of_what_was_changed_in_place(depthwise, name):
    """Of other arguments not they are saved, but what is computed from them."""
    tensors, options = make_case(GEOMETRIES[1], depthwise)
    tensors['x'] = tensors['x'].contiguous(memory_format=torch.channels_last)
    leaves = {k: v.clone().requires_grad_() for k, v in tensors.items()}
    out = contextual_conv2d(**leaves, **options, backend='tapwise')
    with torch.no_grad():
        leaves[name].mul_(2)
    with pytest.raises(RuntimeError, match='modified by an inplace operation'):
        out.sum().backward()


@pytest.mark.parametrize('depthwise', [True, False])
def test_gradients_without_values(depthwise):
    """As on the `meta` device, where whole networks are laid out."""
    tensors, options = make_case(GEOMETRIES[1], depthwise)
    leaves = {k: v.to('meta').requires_grad_() for k, v in tensors.items()}
    contextual_conv2d(**leaves, **options, backend='tapwise').sum().backward()
    assert {k: v.grad.shape for k, v in leaves.items()} == {k: v.shape for k, v in tensors.items()}


@pytest.mark.parametrize('depthwise', [True, False])
def test_several_gradients_at_once(depthwise):
    tensors, options = make_case(GEOMETRIES[1], depthwise)
    leaves = [t.requires_grad_() for t in tensors.values()]
    out = contextual_conv2d(**tensors, **options, backend='tapwise')
    several = torch.stack([torch.ones_like(out), out.detach()])
    together = torch.autograd.grad(
        out, leaves, several, is_grads_batched=True, retain_graph=True
    )  # fmt: skip
    for i, grad in enumerate(several):
        alone = torch.autograd.grad(out, leaves, grad, retain_graph=True)
        for a, b in zip(together, alone):
            torch.testing.assert_close(a[i], b)


@pytest.mark.parametrize('depthwise', [True, False])
@pytest.mark.parametrize(
    ('needed', 'passes'),
    [(['x'], 1), (['weight'], 1), (['x', 'weight_offset'], 2), (['sampling_offset', 'x'], 1)],
)
def test_multiply_adds_of_the_backward_pass(depthwise, needed, passes):
    tensors, options = make_case(GEOMETRIES[1], depthwise)
    leaves = {k: v.requires_grad_(k in needed) for k, v in tensors.items()}
    counts = []
    for backward in (False, True):
        with FlopCounterMode(display=False) as counter:
            out = contextual_conv2d(**leaves, **options, backend='tapwise')
            if backward:
                out.sum().backward()
        counts.append(counter.get_total_flops())
    assert counts[1] == (1 + passes) * counts[0] > 0


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


@pytest.mark.parametrize(('name', 'depthwise'), [('depthwise_conv', True), ('dense_conv', False)])
def test_rows_of_one_image_are_laid_out_for_the_gather(name, depthwise, monkeypatch):
    """Strided rows give the same numbers, ten times as slowly."""
    laid_out, operator = [], getattr(tapwise, name)

    def look(rows, *rest):
        laid_out.append(rows.is_contiguous())
        return operator(rows, *rest)

    monkeypatch.setattr(tapwise, name, look)
    tensors, options = make_case((1, 5, 7, 9, (3, 3), 1, 1, 1), depthwise)
    contextual_conv2d(**tensors, **options, backend='tapwise')
    assert laid_out == [True]
