"""Checks that a network computes the same in every mode and with every back end."""

import math
import os
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

from mmctx.ops.contextual_conv import BACKEND_VARIABLE

from .networks import AMP_DTYPES, Network

# Limits of ‖got - expected‖ / ‖expected‖. On a CPU it was up to 1e-6 in float32, 9e-3 in bfloat16.
TOLERANCES = {torch.float32: 1e-4, torch.float16: 2e-2, torch.bfloat16: 5e-2}
# Smallest share of classes that both results score. The score of a dropped class is -inf, and
# rounding may drop other classes, but only a few.
MIN_SHARED = 0.8
GRADIENT_SHAPE = (64, 96)


@contextmanager
def reference_backend() -> Iterator[None]:
    """Context in which the reference back end computes contextual convolutions."""
    before = os.environ.get(BACKEND_VARIABLE)
    os.environ[BACKEND_VARIABLE] = 'reference'
    try:
        yield
    finally:
        if before is None:
            del os.environ[BACKEND_VARIABLE]
        else:
            os.environ[BACKEND_VARIABLE] = before


def relative_error(got: Tensor, expected: Tensor) -> float:
    """Compute ‖got - expected‖ / ‖expected‖ over the values that are finite in both.

    Returns:
        float: Relative error; NaN if `got` has a NaN, infinite if too few values are finite in
        both.
    """
    if got.isnan().any():
        return math.nan
    shared = got.isfinite() & expected.isfinite()
    if shared.sum() < MIN_SHARED * max(expected.isfinite().sum(), got.isfinite().sum()):
        return math.inf
    got, expected = got[shared].double(), expected[shared].double()
    return float((got - expected).norm() / expected.norm())


def features(network: Network, images: Tensor) -> list[Tensor]:
    """Compute a network's features without gradients."""
    with torch.no_grad():
        return list(network.features(images))


def gradients(network: Network, images: Tensor) -> list[Tensor]:
    """Compute the gradient of the finite features' squares by all parameters, as one vector."""
    total = sum(f[f.isfinite()].square().mean() for f in network.features(images))
    leaves = [p for p in network.model.parameters() if p.requires_grad]
    found = torch.autograd.grad(total, leaves, allow_unused=True)
    return [torch.cat([g.flatten() for g in found if g is not None])]


class ReferenceResults:
    """Results in float32 and eager mode with the reference back end, to compare modes with.

    Args:
        network (Network): The network in eager mode.
    """

    def __init__(self, network: Network):
        draw = torch.Generator().manual_seed(0)
        self.images, self.small_images = (
            torch.rand(1, 3, *shape, generator=draw).to(network.device)
            for shape in (network.shape, GRADIENT_SHAPE)
        )
        with reference_backend():
            self.features = features(network, self.images)
            self.gradients = gradients(network, self.small_images)

    def check(self, network: Network) -> tuple[dict[str, float], str]:
        """Compare a mode of the same network with these results.

        Args:
            network (Network): The network in the mode.

        Returns:
            tuple[dict[str, float], str]: Relative errors of the features and, in eager mode, of
            the gradients; and a sentence about those that are too large, '' if none is.
        """
        pairs = {'features': (features(network, self.images), self.features)}
        if not network.mode:
            pairs['gradients'] = (gradients(network, self.small_images), self.gradients)
        # Python's `max` may miss a NaN.
        errors = {
            name: float(torch.tensor([*map(relative_error, got, expected)]).max())
            for name, (got, expected) in pairs.items()
        }
        amp = 'amp' in network.mode
        tolerance = TOLERANCES[AMP_DTYPES[network.device.type] if amp else torch.float32]
        wrong = [f'{name} {error:.1e}' for name, error in errors.items() if not error <= tolerance]
        return errors, f'relative error over {tolerance:g}: {", ".join(wrong)}' if wrong else ''
