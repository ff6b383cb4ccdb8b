"""A contextual convolution with its predictors as one autograd function.

Recording its steps one by one would take the host longer than launching them, and gradients that
several steps add to one tensor would be summed in kernels of their own.
"""

from typing import Any

import torch
from torch import Tensor

from ..autocasting import without_autocast
from .device_launch import on_device
from .known_layer import KnownLayer
from .launching import current_stream
from .layer_backward import NONE, Needed, layer_backward_of
from .layer_problem import Predictor, Steps
from .problem import channels_last
from .second_derivatives import once_differentiable
from .settings import current


class _ContextualLayer(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, problem, run, sampling, weight_offset, x, prior, weight, bias, *parameters
    ):
        with on_device(problem.device):
            stream = current_stream(problem.device)
            out, steps = run(stream, x, prior, weight, bias, sampling, weight_offset)
        ctx.save_for_backward(x, prior, weight, *parameters, *steps)
        ctx.problem = problem
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor):
        problem = ctx.problem
        x, prior, weight, *tensors = ctx.saved_tensors
        # A hook that keeps saved tensors elsewhere may bring it back in another layout.
        x = channels_last(x)
        sampling, weight_offset = (
            None if of is None else Predictor(*tensors[at : at + 6], kind=of[3])
            for at, of in ((0, problem.sampling), (6, problem.weight_offset))
        )
        _, _, _, _, *inputs = ctx.needs_input_grad
        needed = Needed(*inputs[:4], any(inputs[4:10]), any(inputs[10:]))
        deterministic = torch.are_deterministic_algorithms_enabled()
        # Under autocast, products of float32 would be in half precision.
        with on_device(problem.device), without_autocast(x):
            run = layer_backward_of(problem, current(), needed, deterministic)
            found = run(
                current_stream(problem.device), grads[0], x, prior, weight, sampling,
                weight_offset, Steps(*tensors[12:]),
            )  # fmt: skip
        return None, None, None, None, *found


def contextual_layer(known: KnownLayer, x: Tensor, prior: Tensor) -> Tensor:
    """Convolve x with the offsets that it and the prior lead to.

    Args:
        known (KnownLayer): The layer. With gradients its predictors' parameters are of float32.
        x (Tensor): Map, (B, C, H, W), in float16, bfloat16 or float32; not empty.
        prior (Tensor): Prior of each image, (B, N).

    Returns:
        Tensor: (B, C_out, H_out, W_out), channels last in memory.

    Raises:
        ValueError: The shapes of map and kernel do not fit each other.
    """
    x, prior = channels_last(x), prior.to(known.dtype).contiguous()
    _, _, sampling, weight_offset, *_ = known
    if torch.is_grad_enabled():
        parameters = [NONE if p is None else p.parameters for p in (sampling, weight_offset)]
        return _ContextualLayer.apply(
            *known.forward_of(x, prior, keeps=True), sampling, weight_offset, x, prior,
            known.weight, known.bias, *parameters[0], *parameters[1],
        )  # fmt: skip
    with on_device(x.device):
        _, run = known.forward_of(x, prior, keeps=False)
        stream = current_stream(x.device)
        return run(stream, x, prior, known.weight, known.bias, sampling, weight_offset)[0]


def predict_offsets(
    known: KnownLayer, x: Tensor, prior: Tensor
) -> tuple[Tensor | None, Tensor | None]:
    """What the predictors of `contextual_layer` predict, in inference; takes its arguments.

    Returns:
        tuple[Tensor | None, Tensor | None]: Δp and mask logits, (B, H_out, W_out, N), in float32;
        Δw, (B, C·K), in the type of the parameters.
    """
    x, prior = channels_last(x), prior.to(known.dtype).contiguous()
    with on_device(x.device):
        _, run = known.forward_of(x, prior, keeps=False)
        stream = current_stream(x.device)
        steps = run.predict(stream, x, prior, known.sampling, known.weight_offset)
    return steps.get('predicted'), steps.get('weight_offset')
