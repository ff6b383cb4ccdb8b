"""The kernels of contextualizing against PyTorch in float64, in every way (`conftest`)."""

import pytest
import torch
import torch.nn.functional as F

pytest.importorskip('triton')
pytestmark = pytest.mark.usefixtures('way')
DEVICE = 'cuda' if torch.cuda.is_available() else 'cpu'
TOLERANCES = {torch.float32: 1e-5, torch.float16: 2e-3}


def launch_on_device(*arguments):
    from mmctx.ops.triton.device_launch import launch_on_device

    launch_on_device(*arguments)


def empty(*shape, dtype=torch.float32):
    return torch.empty(shape, dtype=dtype, device=DEVICE)


def random(*shape, dtype=torch.float32):
    return torch.randn(shape, device=DEVICE).to(dtype)


def near(got, expected, dtype=torch.float32):
    assert got.shape == expected.shape
    # Sums of many terms are as precise as their largest ones.
    error = (got.double() - expected).abs().max() / expected.abs().max().clamp(min=1e-6)
    assert error <= TOLERANCES[dtype], f'{error:.1e} of {tuple(expected.shape)}'


def normed(x, scale, shift, mean=None, variance=None, eps=1e-3):
    """ReLU of the norm, of float64."""
    scale, shift = scale.double(), shift.double()
    if mean is None:
        return F.layer_norm(x, scale.shape, scale, shift, eps).relu()
    return F.batch_norm(x, mean.double(), variance.double(), scale, shift, eps=eps).relu()


@pytest.mark.parametrize('dtype', TOLERANCES)
@pytest.mark.parametrize('normalize', [False, True])
@pytest.mark.parametrize(('mergings', 'count', 'length', 'hidden'), [
    (1, 1, 1, 1), (2, 35, 65, 12), (3, 16, 8, 130),
])  # fmt: skip
def test_class_vectors(mergings, count, length, hidden, normalize, dtype):
    from mmctx.ops.triton.class_vectors import ClassStep, class_vectors_forward

    embeddings, log_length = random(count, length, dtype=dtype), random(dtype=dtype)
    steps = [
        ClassStep(random(hidden, length, dtype=dtype), *random(3, hidden, dtype=dtype))
        for _ in range(mergings)
    ]
    directions, vectors, raw, _ = class_vectors_forward(
        embeddings, log_length, steps, 1e-3, normalize, training=True
    )
    unit = F.normalize(embeddings.double(), dim=1)
    near(directions, unit * log_length.double().exp())
    given = unit * length**0.5 if normalize else embeddings.double()
    for step, got, before in zip(steps, vectors, raw, strict=True):
        expected = F.linear(given, step.weight.double(), step.bias.double())
        near(before, expected)
        near(got, normed(expected, step.scale, step.shift))


@pytest.mark.parametrize('dtype', TOLERANCES)
@pytest.mark.parametrize('fixed_statistics', [False, True])
@pytest.mark.parametrize(('batch', 'channels', 'length'), [(1, 1, 1), (3, 70, 33), (17, 300, 8)])
def test_normed_product(batch, channels, length, fixed_statistics, dtype):
    from mmctx.ops.triton.normed_product import normed_product_launch

    vectors = random(batch, channels, dtype=dtype)
    bias, scale, shift, mean = random(4, channels, dtype=dtype)
    norm = scale, shift, *((mean, mean.abs() + 0.1) if fixed_statistics else (None, None))
    weight, last_bias = random(length, channels, dtype=dtype), random(length, dtype=dtype)
    out, hidden = empty(batch, length), empty(batch, channels)
    launch = normed_product_launch(batch, channels, length, 1e-3)
    launch_on_device(launch, out, hidden, vectors, bias, *norm, weight, last_bias)
    expected = normed(vectors.double() + bias.double(), *norm)
    near(hidden, expected)
    near(out, F.linear(expected, weight.double(), last_bias.double()))


@pytest.mark.parametrize('dtype', TOLERANCES)
@pytest.mark.parametrize(('batch', 'classes', 'kept', 'hidden', 'length'), [
    (1, 1, 1, 1, 1), (3, 90, 70, 12, 33), (2, 11, 5, 130, 140),
])  # fmt: skip
def test_prior(batch, classes, kept, hidden, length, dtype):
    from mmctx.ops.triton.prior import prior_launch

    vectors = random(classes, hidden)
    top = torch.stack([torch.randperm(classes)[:kept] for _ in range(batch)]).int().to(DEVICE)
    weight, vectors_of = random(length, hidden, dtype=dtype), random(3, length, dtype=dtype)
    prior, raw, merged = empty(batch, length).to(dtype), empty(batch, length), empty(batch, hidden)
    launch = prior_launch(batch, kept, hidden, length, 1e-3)
    launch_on_device(launch, prior, raw, merged, vectors, top, weight, *vectors_of)
    mean = vectors.double()[top.long()].mean(1)
    expected = F.linear(mean, weight.double(), vectors_of[0].double())
    near(merged, mean)
    near(raw, expected)
    near(prior, normed(expected, *vectors_of[1:]), dtype)


@pytest.mark.parametrize('dtype', [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize(('batch', 'channels', 'height', 'width'), [
    (1, 1, 1, 1), (1, 70, 33, 9), (3, 130, 2, 5), (300, 3, 4, 4),
])  # fmt: skip
@pytest.mark.parametrize('layout', ['channels last', 'channels first', 'unaligned'])
def test_mean_over_pixels(layout, batch, channels, height, width, dtype):
    from mmctx.ops.triton.pixel_mean import PixelMean

    x = random(batch, height, width, channels, dtype=dtype).permute(0, 3, 1, 2)
    if layout == 'channels first':
        x = x.contiguous()
    elif layout == 'unaligned':
        memory = empty(x.numel() + 1, dtype=dtype)[1:]
        x = memory.view(batch, height, width, channels).permute(0, 3, 1, 2).copy_(x)
        assert x.data_ptr() % 16
    for of in (torch.float32, dtype):
        mean = PixelMean(x.shape, dtype, of)(0, x)
        assert mean.dtype == of
        expected = x.double().mean((2, 3))
        tolerance = dict(rtol=torch.finfo(of).eps, atol=torch.finfo(of).eps)
        torch.testing.assert_close(mean.double(), expected, **tolerance)


@pytest.mark.parametrize(('classes', 'count'), [(1, 1), (11, 11), (70, 1), (100, 37), (1000, 500)])
@pytest.mark.parametrize('follows', [False, True])
def test_kept_classes_are_the_largest(classes, count, follows):
    from mmctx.ops.triton.keeping import keep_launch

    # Whole numbers, so that many are equal and both zeros and signs occur.
    products = torch.randn(3, classes, device=DEVICE).mul(4).round()
    images = torch.randn(3, 5, device=DEVICE)
    before = None
    if follows:
        before = torch.zeros(3, classes, dtype=torch.bool, device=DEVICE)
        before[:, torch.randperm(classes)[: (count + classes + 1) // 2]] = True
    logits, share = empty(3, classes), empty(3, classes)
    kept, top = empty(3, classes, dtype=torch.bool), empty(3, count, dtype=torch.int32)
    launch = keep_launch(3, classes, 5, count)
    launch_on_device(launch, logits, kept, top, share, products, images, before)
    expected = products / images.norm(dim=1, keepdim=True)
    if follows:
        expected = torch.where(before, expected, -torch.inf)
    torch.testing.assert_close(logits, expected)
    assert (kept.sum(1) == count).all()
    for row, chosen in zip(expected, kept, strict=True):
        assert row[chosen].sort().values.tolist() == row.topk(count).values.sort().values.tolist()
    torch.testing.assert_close(share, kept / count)
    assert torch.equal(top, kept.nonzero()[:, 1].view(3, count))
    alone = products.clone()
    launch = keep_launch(3, classes, 5, None)
    launch_on_device(launch, alone, None, None, None, alone, images, before)
    assert torch.equal(alone, logits)


@pytest.mark.parametrize('beside', ['nothing', 'inputs', 'inputs and an addend'])
@pytest.mark.parametrize('sums', [0, 1, 3])
@pytest.mark.parametrize(('count', 'channels', 'length'), [(1, 1, 1), (35, 40, 70), (3, 65, 9)])
def test_gradients_of_a_linear_layer(count, channels, length, sums, beside):
    from mmctx.ops.triton.step_gradient import step_gradients_launch

    rows, inputs = random(max(sums, 1), count, channels), random(count, length)
    # Matrices whose rows are further apart than they are long.
    weight, grad_weight, added = random(channels, length + 2), empty(channels, length + 2), None
    grad_weight.fill_(7)
    of_sums = empty(sums, channels) if sums else None
    grad_inputs = None if beside == 'nothing' else empty(count, length)
    if 'addend' in beside:
        added = random(count, length + 3)
    launch = step_gradients_launch(
        sums, count, channels, length, grad_inputs is not None, 0.5, length + 2, length + 3
    )
    of_inputs = (None if grad_inputs is None else weight), added
    launch_on_device(launch, grad_weight, of_sums, grad_inputs, rows, inputs, *of_inputs)
    near(grad_weight[:, :length], rows[0].double().t() @ inputs.double())
    assert (grad_weight[:, length:] == 7).all()
    if sums:
        near(of_sums, rows.double().sum(1))
    if grad_inputs is not None:
        expected = rows[0].double() @ weight[:, :length].double() / 2
        near(grad_inputs, expected if added is None else expected + added[:, :length])
