"""Pixels and weights of bilinear samples against the formula, for every pixel."""

import math

import pytest
import torch

from mmctx.ops.sampling import bilinear_corners, sample_taps

HEIGHT, WIDTH = 3, 4
FAR = [-math.inf, -1e30, -(2.0**31), -2.0, 2.0**31, 1e30, math.inf]
NEAR = [-1.0, -0.75, -0.0, 0.0, 0.25, 1.0, 1.5, 2.0, 2.5, 2.999, 3.0, 3.5, 4.0, 4.5]


def on_image(indices, weights):
    """Weights of all pixels, (N, H·W)."""
    found = torch.zeros(len(indices), HEIGHT * WIDTH, dtype=weights.dtype)
    return found.scatter_add(1, indices.long(), weights)


@pytest.mark.parametrize('dtype', [torch.float32, torch.float64])
def test_weights_are_those_of_the_formula(dtype):
    y, x = torch.cartesian_prod(*[torch.tensor(FAR + NEAR, dtype=dtype)] * 2).T
    indices, weights = bilinear_corners(y, x, (HEIGHT, WIDTH))
    assert indices.min() >= 0
    assert indices.max() < HEIGHT * WIDTH
    rows, columns = torch.arange(HEIGHT), torch.arange(WIDTH)
    by_row = (1 - (y[:, None] - rows).abs()).clamp(min=0)
    by_column = (1 - (x[:, None] - columns).abs()).clamp(min=0)
    expected = (by_row[:, :, None] * by_column[:, None]).flatten(1)
    torch.testing.assert_close(on_image(indices, weights), expected)


def test_a_position_that_is_no_number_reads_a_pixel_and_shows():
    y, x = torch.tensor([[math.nan, 1.0, math.nan], [1.0, math.nan, math.nan]])
    indices, weights = bilinear_corners(y, x, (HEIGHT, WIDTH))
    assert indices.min() >= 0
    assert indices.max() < HEIGHT * WIDTH
    assert weights.isnan().any(1).all()


@pytest.mark.parametrize('offset', [True, False])
def test_both_orders_in_memory_are_the_same_samples(offset):
    x = torch.randn(2, 3, 7, 5)
    sampling_offset = 2 * torch.randn(2, 2 * 6, 3, 3) if offset else None
    geometry = (2, 3), (2, 1), (0, 1), (1, 2)
    by_pixel, by_tap = (
        sample_taps(x, *geometry, sampling_offset, tap_by_tap=tap_by_tap)
        for tap_by_tap in (False, True)
    )
    for a, b in zip(by_pixel, by_tap):
        assert a.shape == (2 if offset else 1, 9, 6, 4)
        assert torch.equal(a, b)
        assert a.is_contiguous()
        assert b.movedim(2, 0).is_contiguous()
