"""The backward pass of a contextual convolution with its predictors."""

from functools import lru_cache
from typing import NamedTuple

import torch
from torch import Tensor

from .backward import Backward
from .batch_norm import BatchNormVectors
from .layer_problem import LayerProblem, Predictor, Steps, mask_of
from .norm_relu import NormRelu
from .problem import channels_last
from .settings import REMEMBERED, Settings
from .static_conv import StaticConvGradients

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
    """Gradients of the predictor of Δp of one problem."""

    def __init__(self, problem: LayerProblem):
        batch, height, width, _ = problem.rows
        first_shape, last_shape, _, kind, *_ = problem.sampling
        self.offsets, self.predicted = 2 * problem.taps, last_shape[0]
        self.first_shape, channels = first_shape, problem.rows[3]
        # Of the prior and of the map in the first layer's weight.
        self.lengths = [problem.prior[1], channels]
        # A map as a matrix, [B·P, C].
        self.rows = (batch * height * width, channels), (channels, 1)
        self.last_conv = StaticConvGradients(*problem.last_conv)
        self.norm = NormRelu(
            (batch, height * width, first_shape[0]), kind.eps, batch_norm=kind.name == 'batch'
        )

    def grad_predicted(self, parts: Tensor, mask_parts: Tensor | None) -> Tensor:
        """Gradient of Δp and mask logits, (B, H_out, W_out, 2K or 3K), from parts for blocks."""
        _, batch, _, height, width = parts.shape
        shape = batch, height, width, self.predicted
        grad = torch.empty(shape, dtype=parts.dtype, device=parts.device)
        by_channel = grad.permute(0, 3, 1, 2)
        if mask_parts is None:
            torch.sum(parts, 0, out=by_channel)
        else:
            torch.sum(parts, 0, out=by_channel[:, : self.offsets])
            torch.sum(mask_parts, 0, out=by_channel[:, self.offsets :])
        return grad

    def __call__(
        self, stream: int, grad: Tensor, x: Tensor, prior: Tensor, predictor: Predictor,
        steps: Steps, grad_x: Tensor | None,
    ) -> tuple[Tensor, Tensor, tuple]:  # fmt: skip
        """Gradients of the shares, (B, H), of the weight that made them, and of the parameters.

        Adds its part to the gradient of x if there is one.
        """
        grad_hidden, *grad_last = self.last_conv(stream, grad, steps.hidden, steps.taps)
        norm = predictor.scale, predictor.shift, steps.mean, steps.variance
        grad_reduced, grad_shares, totals = self.norm.gradients(
            stream, grad_hidden, steps.reduced, steps.shares, norm
        )
        hidden = self.first_shape[0]
        grad_reduced = grad_reduced.view(-1, hidden)  # [B·P, H]
        weight = predictor.weight.contiguous()
        prior_weight, rows_weight = weight.view(hidden, -1).split_with_sizes(self.lengths, 1)
        if grad_x is not None:
            grad_x.as_strided(*self.rows).addmm_(grad_reduced, rows_weight.to(x.dtype))
        grad_weight = torch.cat(
            [
                torch.mm(grad_shares.t(), prior),
                torch.mm(grad_reduced.t(), x.as_strided(*self.rows)),
            ],
            1,
        )
        parameters = grad_weight.view(self.first_shape), *totals.unbind(), *grad_last
        return grad_shares, prior_weight, parameters


class WeightOffsetBackward:
    """Gradients of the predictor of Δw of one problem."""

    def __init__(self, problem: LayerProblem):
        batch, hidden = problem.prior[0], problem.weight_offset[0][0]
        kind = problem.weight_offset[3]
        self.batch_norm = self.norm = None
        if kind.name == 'batch':
            self.batch_norm = BatchNormVectors((batch, hidden), kind.eps, kind.momentum)
        else:
            # As rows of one image, to which the bias is added.
            self.norm = NormRelu((1, batch, hidden), kind.eps)

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
        vectors = steps.vectors
        grad_last_weight = torch.mm(grad.t(), steps.hidden_vectors)
        grad_hidden = torch.mm(grad, predictor.last_weight)
        scale, shift, bias = predictor.scale, predictor.shift, predictor.bias
        if self.batch_norm is not None:
            grad_vectors, sums = self.batch_norm.gradients(
                stream, grad_hidden, vectors, steps.statistics, scale, shift
            )
        else:
            norm = scale, shift, steps.vector_mean, steps.vector_variance
            grad_vectors, _, sums = self.norm.gradients(stream, grad_hidden, vectors, bias, norm)
        grad_weight = torch.mm(grad_vectors.t(), steps.inputs)
        grad_inputs = torch.mm(grad_vectors, predictor.weight)
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
            self.sampling = SamplingBackward(problem)
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
        grads, grad, kernels = self.convolution.of_kernels(
            stream, channels_last(grad), x, weight, predicted, steps.weight_offset, mask,
            (steps.kernels, steps.matrix),
        )  # fmt: skip
        grad_x = grad_inputs = grad_prior = None
        of_sampling = of_weight_offset = NONE
        if self.weight_offset is not None:
            grad_inputs, of_weight_offset = self.weight_offset(
                stream, grads['weight_offset'], grads['delta_total'], weight_offset, steps
            )
            if self.needed.prior:
                grad_prior = grad_inputs[:, : self.length]
        if self.needed.x:
            of_pooled = None if grad_inputs is None else grad_inputs[:, self.length :]
            grad_x = self.convolution.input(stream, x, predicted, mask, kernels, grad, of_pooled)
        if self.sampling is not None:
            grad_predicted = self.sampling.grad_predicted(
                grads['sampling_offset'], grads.get('mask')
            )
            grad_shares, prior_weight, of_sampling = self.sampling(
                stream, grad_predicted, x, prior, sampling, steps, grad_x
            )
            if grad_prior is not None:
                grad_prior = torch.addmm(grad_prior, grad_shares, prior_weight)
            elif self.needed.prior:
                grad_prior = torch.mm(grad_shares, prior_weight)
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
