"""The forward pass of a contextual convolution with its predictors."""

from functools import lru_cache
from typing import Any

import torch
from torch import Tensor

from ..shapes import check_shapes
from .batch_norm import BatchNormVectors
from .batch_statistics import BatchStatistics
from .forward import forward_of
from .hidden_layers import HiddenRows, HiddenVectors
from .layer_problem import LayerProblem, Predictor, Steps, mask_of
from .norm_relu import NormRelu
from .pixel_mean import PixelMean
from .settings import REMEMBERED, Settings
from .static_conv import StaticConv


class SamplingForward:
    """The predictor of Δp and of the mask, of one problem.

    Args:
        problem (LayerProblem): The problem.
        keeps (bool): Whether there will be a backward pass.
    """

    def __init__(self, problem: LayerProblem, keeps: bool):
        self.keeps = keeps
        batch, height, width, _ = problem.rows
        first_shape, last_shape, _, kind, last_strides, _ = problem.sampling
        hidden = first_shape[0]
        self.last_conv = StaticConv(*problem.last_conv)
        self.rows = HiddenRows(
            problem.rows, problem.x[1], problem.prior[1], hidden, last_shape, last_strides,
            self.last_conv.taps_type, kind.eps, problem.tf32, keeps,
            pools=problem.weight_offset is not None,
        )  # fmt: skip
        if kind.name == 'batch':
            self.statistics = BatchStatistics(
                self.rows.parts, height * width, self.rows.tile, kind.momentum
            )
            self.norm = NormRelu((batch, height * width, hidden), kind.eps)

    def __call__(
        self, stream: int, x: Tensor, prior: Tensor, predictor: Predictor
    ) -> tuple[dict[str, Any], Tensor | None]:
        """Fields of `Steps`, and the sums of x over tiles if they are needed."""
        norm = predictor.norm()
        hidden, reduced, shares, parts, sums, taps, turned = self.rows(
            stream, x, prior, predictor.weight, predictor.bias, predictor.last_weight, norm
        )
        if norm is None:
            statistics = self.statistics(stream, parts, predictor.running)
            norm = predictor.scale, predictor.shift, *statistics.unbind()
            hidden = self.norm(stream, reduced, shares, norm)
        predicted = self.last_conv(stream, hidden, taps, predictor.last_bias)
        if not self.keeps:
            return dict(predicted=predicted), sums
        steps = dict(
            shares=shares, reduced=reduced, hidden=hidden, mean=norm[2], variance=norm[3],
            taps=taps if turned is None else turned, predicted=predicted,
        )  # fmt: skip
        return steps, sums


class WeightOffsetForward:
    """The predictor of Δw of one problem.

    Args:
        problem (LayerProblem): The problem.
        tiles (int, optional): Number of tiles of an image whose sums it gets; None for the mean of
            an image.
        keeps (bool): Whether there will be a backward pass.
    """

    def __init__(self, problem: LayerProblem, tiles: int | None, keeps: bool):
        self.keeps = keeps
        batch, height, width, channels = problem.rows
        pixels = 1 if tiles is None else height * width
        hidden, kind = problem.weight_offset[0][0], problem.weight_offset[3]
        self.vectors = HiddenVectors(
            (batch, tiles or 1, channels), pixels, problem.prior[1], hidden, kind, keeps
        )
        if kind.name == 'batch':
            self.norm = BatchNormVectors((batch, hidden), kind.eps, kind.momentum)

    def __call__(
        self, stream: int, sums: Tensor, prior: Tensor, predictor: Predictor
    ) -> dict[str, Any]:
        """Fields of `Steps`."""
        norm, bias = predictor.norm(), predictor.bias
        hidden, vectors, inputs = self.vectors(stream, prior, sums, predictor.weight, bias, norm)
        statistics = mean = variance = None
        if norm is None:
            scale, shift = predictor.scale, predictor.shift
            hidden, statistics = self.norm(stream, vectors, bias, scale, shift, predictor.running)
        else:
            _, _, mean, variance = norm
        last = predictor.last_weight
        if hidden.dtype != last.dtype:
            hidden = hidden.to(last.dtype)
        weight_offset = hidden.new_empty(len(hidden), len(last))
        # Written to a given tensor, as autocast would change it otherwise.
        torch.addmm(predictor.last_bias, hidden, last.t(), out=weight_offset)
        if not self.keeps:
            return dict(weight_offset=weight_offset)
        return dict(
            inputs=inputs, vectors=vectors, hidden_vectors=hidden, vector_mean=mean,
            vector_variance=variance, statistics=statistics, weight_offset=weight_offset,
        )  # fmt: skip


class LayerForward:
    """Predictors and convolution of one problem.

    Args:
        problem (LayerProblem): The problem.
        settings (Settings): Tiles of the kernels.
        keeps (bool): Whether there will be a backward pass, for which kernels write more.

    Raises:
        ValueError: The shapes of map and kernel do not fit each other.
    """

    def __init__(self, problem: LayerProblem, settings: Settings, keeps: bool):
        check_shapes(
            problem.x[0], problem.weight[0], problem.bias and problem.bias[0], None, None, None,
            *problem.geometry,
        )  # fmt: skip
        self.problem, self.keeps = problem, keeps
        self.sampling = self.weight_offset = tiles = None
        if problem.sampling is not None:
            self.sampling = SamplingForward(problem, keeps)
            tiles = self.sampling.rows.tiles
        if problem.weight_offset is not None:
            self.weight_offset = WeightOffsetForward(problem, tiles, keeps)
        if self.sampling is None:
            self.mean = PixelMean(problem.x[0], problem.x[1], torch.float32)
        self.convolution = forward_of(problem.convolution(), settings)

    def predict(
        self,
        stream: int,
        x: Tensor,
        prior: Tensor,
        sampling: Predictor | None,
        weight_offset: Predictor | None,
    ) -> dict[str, Any]:
        """Fields of `Steps`: what is predicted, and what the predictors' gradients need."""
        steps: dict[str, Any] = {}
        sums = None
        if sampling is not None:
            steps, sums = self.sampling(stream, x, prior, sampling)
        if weight_offset is not None:
            if sums is None:
                sums = self.mean(stream, x)
            steps.update(self.weight_offset(stream, sums, prior, weight_offset))
        return steps

    def __call__(
        self,
        stream: int,
        x: Tensor,
        prior: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        sampling: Predictor | None,
        weight_offset: Predictor | None,
    ) -> tuple[Tensor, Steps | None]:
        """Output, (B, C_out, H_out, W_out), channels last in memory, and what backward needs.

        Args:
            stream (int): Raw stream.
            x (Tensor): Map, (B, C, H, W), channels last in memory.
            prior (Tensor): Prior of each image, (B, N).
            weight, bias (Tensor): Static kernel and bias.
            sampling, weight_offset (Predictor, optional): The predictors.
        """
        steps = self.predict(stream, x, prior, sampling, weight_offset)
        predicted = steps.get('predicted')
        out, (kernels, matrix) = self.convolution(
            stream, x, weight, bias, predicted, steps.get('weight_offset'),
            mask_of(predicted, self.problem),
        )  # fmt: skip
        if not self.keeps:
            return out, None
        return out, Steps(**steps, kernels=kernels, matrix=matrix)


@lru_cache(REMEMBERED)
def layer_forward_of(problem: LayerProblem, settings: Settings, keeps: bool) -> LayerForward:
    """Forward pass of a problem; made once and cached."""
    return LayerForward(problem, settings, keeps)
