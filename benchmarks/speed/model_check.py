"""Whether a network computes the same in a mode, or through a back end, as it should."""

import math
import os
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

from mmctx.ops.contextual_conv import BACKEND_VARIABLE

from .networks import AMP_DTYPES, Network

# Of ‖got - expected‖ / ‖expected‖. Seen on a CPU: up to 1e-6 in float32, 9e-3 in bfloat16.
TOLERANCES = {torch.float32: 1e-4, torch.float16: 2e-2, torch.bfloat16: 5e-2}
# Scores are -inf where a class is ruled out; rounding may rule out others, but not many.
MIN_SHARED = 0.8
GRADIENT_SHAPE = (64, 96)


@contextmanager
def reference_backend() -> Iterator[None]:
    """Compute contextual convolutions by the reference."""
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
    """‖got - expected‖ / ‖expected‖ where both are finite.

    Returns:
        float: Not a number for a NaN, infinite where too few of the expected values have a finite
        counterpart.
    """
    if got.isnan().any():
        return math.nan
    shared = got.isfinite() & expected.isfinite()
    if shared.sum() < MIN_SHARED * max(expected.isfinite().sum(), got.isfinite().sum()):
        return math.inf
    got, expected = got[shared].double(), expected[shared].double()
    return float((got - expected).norm() / expected.norm())


def features(network: Network, images: Tensor) -> list[Tensor]:
    """A network's features without gradients."""
    with torch.no_grad():
        return list(network.features(images))


def gradients(network: Network, images: Tensor) -> list[Tensor]:
    """Gradients of the squares of the finite features by the parameters that have one, as one."""
    total = sum(f[f.isfinite()].square().mean() for f in network.features(images))
    leaves = [p for p in network.model.parameters() if p.requires_grad]
    found = torch.autograd.grad(total, leaves, allow_unused=True)
    return [torch.cat([g.flatten() for g in found if g is not None])]


class Gate:
    """What a network's modes are held to: float32, eager, contextual convolutions by the reference.

    Args:
        network (Network): In eager mode.
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
        """Hold a mode of the same network to it.

        Returns:
            tuple[dict[str, float], str]: Relative errors of the features and, in eager mode, of
            the gradients; and what is wrong, '' if nothing.
        """
        pairs = {'features': (features(network, self.images), self.features)}
        if not network.mode:
            pairs['gradients'] = (gradients(network, self.small_images), self.gradients)
        # The largest, or NaN, which `max` may overlook.
        errors = {
            name: float(torch.tensor([*map(relative_error, got, expected)]).max())
            for name, (got, expected) in pairs.items()
        }
        amp = 'amp' in network.mode
        tolerance = TOLERANCES[AMP_DTYPES[network.device.type] if amp else torch.float32]
        wrong = [f'{name} {error:.1e}' for name, error in errors.items() if not error <= tolerance]
        return errors, f'relative error over {tolerance:g}: {", ".join(wrong)}' if wrong else ''
