"""The contextual convolution as a layer: a static kernel, and predictors of its offsets."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
import torch.nn as nn
import torch.nn.functional as F
from mmpretrain.models.utils import build_norm_layer
from torch import Tensor

from mmctx.errors import UserError
from mmctx.ops import check_geometry, contextual_conv2d
from mmctx.ops.autocasting import autocast_input, without_autocast
from mmctx.ops.layer_memory import LayerMemory
from mmctx.ops.layout import channels_last_on_cpu
from mmctx.ops.pointwise import linear_of_pixels
from mmctx.ops.pooling import pooled
from mmctx.ops.predicting import (
    conv2d_in_float32,
    layer_in_kernels,
    norm_relu,
    offsets_in_kernels,
    runs_kernels,
)

from .prior import PriorConv
from .reporting import current_listener
from .vector_step import run_vector_step

OFFSETS = ('sampling', 'weight')
# The released code's epsilons, which its checkpoints rely on.
MAP_NORMS = {'LN': dict(type='LN2d', eps=1e-6), 'BN': dict(type='BN')}
VECTOR_NORMS = {'LN': dict(type='LN', eps=1e-5), 'BN': dict(type='BN1d')}


class ConvolutionContext(NamedTuple):
    """What one contextual convolution did with a batch.

    Attributes:
        x (Tensor): Its input, (B, C_in, H, W).
        sampling_offset (Tensor, optional): Δp in pixels of x, (B, 2K, H_out, W_out), interleaved
            (Δy, Δx). None where it is not predicted, as all of the following.
        mask (Tensor, optional): Modulation m, (B, K, H_out, W_out), from 0 to 1.
        weight_offset (Tensor, optional): Δw, (B, C, 1, kh, kw) depthwise, (B, 1, C_in, kh, kw)
            dense.
    """

    x: Tensor
    sampling_offset: Tensor | None
    mask: Tensor | None
    weight_offset: Tensor | None


class PriorInputConv2d(PriorConv, nn.Conv2d):
    """1×1 convolution of an input with the prior, expanded over its pixels, as more channels.

    Row a2 of Table 4. `weight` and `bias` are the vanilla layer's; the weights of the channels of
    the prior, `prior_weight` (C_out, P), start at zero, and the layer then equals the vanilla one.

    Args:
        *args: As of `nn.Conv2d`.
        prior_channels (int): Length P of the prior.

    Raises:
        UserError: The kernel is not 1×1, or padded or grouped.
    """

    def __init__(self, *args, prior_channels: int):
        super().__init__(*args)
        if (*self.kernel_size, *self.padding, self.groups) != (1, 1, 0, 0, 1):
            raise UserError(f'only a plain 1×1 convolution takes the prior as input, got {self}')
        self.prior_weight = nn.Parameter(torch.zeros(self.out_channels, prior_channels))

    def forward(self, x: Tensor) -> Tensor:
        """Convolve x, (B, C_in, H, W), and the prior of `using_prior`."""
        # The prior is the same at every pixel, so its share of the output is too.
        share = F.linear(self.current_prior(), self.prior_weight)
        return super().forward(x) + share[..., None, None]


class ContextualConv2d(PriorConv, nn.Conv2d):
    """Convolution whose sampling positions and kernel follow the image and the prior (Eq. 4).

    The static kernel keeps the names `weight` and `bias` of the vanilla layer that it replaces, so
    that vanilla checkpoints load. The last layer of each predictor starts at zero: unmodulated, the
    layer then equals the vanilla one; modulated, its output is halved, as m starts at 0.5.

    Args:
        in_channels (int): Channels C of the input.
        out_channels (int): Channels of the output.
        kernel_size, stride, padding, dilation, groups, bias: As of `nn.Conv2d`; groups is 1 (dense)
            or `in_channels` (depthwise), padding is of zeros.
        prior_channels (int): Length P of the prior; 0 where the predictors see features alone.
        sampling_offset_hidden (int): Hidden channels of the predictor of the sampling offset Δp.
            Not used where `depthwise_predictor` is True. Defaults to 32.
        depthwise_predictor (bool): Whether the last layer of the predictor of Δp is a depthwise
            convolution, over as many hidden channels as it predicts, instead of a dense one.
            Defaults to False.
        weight_offset_hidden (int): Hidden features of the predictor of the weight offset Δw.
            Defaults to 32.
        modulated (bool): Whether a mask is predicted along with Δp, as in DCNv2. Defaults to False.
        offsets (Sequence[str]): Which offsets are predicted: `sampling` (Δp), `weight` (Δw) or
            both. Defaults to both.
        norm (str): Norm in the predictors, `LN` or `BN`. Defaults to `LN`.

    Raises:
        UserError: `stride`, `padding` or `dilation` is not possible, `groups` is neither 1 nor
            `in_channels`, a depthwise convolution has another number of outputs than of inputs, or
            `norm` or `offsets` is unknown.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int | tuple[int, int],
        stride: int | tuple[int, int] = 1,
        padding: int | tuple[int, int] = 0,
        dilation: int | tuple[int, int] = 1,
        groups: int = 1,
        bias: bool = True,
        *,
        prior_channels: int,
        sampling_offset_hidden: int = 32,
        depthwise_predictor: bool = False,
        weight_offset_hidden: int = 32,
        modulated: bool = False,
        offsets: Sequence[str] = OFFSETS,
        norm: str = 'LN',
    ):
        check_geometry(stride, padding, dilation)
        super().__init__(
            in_channels, out_channels, kernel_size, stride, padding, dilation, groups, bias
        )
        if groups not in (1, in_channels):
            raise UserError(f'groups should be 1 or in_channels={in_channels}, got {groups}')
        if groups > 1 and out_channels != in_channels:
            raise UserError(
                f'a depthwise convolution has as many outputs as inputs, got {in_channels} and '
                f'{out_channels} channels'
            )
        if norm not in MAP_NORMS:
            raise UserError(f'norm should be one of {list(MAP_NORMS)}, got {norm!r}')
        if not offsets or not set(offsets) <= set(OFFSETS):
            raise UserError(f'offsets should be some of {OFFSETS}, got {offsets!r}')
        self.modulated = modulated
        self.memory = LayerMemory()
        context_channels = in_channels + prior_channels
        self.sampling_offset_predictor = self.weight_offset_predictor = None
        if 'sampling' in offsets:
            self.sampling_offset_predictor = self._build_sampling_offset_predictor(
                context_channels, sampling_offset_hidden, depthwise_predictor, norm
            )
        if 'weight' in offsets:
            taps = self.kernel_size[0] * self.kernel_size[1]
            self.weight_offset_predictor = nn.Sequential(
                nn.Linear(context_channels, weight_offset_hidden),
                build_norm_layer(VECTOR_NORMS[norm], weight_offset_hidden),
                nn.ReLU(inplace=True),
                nn.Linear(weight_offset_hidden, in_channels * taps),
            )
        self.zero_predictors()

    def _build_sampling_offset_predictor(
        self, context_channels: int, hidden: int, depthwise: bool, norm: str
    ) -> nn.Sequential:
        taps = self.kernel_size[0] * self.kernel_size[1]
        offset_channels = (3 if self.modulated else 2) * taps
        if depthwise:
            hidden = offset_channels
        return nn.Sequential(
            nn.Conv2d(context_channels, hidden, 1),
            build_norm_layer(MAP_NORMS[norm], hidden),
            nn.ReLU(inplace=True),
            nn.Conv2d(
                hidden,
                offset_channels,
                self.kernel_size,
                stride=self.stride,
                padding=self.padding,
                dilation=self.dilation,
                groups=hidden if depthwise else 1,
            ),
        )

    def zero_predictors(self):
        """Zero the last layer of both predictors, which makes Δp and Δw zero."""
        for predictor in (self.sampling_offset_predictor, self.weight_offset_predictor):
            if predictor is not None:
                nn.init.zeros_(predictor[-1].weight)
                nn.init.zeros_(predictor[-1].bias)

    def predict_sampling_offset(
        self, x: Tensor, prior: Tensor
    ) -> tuple[Tensor | None, Tensor | None]:
        """Δp, (B, 2K, H_out, W_out) in pixels, and the mask's logits, (B, K, H_out, W_out).

        None for what is not predicted. Both are of float32 at least whatever the type of x, as of
        their sums: from 4 pixels on bfloat16 would step by 0.03. (Where PyTorch lets a GPU's
        convolutions use TF32, as it does by default, factors are rounded to 11 bits.)
        """
        if self.sampling_offset_predictor is None:
            return None, None
        x = autocast_input(x)
        with without_autocast(x):
            return self._split_mask(self._predict_offset_and_mask(x, prior))

    def _split_mask(self, predicted: Tensor) -> tuple[Tensor, Tensor | None]:
        if not self.modulated:
            return predicted, None
        taps = self.kernel_size[0] * self.kernel_size[1]
        # Not slices: the gradient of a split is one concatenation.
        return predicted.split([2 * taps, taps], dim=1)

    def _predict_offset_and_mask(self, x: Tensor, prior: Tensor) -> Tensor:
        layers: Any = self.sampling_offset_predictor
        reduce, norm, _, last = layers
        geometry = self.stride, self.padding, self.dilation
        prior = prior.to(reduce.weight.dtype)
        lengths = [reduce.in_channels - self.in_channels, self.in_channels]
        of_prior, of_x = reduce.weight.flatten(1).split_with_sizes(lengths, dim=1)
        # The prior is the same at every pixel, so its share of the 1×1 convolution is too.
        shares = F.linear(prior, of_prior, reduce.bias)  # [B, C']
        rows = linear_of_pixels(x, of_x.to(x.dtype))  # [B, H, W, C']
        if isinstance(norm, nn.LayerNorm):
            hidden = norm_relu(rows, shares, norm.weight, norm.bias, norm.eps)
        else:
            rows += shares[:, None, None]
            # By the layer itself, as BatchNorm may have been replaced by one that synchronises.
            hidden = norm(rows.permute(0, 3, 1, 2)).relu_().permute(0, 2, 3, 1)
        hidden = hidden.permute(0, 3, 1, 2)
        return conv2d_in_float32(hidden, last.weight, last.bias, *geometry, last.groups)

    def predict_weight_offset(self, x: Tensor, prior: Tensor) -> Tensor | None:
        """Δw: (B, C, 1, kh, kw) depthwise, (B, 1, C_in, kh, kw) dense, or None.

        Computed in the type of the parameters, under autocast too: casting them would take longer.
        """
        if self.weight_offset_predictor is None:
            return None
        last = self.weight_offset_predictor[-1]
        with without_autocast(x):
            vectors = torch.cat([prior, pooled(x, last.weight.dtype)], 1)
            hidden = run_vector_step(self.weight_offset_predictor, vectors)
            return self._shape_weight_offset(F.linear(hidden, last.weight, last.bias))

    def _shape_weight_offset(self, weight_offset: Tensor) -> Tensor:
        depthwise = self.groups == self.in_channels
        channels = (self.in_channels, 1) if depthwise else (1, self.in_channels)
        return weight_offset.unflatten(1, (*channels, *self.kernel_size))

    def predict_offsets(self, x: Tensor, prior: Tensor) -> tuple[Tensor | None, ...]:
        """Δp, the mask's logits and Δw as `predict_sampling_offset` and `predict_weight_offset`.

        In inference on a GPU both predictors run together, in few kernels.
        """
        x = autocast_input(x)
        with without_autocast(x):
            found = offsets_in_kernels(self, x, prior)
        if found is None:
            return *self.predict_sampling_offset(x, prior), self.predict_weight_offset(x, prior)
        predicted, weight_offset = found
        return (
            *((None, None) if predicted is None else self._split_mask(predicted)),
            None if weight_offset is None else self._shape_weight_offset(weight_offset),
        )

    def forward(self, x: Tensor) -> Tensor:
        """Convolve x, (B, C_in, H, W), with the offsets that x and the prior lead to.

        Called inside `using_prior`.

        Raises:
            RuntimeError: Called without a prior.
        """
        prior = self.current_prior()
        x = autocast_input(x)
        listener = current_listener()
        if listener is None:
            out = layer_in_kernels(self, x, prior)
            if out is not None:
                return out
        with without_autocast(x):
            # Once for both predictors and the convolution.
            if runs_kernels(x):
                x = x.contiguous(memory_format=torch.channels_last)
            else:
                x = channels_last_on_cpu(x)
            sampling_offset, mask_logits, weight_offset = self.predict_offsets(x, prior)
            if listener is not None:
                mask = None if mask_logits is None else mask_logits.sigmoid()
                listener(self, ConvolutionContext(x, sampling_offset, mask, weight_offset))
            return contextual_conv2d(
                x,
                self.weight,
                self.bias,
                sampling_offset=sampling_offset,
                weight_offset=weight_offset,
                mask_logits=mask_logits,
                stride=self.stride,
                padding=self.padding,
                dilation=self.dilation,
            )
