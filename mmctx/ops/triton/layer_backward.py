"""The backward pass of a contextual convolution with its predictors."""

from functools import lru_cache
from typing import NamedTuple

import torch
from torch import Tensor

from .backward import Backward
from .batch_norm import BatchNormVectors
from .device_launch import aligned
from .layer_problem import LayerProblem, Predictor, Steps, mask_of
from .norm_relu import NormRelu
from .problem import channels_last
from .settings import REMEMBERED, Settings
from .static_conv import StaticConvGradients
from .step_gradient import StepGradients, step_gradients_launch

NONE = (None,) * 6


class Needed(NamedTuple):
    """Whether gradients are needed: of x, the prior, the static kernel, its bias, predictors."""

    x: bool
    prior: bool
    weight: bool
    bias: bool
    sampling: bool
    weight_offset: bool


class SamplingBackward:
    """Gradients of the predictor of Δp of one problem.

    Args:
        problem (LayerProblem): The problem.
        of_prior (bool): Whether the prior needs a gradient.
        added_distance (int): Distance between the rows of what is added to that gradient.
    """

    def __init__(self, problem: LayerProblem, of_prior: bool, added_distance: int):
        batch, height, width, channels = problem.rows
        first_shape, last_shape, _, kind, *_ = problem.sampling
        self.offsets, self.predicted = 2 * problem.taps, last_shape[0]
        # A map as a matrix, [B·P, C].
        self.rows = (batch * height * width, channels), (channels, 1)
        self.length, self.of_prior = problem.prior[1], of_prior
        self.first_shape, hidden = first_shape, first_shape[0]
        # Of the first layer as a matrix, (H, N + C).
        self.weight = hidden, self.length + channels
        if self.length:
            self.of_shares = step_gradients_launch(
                0, batch, hidden, self.length, of_prior, distance=self.weight[1],
                added_distance=added_distance,
            )  # fmt: skip
        self.last_conv = StaticConvGradients(*problem.last_conv)
        self.norm = NormRelu(
            (batch, height * width, first_shape[0]), kind.eps, batch_norm=kind.name == 'batch'
        )

    def grad_predicted(self, parts: Tensor, mask_parts: Tensor | None) -> Tensor:
        """Gradient of Δp and mask logits, (B, H_out, W_out, 2K or 3K), from parts for blocks."""
        _, batch, _, height, width = parts.shape
        shape = batch, height, width, self.predicted
        grad = parts.new_empty(shape)
        by_channel = grad.permute(0, 3, 1, 2)
        if mask_parts is None:
            torch.sum(parts, 0, out=by_channel)
        else:
            torch.sum(parts, 0, out=by_channel[:, : self.offsets])
            torch.sum(mask_parts, 0, out=by_channel[:, self.offsets :])
        return grad

    def __call__(
        self, stream: int, grad: Tensor, x: Tensor, prior: Tensor, predictor: Predictor,
        steps: Steps, grad_x: Tensor | None, grad_inputs: Tensor | None,
    ) -> tuple[Tensor | None, tuple]:  # fmt: skip
        """Gradients of the prior, if it needs one, and of the parameters.

        Its part is added to `grad_x`, the gradient of x, if there is one. The gradient of the prior
        includes the first columns of `grad_inputs`, of Δw's predictor, if there is one.
        """
        grad_hidden, *grad_last = self.last_conv(stream, grad, steps.hidden, steps.taps)
        norm = predictor.scale, predictor.shift, steps.mean, steps.variance
        grad_reduced, grad_shares, totals = self.norm.gradients(
            stream, grad_hidden, steps.reduced, steps.shares, norm
        )
        grad_reduced = grad_reduced.view(-1, self.weight[0])  # [B·P, H]
        weight = aligned(predictor.weight).view(self.weight)
        if grad_x is not None:
            rows_weight = weight[:, self.length :].to(x.dtype)
            grad_x.as_strided(*self.rows).addmm_(grad_reduced, rows_weight)
        grad_weight = torch.empty_like(weight)
        grad_weight[:, self.length :] = torch.mm(grad_reduced.t(), x.as_strided(*self.rows))
        grad_prior = torch.empty_like(prior) if self.of_prior else None
        if self.length:
            of_inputs = (weight, grad_inputs) if self.of_prior else (None, None)
            self.of_shares(
                stream, grad_weight, None, grad_prior, grad_shares, aligned(prior), *of_inputs
            )
        return grad_prior, (grad_weight.view(self.first_shape), *totals.unbind(), *grad_last)


class WeightOffsetBackward:
    """Gradients of the predictor of Δw of one problem."""

    def __init__(self, problem: LayerProblem):
        batch, (hidden, length) = problem.prior[0], problem.weight_offset[0]
        kind = problem.weight_offset[3]
        batch_norm = None
        if kind.name == 'batch':
            batch_norm = BatchNormVectors((batch, hidden), kind.eps, kind.momentum)
        self.first = StepGradients(batch_norm, batch, hidden, length, kind.eps)

    def __call__(
        self, stream: int, grad: Tensor, total: Tensor, predictor: Predictor, steps: Steps
    ) -> tuple[Tensor, tuple]:
        """Gradients of prior and pooled map, (B, N + C), and of the parameters.

        Args:
            stream (int): Raw stream.
            grad (Tensor): Gradient of Δw, (B, C·K) in memory.
            total (Tensor): Its sum over the images, (C, K).
            predictor (Predictor): The predictor.
            steps (Steps): What the forward pass kept.
        """
        grad = grad.view(grad.shape[0], -1)
        grad_last_weight = torch.mm(grad.t(), steps.hidden_vectors)
        grad_hidden = torch.mm(grad, predictor.last_weight)
        grad_inputs = torch.empty_like(steps.inputs)
        norm = predictor.scale, predictor.shift, steps.vector_mean, steps.vector_variance
        grad_weight, sums = self.first(
            stream, grad_hidden, grad_inputs, steps.vectors, steps.inputs, predictor.weight,
            predictor.bias, norm, steps.statistics,
        )  # fmt: skip
        return grad_inputs, (grad_weight, *sums.unbind(), grad_last_weight, total.view(-1))


class LayerBackward:
    """All needed gradients of a contextual convolution with its predictors.

    Args:
        problem (LayerProblem): The problem.
        settings (Settings): Tiles of the kernels.
        needed (Needed): Whether each gradient is needed.
        deterministic (bool): Whether sums are the same in every run.
    """

    def __init__(
        self, problem: LayerProblem, settings: Settings, needed: Needed, deterministic: bool
    ):
        self.problem, self.needed, self.length = problem, needed, problem.prior[1]
        needs_inputs = needed.x or needed.prior
        self.sampling = self.weight_offset = None
        if problem.sampling is not None and (needs_inputs or needed.sampling):
            added = 0 if problem.weight_offset is None else self.length + problem.rows[3]
            self.sampling = SamplingBackward(problem, needed.prior, added)
        if problem.weight_offset is not None and (needs_inputs or needed.weight_offset):
            self.weight_offset = WeightOffsetBackward(problem)
        needs_sampling = self.sampling is not None
        self.convolution = Backward(
            problem.convolution(),
            settings,
            (
                needed.x, needed.weight, needed.bias, needs_sampling,
                self.weight_offset is not None, needs_sampling and problem.modulated,
            ),
            deterministic,
            pooled_image=self.length + problem.rows[3],
            totals_delta=self.weight_offset is not None,
        )  # fmt: skip

    def __call__(
        self, stream: int, grad: Tensor, x: Tensor, prior: Tensor, weight: Tensor,
        sampling: Predictor | None, weight_offset: Predictor | None, steps: Steps,
    ) -> tuple[Tensor | None, ...]:  # fmt: skip
        """Gradients of x, the prior, the static kernel, its bias and the predictors' parameters."""
        predicted, mask = steps.predicted, mask_of(steps.predicted, self.problem)
        grads, grad, grad_sum, kernels = self.convolution.of_kernels(
            stream, channels_last(grad), x, weight, predicted, steps.weight_offset, mask,
            (steps.kernels, steps.matrix),
        )  # fmt: skip
        grad_x = grad_inputs = grad_prior = None
        of_sampling = of_weight_offset = NONE
        if self.weight_offset is not None:
            grad_inputs, of_weight_offset = self.weight_offset(
                stream, grads['weight_offset'], grads['delta_total'], weight_offset, steps
            )
            grad_prior = grad_inputs[:, : self.length]
        if self.needed.x:
            of_pooled = None if grad_inputs is None else grad_inputs[:, self.length :]
            grad_x = self.convolution.input(
                stream, x, predicted, mask, kernels, grad, grad_sum, of_pooled
            )
        if self.sampling is not None:
            grad_predicted = self.sampling.grad_predicted(
                grads['sampling_offset'], grads.get('mask')
            )
            grad_prior, of_sampling = self.sampling(
                stream, grad_predicted, x, prior, sampling, steps, grad_x, grad_inputs
            )
        grad_weight = grads.get('weight')
        if grad_weight is not None and grad_weight.dtype != weight.dtype:
            grad_weight = grad_weight.to(weight.dtype)
        return grad_x, grad_prior, grad_weight, grads.get('bias'), *of_sampling, *of_weight_offset


@lru_cache(REMEMBERED)
def layer_backward_of(
    problem: LayerProblem, settings: Settings, needed: Needed, deterministic: bool
) -> LayerBackward:
    """Backward pass of a problem for the needed gradients; made once and cached."""
    return LayerBackward(problem, settings, needed, deterministic)
