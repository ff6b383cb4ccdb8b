"""Checks of the outputs and gradients of a formulation of the contextual convolution."""

from collections.abc import Callable
from math import prod

import torch
from torch import Tensor

from mmctx.ops import contextual_conv2d

from .op_cases import OpInputs, OpShape

# Limits of ‖got - exact‖ / ‖exact‖. On a CPU it was up to 4e-7, 1e-3 (PyTorch's own convolution)
# and 3e-3. TF32 products, with errors of 3e-4, are not accepted as float32.
TOLERANCES = {torch.float32: 2e-5, torch.float16: 2e-3, torch.bfloat16: 8e-3}
SAMPLES_AT_A_TIME = 2**22


def run_once(function: Callable[..., Tensor], inputs: OpInputs, options: dict) -> dict[str, Tensor]:
    """Compute the output, named `output`, and the gradient of every input, by its name."""
    leaves = {name: t.detach().requires_grad_() for name, t in inputs.tensors.items()}
    out = function(**leaves, **options)
    gradients = torch.autograd.grad(out, list(leaves.values()), inputs.cotangent)
    return {'output': out.detach(), **dict(zip(leaves, gradients))}


def exact_results(shape: OpShape, inputs: OpInputs) -> dict[str, Tensor]:
    """Compute the correct results of `run_once` by the reference in float64, in pieces.

    A piece is an image and some of its input channels: outputs of depthwise kernels are
    concatenated, those of dense kernels are added.

    Args:
        shape (OpShape): Convolution of the inputs.
        inputs (OpInputs): Inputs of the convolution, with or without context.

    Returns:
        dict[str, Tensor]: Results in float64, by name.
    """
    tensors = {name: t.detach().double() for name, t in inputs.tensors.items()}
    cotangent = inputs.cotangent.double()
    results = {name: torch.zeros_like(t) for name, t in tensors.items()}
    results['output'] = torch.zeros_like(cotangent)
    step = max(SAMPLES_AT_A_TIME // (shape.kernel**2 * prod(shape.out_size)), 1)
    for image in range(len(cotangent)):
        for first in range(0, shape.channels, step):
            index = _piece(shape, slice(image, image + 1), slice(first, first + step))
            leaves = {n: t[index[n]].requires_grad_() for n, t in tensors.items() if n in index}
            with torch.enable_grad():
                out = contextual_conv2d(**leaves, **shape.geometry, backend='reference')
            results['output'][index['output']] += out.detach()
            gradients = torch.autograd.grad(out, list(leaves.values()), cotangent[index['output']])
            for name, gradient in zip(leaves, gradients):
                results[name][index[name]] += gradient
    return results


def _piece(shape: OpShape, image: slice, channels: slice) -> dict[str, tuple[slice, ...]]:
    """Select the tensors of a piece; the first dense piece of an image has the bias."""
    everything = slice(None)
    index = dict(x=(image, channels), sampling_offset=(image,), mask=(image,))
    if shape.depthwise:
        each = dict(weight=(channels,), bias=(channels,))
        return index | each | dict(weight_offset=(image, channels), output=(image, channels))
    index |= dict(weight=(everything, channels), output=(image,))
    index |= dict(weight_offset=(image, everything, channels))
    return index if channels.start else index | dict(bias=(everything,))


def relative_errors(got: dict[str, Tensor], exact: dict[str, Tensor]) -> dict[str, float]:
    """‖got - exact‖ / ‖exact‖ of the output and of every gradient; NaN if there is a NaN."""
    return {name: float((got[name].double() - t).norm() / t.norm()) for name, t in exact.items()}


def check(
    function: Callable[..., Tensor],
    shape: OpShape,
    inputs: OpInputs,
    exact: dict[str, Tensor],
) -> tuple[dict[str, float], str]:
    """Compare a formulation with the exact results.

    Args:
        function (Callable): Formulation, called with tensors and geometry by name.
        shape (OpShape): Convolution of the inputs.
        inputs (OpInputs): Inputs for which `exact` was computed.
        exact (dict[str, Tensor]): Result of `exact_results` for these inputs.

    Returns:
        tuple[dict[str, float], str]: Relative errors by name, and a description of what is wrong;
            '' if nothing is.
    """
    # Memory that the formulation does not write should not contain earlier, correct results.
    stale = [torch.full_like(t, float('nan'), dtype=inputs.cotangent.dtype) for t in exact.values()]
    del stale
    got = run_once(function, inputs, shape.geometry)
    for name, tensor in got.items():
        if tensor.shape != exact[name].shape:
            return {}, f'{name} is of shape {tuple(tensor.shape)}, not {tuple(exact[name].shape)}'
    errors = relative_errors(got, exact)
    tolerance = TOLERANCES[inputs.cotangent.dtype]
    # Every comparison with NaN is false.
    wrong = [f'{name} {error:.1e}' for name, error in errors.items() if not error <= tolerance]
    return errors, f'relative error over {tolerance:.0e}: {", ".join(wrong)}' if wrong else ''
