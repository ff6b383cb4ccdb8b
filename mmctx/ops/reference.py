"""The contextual convolution written out: all samples in memory, then one product.

It is slow and needs much memory, but follows Eq. 4 step by step; `sampling.sample_taps` computes
the positions p + g(k) + Δp(k). Tests compare the other back ends with it.
"""

import torch
from torch import Tensor

from .sampling import Pair, output_size, sample_taps


def contextual_conv2d_reference(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    sampling_offset: Tensor | None,
    weight_offset: Tensor | None,
    mask: Tensor | None,
    stride: Pair,
    padding: Pair,
    dilation: Pair,
) -> Tensor:
    """See `mmctx.ops.contextual_conv2d`, which checks the arguments."""
    batch, channels, *size = x.shape
    kernel = weight.shape[-2:]
    out_size = output_size(size, kernel, stride, padding, dilation)
    # Pixels around each sample and their bilinear weights.
    indices, shares = sample_taps(x, kernel, stride, padding, dilation, sampling_offset)
    indices = indices.long().flatten(1).expand(batch, -1)  # [B, P·K·4], P output pixels
    pixels = x.flatten(2).gather(2, indices[:, None].expand(-1, channels, -1))
    pixels = pixels.view(batch, channels, *shares.shape[1:])  # [B, C, P, K, 4]
    sampled = (pixels * shares[:, None]).sum(-1)  # [B, C, P, K]
    if mask is not None:
        sampled = sampled * mask.flatten(2).transpose(1, 2)[:, None]

    kernels = weight.flatten(2)  # [C_out, C_in / groups, K]
    weight_offsets = None if weight_offset is None else weight_offset.flatten(3).to(sampled.dtype)
    if weight.shape[1] == 1 and channels > 1:  # depthwise
        kernels = kernels[None, :, 0].to(sampled.dtype)  # [1, C, K]
        if weight_offsets is not None:
            kernels = kernels + weight_offsets[:, :, 0]
        out = torch.einsum('bcpk,bck->bcp', sampled, kernels.expand(batch, -1, -1))
    else:
        out = torch.einsum('bipk,oik->bop', sampled, kernels.to(sampled.dtype))
        if weight_offsets is not None:
            out = out + torch.einsum('bipk,bik->bp', sampled, weight_offsets[:, 0])[:, None]
    if bias is not None:
        out = out + bias.to(out.dtype)[:, None]
    return out.to(x.dtype).unflatten(2, out_size)
