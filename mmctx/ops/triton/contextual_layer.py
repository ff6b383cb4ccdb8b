"""A contextual convolution with its predictors as one autograd function.

Recording its steps one by one would take the host longer than launching them, and gradients that
several steps add to one tensor would be summed in kernels of their own.
"""

from typing import Any

import torch
from torch import Tensor

from ..autocasting import without_autocast
from .device_launch import on_device
from .launching import current_stream
from .layer_backward import NONE, Needed, layer_backward_of
from .layer_forward import layer_forward_of
from .layer_problem import LayerProblem, Predictor, Steps
from .problem import channels_last, outline
from .second_derivatives import once_differentiable
from .settings import current
from .static_conv import Geometry, uses_tf32


class _ContextualLayer(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, problem, sampling, weight_offset, x, prior, weight, bias, *parameters):
        with on_device(problem.device):
            run = layer_forward_of(problem, current(), keeps=True)
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
        _, _, _, *inputs = ctx.needs_input_grad
        needed = Needed(*inputs[:4], any(inputs[4:10]), any(inputs[10:]))
        deterministic = torch.are_deterministic_algorithms_enabled()
        # Under autocast, products of float32 would be in half precision.
        with on_device(problem.device), without_autocast(x):
            run = layer_backward_of(problem, current(), needed, deterministic)
            found = run(
                current_stream(problem.device), grads[0], x, prior, weight, sampling,
                weight_offset, Steps(*tensors[12:]),
            )  # fmt: skip
        return None, None, None, *found


def contextual_layer(
    x: Tensor,
    prior: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    sampling: Predictor | None,
    weight_offset: Predictor | None,
    geometry: Geometry,
) -> Tensor:
    """Convolve x with the offsets that it and the prior lead to.

    Args:
        x (Tensor): Map, (B, C, H, W), in float16, bfloat16 or float32; not empty.
        prior (Tensor): Prior of each image, (B, N), of the type of the parameters.
        weight, bias (Tensor): Static kernel and bias.
        sampling, weight_offset (Predictor, optional): The predictors of Δp and of Δw. With
            gradients their parameters are of float32.
        geometry (tuple): Stride, padding and dilation.

    Returns:
        Tensor: (B, C_out, H_out, W_out), channels last in memory.
    """
    problem, x = layer_problem_of(x, prior, weight, bias, sampling, weight_offset, geometry)
    if torch.is_grad_enabled():
        parameters = [None if p is None else p.parameters for p in (sampling, weight_offset)]
        return _ContextualLayer.apply(
            problem, sampling, weight_offset, x, prior, weight, bias,
            *(parameters[0] or NONE), *(parameters[1] or NONE),
        )  # fmt: skip
    with on_device(x.device):
        run = layer_forward_of(problem, current(), keeps=False)
        stream = current_stream(x.device)
        return run(stream, x, prior, weight, bias, sampling, weight_offset)[0]


def predict_offsets(*arguments) -> tuple[Tensor | None, Tensor | None]:
    """What the predictors of `contextual_layer` predict, in inference; takes its arguments.

    Returns:
        tuple[Tensor | None, Tensor | None]: Δp and mask logits, (B, H_out, W_out, N), in float32;
        Δw, (B, C·K), in the type of the parameters.
    """
    problem, x = layer_problem_of(*arguments)
    _, prior, _, _, sampling, weight_offset, _ = arguments
    with on_device(x.device):
        run = layer_forward_of(problem, current(), keeps=False)
        stream = current_stream(x.device)
        steps = run.predict(stream, x, prior, sampling, weight_offset)
    return steps.get('predicted'), steps.get('weight_offset')


def layer_problem_of(
    x: Tensor,
    prior: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    sampling: Predictor | None,
    weight_offset: Predictor | None,
    geometry: Geometry,
) -> tuple[LayerProblem, Tensor]:
    """Problem of the arguments of `contextual_layer`, and x channels last in memory."""
    x = channels_last(x)
    problem = LayerProblem(
        x.device,
        (x.shape, x.dtype),
        prior.shape,
        outline(weight, with_strides=True),
        outline(bias),
        None if sampling is None else sampling.outline,
        None if weight_offset is None else weight_offset.outline,
        geometry,
        uses_tf32(x),
    )
    return problem, x
