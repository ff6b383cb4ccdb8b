"""The kernels of contextualizing against PyTorch in float64: on a GPU, else in the interpreter."""

import pytest
import torch
import torch.nn.functional as F

pytest.importorskip('triton')
pytestmark = pytest.mark.usefixtures('interpreted_without_a_gpu')
DEVICE = 'cuda' if torch.cuda.is_available() else 'cpu'
TOLERANCES = {torch.float32: 1e-5, torch.float16: 2e-3}


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
def test_class_vectors(mergings, count, length, hidden, normalize, dtype, poisoned):
    from mmctx.ops.triton.class_vectors import ClassStep, class_vectors_forward

    embeddings, log_length = random(count, length, dtype=dtype), random(dtype=dtype)
    steps = [
        ClassStep(random(hidden, length, dtype=dtype), *random(3, hidden, dtype=dtype), 1e-3)
        for _ in range(mergings)
    ]
    directions, vectors, raw = class_vectors_forward(embeddings, log_length, steps, normalize, True)
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
def test_normed_product(batch, channels, length, fixed_statistics, dtype, poisoned):
    from mmctx.ops.triton.fixed_norm import Norm
    from mmctx.ops.triton.normed_product import normed_product

    vectors = random(batch, channels, dtype=dtype)
    bias, scale, shift, mean = random(4, channels, dtype=dtype)
    norm = Norm(
        scale, shift, *((mean, mean.abs() + 0.1) if fixed_statistics else (None, None)), 1e-3
    )
    weight, last_bias = random(length, channels, dtype=dtype), random(length, dtype=dtype)
    out, hidden = normed_product(vectors, bias, norm, weight, last_bias, keep_hidden=True)
    expected = normed(vectors.double() + bias.double(), *norm[:4])
    near(hidden, expected)
    near(out, F.linear(expected, weight.double(), last_bias.double()))


@pytest.mark.parametrize('dtype', TOLERANCES)
@pytest.mark.parametrize(('batch', 'classes', 'kept', 'hidden', 'length'), [
    (1, 1, 1, 1, 1), (3, 90, 70, 12, 33), (2, 11, 5, 130, 140),
])  # fmt: skip
def test_prior(batch, classes, kept, hidden, length, dtype, poisoned):
    from mmctx.ops.triton.prior import merge

    vectors = random(classes, hidden)
    top = torch.stack([torch.randperm(classes)[:kept] for _ in range(batch)]).int().to(DEVICE)
    weight, vectors_of = random(length, hidden, dtype=dtype), random(3, length, dtype=dtype)
    prior, raw, merged = merge(vectors, top, weight, *vectors_of, 1e-3, keep_merged=True)
    mean = vectors.double()[top.long()].mean(1)
    expected = F.linear(mean, weight.double(), vectors_of[0].double())
    near(merged, mean)
    near(raw, expected)
    assert prior.dtype == dtype
    near(prior, normed(expected, *vectors_of[1:]), dtype)
