"""A contextual layer as its kernels take it, and its passes by the sizes of maps and priors."""

from typing import Any, NamedTuple

import torch
from torch import Tensor

from .layer_forward import LayerForward, layer_forward_of
from .layer_problem import LayerProblem, Predictor
from .problem import outline
from .settings import current
from .static_conv import Geometry, uses_tf32

# Sizes of maps and priors of one layer whose passes are remembered.
MOST_SIZES = 64


class KnownLayer(NamedTuple):
    """A contextual layer as its kernels take it.

    Attributes:
        weight (Tensor): Static kernel.
        bias (Tensor, optional): Its bias.
        sampling, weight_offset (Predictor, optional): The predictors of Δp and of Δw.
        geometry (tuple): Stride, padding and dilation.
        dtype (torch.dtype): Type of the predictors' parameters.
        device (torch.device): Where all parameters are.
        outlines (tuple): Of static kernel, bias and predictors, as in `LayerProblem`.
        passes (dict): Problems and forward passes that were run, by what they depend on.
    """

    weight: Tensor
    bias: Tensor | None
    sampling: Predictor | None
    weight_offset: Predictor | None
    geometry: Geometry
    dtype: torch.dtype
    device: torch.device
    outlines: tuple
    passes: dict

    @property
    def tensors(self) -> list[Tensor]:
        """All parameters and buffers."""
        predictors = [p for p in (self.sampling, self.weight_offset) if p is not None]
        of_predictors = [t for p in predictors for t in (*p.parameters, *p.running)]
        return [t for t in (self.weight, self.bias, *of_predictors) if t is not None]

    @classmethod
    def of(cls, layer: Any) -> 'KnownLayer | None':
        """Look up a `ContextualConv2d`.

        None if it has a norm or parameters of unknown types, or not all on one device.
        """
        predictors = layer.sampling_offset_predictor, layer.weight_offset_predictor
        found = [None if of is None else Predictor.of(of) for of in predictors]
        if any(of is not None and got is None for of, got in zip(predictors, found, strict=True)):
            return None
        weight, bias = layer.weight, layer.bias
        there = [predictor for predictor in found if predictor is not None]
        dtype, device = there[0].weight.dtype, weight.device
        outlines = (
            outline(weight, with_strides=True), outline(bias),
            *[None if predictor is None else predictor.outline for predictor in found],
        )  # fmt: skip
        geometry = layer.stride, layer.padding, layer.dilation
        known = cls(weight, bias, *found, geometry, dtype, device, outlines, {})
        return known if all(t.device == device for t in known.tensors) else None

    def lacks_statistics(self, x: Tensor) -> bool:
        """Whether a batch norm in training would have statistics of a single value."""
        rows, vectors = (
            p is not None and p.kind.name == 'batch' for p in (self.sampling, self.weight_offset)
        )
        return (rows and x.numel() == x.shape[1]) or (vectors and len(x) == 1)

    def forward_of(
        self, x: Tensor, prior: Tensor, keeps: bool
    ) -> tuple[LayerProblem, LayerForward]:
        """Problem and forward pass for a map, channels last in memory, and a prior.

        Raises:
            ValueError: The shapes of map and kernel do not fit each other.
        """
        settings, tf32 = current(), uses_tf32(x)
        key = x.device, x.shape, x.dtype, prior.shape, keeps, tf32, settings
        found = self.passes.get(key)
        if found is None:
            problem = LayerProblem(
                x.device, (x.shape, x.dtype), prior.shape, *self.outlines, self.geometry, tf32
            )
            found = problem, layer_forward_of(problem, settings, keeps)
            if len(self.passes) >= MOST_SIZES:
                self.passes.clear()
            self.passes[key] = found
        return found
