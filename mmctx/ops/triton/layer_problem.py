"""A contextual convolution with its predictors, without its data; what its passes share."""

from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from ..sampling import output_size
from .launching import types_of
from .operator import PLAIN
from .problem import Outline, Problem
from .static_conv import Geometry, is_depthwise

BATCH_NORMS = nn.BatchNorm1d, nn.BatchNorm2d


class NormKind(NamedTuple):
    """What a norm does, without its data.

    Attributes:
        name (str): `layer`, `fixed` (batch norm with the statistics that it has) or `batch` (batch
            norm in training).
        eps (float): Added to the variance.
        momentum (float, optional): Of the running statistics; None if the norm does not train.
    """

    name: str
    eps: float
    momentum: float | None = None

    @classmethod
    def of(cls, norm: Any) -> 'NormKind | None':
        """Kind of a norm; None for one that the kernels do not know."""
        if isinstance(norm, nn.LayerNorm):
            return cls('layer', norm.eps)
        # Not a subclass, as of a norm that synchronises.
        if type(norm) not in BATCH_NORMS or norm.running_mean is None:
            return None
        if not norm.training:
            return cls('fixed', norm.eps)
        return None if norm.momentum is None else cls('batch', norm.eps, norm.momentum)


class Predictor(NamedTuple):
    """Parameters of a predictor, and its norm's kind and running statistics.

    Attributes:
        weight, bias (Tensor): Of its first layer, (H, N + C) in memory and (H,).
        scale, shift (Tensor): Of its norm, (H,).
        last_weight, last_bias (Tensor): Of its last layer.
        kind (NormKind): Kind of the norm.
        running (tuple): Running mean and variance of a batch norm, and its number of batches.
    """

    weight: Tensor
    bias: Tensor
    scale: Tensor
    shift: Tensor
    last_weight: Tensor
    last_bias: Tensor
    kind: NormKind
    running: tuple = ()

    @classmethod
    def of(cls, layers: Any) -> 'Predictor | None':
        """Predictor of a first layer, norm, ReLU and last layer; None if the norm is not known."""
        first, norm, _, last = layers
        kind, scale, shift = NormKind.of(norm), norm.weight, norm.bias
        if kind is None or scale is None or shift is None:
            return None
        parameters = first.weight, first.bias, scale, shift, last.weight, last.bias
        # Others, such as quantized ones, have no memory that a kernel could read.
        if not all(type(parameter) in PLAIN for parameter in parameters):
            return None
        running = ()
        if kind.name != 'layer':
            running = norm.running_mean, norm.running_var, norm.num_batches_tracked
        return cls(*parameters, kind, running)

    @property
    def parameters(self) -> tuple[Tensor, ...]:
        """The parameters, in order."""
        return self[:6]

    @property
    def outline(self) -> tuple:
        """Shapes of both weights, their type, kind of the norm, last strides, types of all."""
        last = self.last_weight
        types = types_of(*self.parameters, *self.running)
        return self.weight.shape, last.shape, self.weight.dtype, self.kind, last.stride(), types

    def norm(self) -> tuple | None:
        """Scale, shift, mean and variance, the last two None for a layer norm.

        None for a batch norm in training, whose statistics are not known yet.
        """
        if self.kind.name == 'batch':
            return None
        mean, variance = self.running[:2] or (None, None)
        return self.scale, self.shift, mean, variance


class LayerProblem(NamedTuple):
    """A contextual layer without its data; equal ones run the same kernels on the same grids.

    Attributes:
        device (torch.device): Where it runs.
        x (tuple): Shape and type of the map, (B, C, H, W).
        prior (tuple): Shape of the prior, (B, N).
        weight (tuple): Shape, type and strides of the static kernel.
        bias (tuple, optional): Shape and type of its bias.
        sampling, weight_offset (tuple, optional): Outline of each predictor that there is.
        geometry (tuple): Stride, padding and dilation.
        tf32 (bool): Whether products of float32 use TF32.
    """

    device: torch.device
    x: Outline
    prior: tuple[int, ...]
    weight: Outline
    bias: Outline | None
    sampling: tuple | None
    weight_offset: tuple | None
    geometry: Geometry
    tf32: bool

    @property
    def rows(self) -> tuple[int, int, int, int]:
        """Shape of the map, channels last."""
        batch, channels, height, width = self.x[0]
        return batch, height, width, channels

    @property
    def taps(self) -> int:
        """Number of taps K of the kernel."""
        return self.weight[0][2] * self.weight[0][3]

    @property
    def modulated(self) -> bool:
        """Whether the predictor of Δp predicts a mask as well."""
        return self.sampling is not None and self.sampling[1][0] == 3 * self.taps

    @property
    def last_conv(self) -> tuple:
        """Arguments of the last convolution of the predictor of Δp."""
        assert self.sampling is not None
        first_shape, last_shape, *_ = self.sampling
        hidden = (*self.rows[:3], first_shape[0])
        return self.device, self.x[1], hidden, last_shape, self.geometry, self.tf32

    def convolution(self) -> Problem:
        """The convolution behind the predictors."""
        batch, height, width, channels = self.rows
        kernel = tuple(self.weight[0][2:])
        sampling_offset = weight_offset = mask = None
        if self.sampling is not None:
            out_height, out_width = output_size((height, width), kernel, *self.geometry)
            count = self.sampling[1][0]
            # Channels last in memory, offsets and mask side by side.
            strides = (out_height * out_width * count, 1, out_width * count, count)
            shape = (batch, 2 * self.taps, out_height, out_width)
            sampling_offset = shape, torch.float32, strides
            if self.modulated:
                shape = (batch, self.taps, out_height, out_width)
                mask = shape, torch.float32, strides
        if self.weight_offset is not None:
            depthwise = is_depthwise(self.weight[0], channels)
            own = (channels, 1) if depthwise else (1, channels)
            weight_offset = (batch, *own, *kernel), self.weight_offset[2]
        return Problem(
            self.device, self.x, self.weight, self.bias, sampling_offset, weight_offset, mask,
            *self.geometry, mask_is_logits=True,
        )  # fmt: skip


class Steps(NamedTuple):
    """What the forward pass hands to the backward pass beside its arguments; None if there is none.

    Attributes:
        shares, reduced, hidden (Tensor): Of the predictor of Δp: the prior's part of its first
            layer with the bias, (B, H); the map's part, and its hidden map, (B, height, width, H).
        mean, variance (Tensor): Of its batch norm, (H,).
        taps (Tensor): Weight of its last layer as the kernel reads it that computes gradients.
        predicted (Tensor): Δp and mask logits, (B, H_out, W_out, 2K or 3K).
        inputs, vectors, hidden_vectors (Tensor): Of the predictor of Δw: prior and pooled map,
            (B, N + C); its first layer without the bias, and its hidden vectors, (B, H).
        vector_mean, vector_variance (Tensor): Of its batch norm with known statistics, (H,).
        statistics (Tensor): Of its batch norm in training, mean and 1/σ, (2, H).
        weight_offset (Tensor): Δw, (B, C·K).
        kernels, matrix (Tensor): Tables of the convolution.
    """

    shares: Tensor | None = None
    reduced: Tensor | None = None
    hidden: Tensor | None = None
    mean: Tensor | None = None
    variance: Tensor | None = None
    taps: Tensor | None = None
    predicted: Tensor | None = None
    inputs: Tensor | None = None
    vectors: Tensor | None = None
    hidden_vectors: Tensor | None = None
    vector_mean: Tensor | None = None
    vector_variance: Tensor | None = None
    statistics: Tensor | None = None
    weight_offset: Tensor | None = None
    kernels: Tensor | None = None
    matrix: Tensor | None = None


def mask_of(predicted: Tensor | None, problem: LayerProblem) -> Tensor | None:
    """Mask logits behind the offsets that were predicted, (B, H_out, W_out, K)."""
    if predicted is None or not problem.modulated:
        return None
    return predicted.narrow(3, 2 * problem.taps, problem.taps)
