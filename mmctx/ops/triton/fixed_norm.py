"""Norms in inference: layer norms, and batch norms with the statistics that they have."""

from functools import lru_cache
from typing import NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor, nn

from .device_launch import aligned, launch_on_device
from .launching import Launch
from .settings import row_tile

# Parameters may be slices of a larger buffer, so their addresses may have any alignment.
VECTORS = ['bias', 'scale', 'shift', 'mean', 'variance']


class Norm(NamedTuple):
    """A norm over channels.

    Attributes:
        scale, shift (Tensor): (C,).
        mean, variance (Tensor, optional): (C,), of a batch norm; None for a layer norm.
        eps (float): Added to the variance.
    """

    scale: Tensor
    shift: Tensor
    mean: Tensor | None
    variance: Tensor | None
    eps: float

    @classmethod
    def of(cls, norm: nn.Module) -> 'Norm':
        """Norm of an `nn.LayerNorm` or an `nn.BatchNorm*d`."""
        if isinstance(norm, nn.LayerNorm):
            return cls(norm.weight, norm.bias, None, None, norm.eps)
        return cls(norm.weight, norm.bias, norm.running_mean, norm.running_var, norm.eps)

    @property
    def kind(self) -> tuple:
        """What a launch is compiled for."""
        return self.eps, self.mean is None, self.scale.dtype


@triton.jit
def normalized(x, scale, shift, mean, variance, channel, exists, EPS: tl.constexpr,
               CHANNELS: tl.constexpr):  # fmt: skip
    """ReLU of the norm of rows x, [N, BLOCK], over channels."""
    if mean is not None:
        x -= tl.load(mean + channel, exists, 0).to(tl.float32)
        x *= tl.rsqrt(tl.load(variance + channel, exists, 1).to(tl.float32) + EPS)
    else:
        x = tl.where(exists, x, 0)
        x = tl.where(exists, x - tl.sum(x, 1, keep_dims=True) / CHANNELS, 0)
        x *= tl.rsqrt(tl.sum(x * x, 1, keep_dims=True) / CHANNELS + EPS)
    x = x * tl.load(scale + channel, exists, 0).to(tl.float32)
    x += tl.load(shift + channel, exists, 0).to(tl.float32)
    # Not `tl.maximum(x, 0)`, which would hide a NaN.
    return tl.where(x <= 0, 0, x)


@triton.jit(do_not_specialize=['count'], do_not_specialize_on_alignment=VECTORS)
def norm_relu_vectors_kernel(
    out,  # [N, C]
    vectors,  # [N, C]
    bias, scale, shift, mean, variance,  # [C]; mean and variance are None for a layer norm
    count,
    EPS: tl.constexpr, CHANNELS: tl.constexpr, BLOCK: tl.constexpr, ROWS: tl.constexpr,
):  # fmt: skip
    """A program owns some vectors."""
    channel = tl.arange(0, BLOCK)[None, :]
    exists = channel < CHANNELS
    row = (tl.program_id(0) * ROWS + tl.arange(0, ROWS))[:, None]
    at, valid = row.to(tl.int64) * CHANNELS + channel, (row < count) & exists
    x = tl.load(vectors + at, valid, 0).to(tl.float32)
    x += tl.load(bias + channel, exists, 0).to(tl.float32)
    x = normalized(x, scale, shift, mean, variance, channel, exists, EPS, CHANNELS)
    tl.store(out + at, x.to(out.dtype.element_ty), valid)


def norm_relu_vectors(vectors: Tensor, bias: Tensor, norm: Norm) -> Tensor:
    """ReLU(norm(vectors + bias)), (N, C), of the type of `vectors`.

    Args:
        vectors (Tensor): (N, C).
        bias (Tensor): (C,).
        norm (Norm): Norm of C channels.
    """
    vectors = aligned(vectors)
    out = torch.empty_like(vectors)
    if out.numel():
        launch = _launch(vectors.device, vectors.shape, norm.kind, (vectors.dtype, bias.dtype))
        launch_on_device(launch, out, vectors, bias, *norm[:4])
    return out


@lru_cache(maxsize=4096)
def _launch(device, shape, norm_kind, types) -> Launch:
    count, channels = shape
    block, rows = row_tile(channels)
    values = dict(count=count, EPS=norm_kind[0], CHANNELS=channels, BLOCK=block, ROWS=rows)
    return Launch(norm_relu_vectors_kernel, triton.cdiv(count, rows), values)
