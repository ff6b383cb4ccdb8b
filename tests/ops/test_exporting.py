"""The contextual convolution as it is exported, against the one written out."""

import itertools

import pytest
import torch
from contextual_cases import GEOMETRIES, make_case

from mmctx.ops import contextual_conv2d
from mmctx.ops.exporting import contextual_conv2d_in_standard_operators

OPTIONAL = 'bias', 'sampling_offset', 'weight_offset', 'mask'


@pytest.mark.parametrize('depthwise', [True, False])
@pytest.mark.parametrize('geometry', GEOMETRIES)
def test_standard_operators_equal_the_reference(geometry, depthwise):
    tensors, options = make_case(geometry, depthwise)
    pairs = {k: v if isinstance(v, tuple) else (v, v) for k, v in options.items()}
    for given in itertools.product([True, False], repeat=4):
        some = {**tensors, **{n: None for n, kept in zip(OPTIONAL, given) if not kept}}
        expected = contextual_conv2d(**some, **options, backend='reference')
        out = contextual_conv2d_in_standard_operators(**some, **pairs)
        torch.testing.assert_close(out, expected)
