"""The contextual convolution as a layer: a static kernel and the predictors that bend it."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
import torch.nn as nn
import torch.nn.functional as F
from mmpretrain.models.utils import build_norm_layer
from torch import Tensor

from mmctx.ops import contextual_conv2d

# The released code's epsilons, which its checkpoints rely on.
MAP_NORMS = {'LN': dict(type='LN2d', eps=1e-6), 'BN': dict(type='BN')}
VECTOR_NORMS = {'LN': dict(type='LN', eps=1e-5), 'BN': dict(type='BN1d')}


class ContextualConv2d(nn.Conv2d):
    """Convolution whose grid and kernel follow the image and the classes still considered (Eq. 4).

    The static kernel keeps the names `weight` and `bias` of the vanilla layer that it replaces, so
    that vanilla checkpoints load. The last layer of each predictor starts at zero: unmodulated, the
    layer then equals the vanilla one; modulated, its output is halved, as m starts at 0.5.

    Args:
        in_channels (int): Channels C of the input.
        out_channels (int): Channels of the output.
        kernel_size, stride, padding, dilation, groups, bias: As of `nn.Conv2d`; groups is 1 (dense)
            or `in_channels` (depthwise), padding is of zeros.
        prior_channels (int): Length P of the prior.
        offset_hidden (int, optional): Hidden channels of the predictor of Δp, whose last layer is
            then a dense convolution of the kernel's size. None makes that layer depthwise over
            as many channels as it predicts. Defaults to None.
        delta_hidden (int): Hidden features of the predictor of Δw. Defaults to 32.
        modulated (bool): Predict a mask too, as DCNv2. Defaults to False.
        norm (str): Norm in the predictors, `LN` or `BN`. Defaults to `LN`.

    Raises:
        ValueError: `groups` is neither 1 nor `in_channels`, or `norm` is unknown.
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
        offset_hidden: int | None = None,
        delta_hidden: int = 32,
        modulated: bool = False,
        norm: str = 'LN',
    ):
        super().__init__(
            in_channels, out_channels, kernel_size, stride, padding, dilation, groups, bias
        )
        if groups not in (1, in_channels):
            raise ValueError(f'groups should be 1 or in_channels={in_channels}, got {groups}')
        if norm not in MAP_NORMS:
            raise ValueError(f'norm should be one of {list(MAP_NORMS)}, got {norm!r}')
        self.modulated = modulated
        self.prior: Tensor | None = None
        taps = self.kernel_size[0] * self.kernel_size[1]
        context_channels = in_channels + prior_channels
        grid_channels = (3 if modulated else 2) * taps
        hidden = offset_hidden or grid_channels
        self.offset_predictor = nn.Sequential(
            nn.Conv2d(context_channels, hidden, 1),
            build_norm_layer(MAP_NORMS[norm], hidden),
            nn.ReLU(inplace=True),
            nn.Conv2d(
                hidden,
                grid_channels,
                self.kernel_size,
                stride=self.stride,
                padding=self.padding,
                dilation=self.dilation,
                groups=1 if offset_hidden else grid_channels,
            ),
        )
        self.delta_predictor = nn.Sequential(
            nn.Linear(context_channels, delta_hidden),
            build_norm_layer(VECTOR_NORMS[norm], delta_hidden),
            nn.ReLU(inplace=True),
            nn.Linear(delta_hidden, in_channels * taps),
        )
        self.zero_predictors()

    def zero_predictors(self):
        """Zero the last layer of both predictors, which makes Δp and Δw zero."""
        for predictor in (self.offset_predictor, self.delta_predictor):
            nn.init.zeros_(predictor[-1].weight)
            nn.init.zeros_(predictor[-1].bias)

    @contextmanager
    def given(self, prior: Tensor) -> Iterator[None]:
        """Hand the prior, (B, P), to the calls made inside, where only x can be passed along."""
        self.prior = prior
        try:
            yield
        finally:
            self.prior = None

    def predict_grid(self, x: Tensor, prior: Tensor) -> tuple[Tensor, Tensor | None]:
        """Δp, (B, 2K, H_out, W_out) in pixels, and the mask, (B, K, H_out, W_out) or None."""
        reduce, *rest = self.offset_predictor
        # The prior is the same at every pixel, so its share of the 1×1 convolution is too.
        of_prior, of_x = reduce.weight.split([prior.shape[1], x.shape[1]], dim=1)
        hidden = (
            F.conv2d(x, of_x) + F.linear(prior, of_prior.flatten(1), reduce.bias)[..., None, None]
        )
        for layer in rest:
            hidden = layer(hidden)
        if not self.modulated:
            return hidden, None
        taps = hidden.shape[1] // 3
        return hidden[:, : 2 * taps], hidden[:, 2 * taps :].sigmoid()

    def predict_delta(self, x: Tensor, prior: Tensor) -> Tensor:
        """Δw: (B, C, 1, kh, kw) depthwise, (B, 1, C_in, kh, kw) dense."""
        delta = self.delta_predictor(torch.cat([prior, x.mean((2, 3))], dim=1))
        depthwise = self.groups == self.in_channels
        channels = (self.in_channels, 1) if depthwise else (1, self.in_channels)
        return delta.view(len(x), *channels, *self.kernel_size)

    def forward(self, x: Tensor) -> Tensor:
        """Convolve x, (B, C_in, H, W), under the prior handed over by `given`.

        Raises:
            RuntimeError: Called without a prior.
        """
        if self.prior is None:
            raise RuntimeError(
                'ContextualConv2d needs a prior: call it inside `with conv.given(prior)`'
            )
        offset, mask = self.predict_grid(x, self.prior)
        return contextual_conv2d(
            x,
            self.weight,
            self.bias,
            offset=offset,
            weight_delta=self.predict_delta(x, self.prior),
            mask=mask,
            stride=self.stride,
            padding=self.padding,
            dilation=self.dilation,
        )
