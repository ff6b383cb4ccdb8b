"""The contextual convolution in standard operators, for a program that runs without mmctx.

An exported program holds no operator of mmctx, and nothing in it depends on the size of the batch
or of the images that it was exported with.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from .sampling import Pair, tap_positions


def contextual_conv2d_in_standard_operators(
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
    """Convolve by `F.grid_sample`; for shapes see `mmctx.ops.contextual_conv2d`.

    Shapes are not checked, as those of an exported program are not known. Samples are taken for one
    row of taps after the other: all of a 7×7 kernel would need the memory of 49 maps, and one tap
    at a time 49 times the operators.
    """
    batch, channels, height, width = x.shape
    dtype = torch.promote_types(x.dtype, torch.float32)
    kernel = weight.shape[-2], weight.shape[-1]
    if sampling_offset is not None:
        # As torch.export compares strides, which depend on the map's size where channels are last.
        sampling_offset = sampling_offset.contiguous()
    y_positions, x_positions = tap_positions(
        (height, width), kernel, stride, padding, dilation, sampling_offset, x.device, dtype
    )
    # grid_sample counts from edge to edge, -1 to 1; nothing beyond 3 is near enough to be read.
    grid = torch.stack([(2 * x_positions + 1) / width - 1, (2 * y_positions + 1) / height - 1], -1)
    grid = grid.clamp(-3, 3).expand(batch, -1, -1, -1, -1)  # [B, K, H_out, W_out, 2]
    out_height = grid.shape[2]
    image, kernels = x.to(dtype), weight.to(dtype)
    offsets = None if weight_offset is None else weight_offset.to(dtype)
    depthwise = weight.shape[1] == 1 and channels > 1
    out = None if bias is None else bias.to(dtype)[:, None, None]
    for row in range(kernel[0]):
        taps = slice(row * kernel[1], (row + 1) * kernel[1])
        # Not flattened, which would make torch.export compare the map's height with the kernel's.
        below = torch.cat(grid[:, taps].unbind(1), 1)  # [B, kw·H_out, W_out, 2]
        sampled = F.grid_sample(image, below, align_corners=False)
        sampled = sampled.unflatten(2, (kernel[1], out_height))  # [B, C, kw, H_out, W_out]
        if mask is not None:
            sampled = sampled * mask[:, None, taps].to(dtype)
        offset = None if offsets is None else offsets[:, :, :, row].flatten(1, 2)  # [B, C, kw]
        if depthwise:
            each = kernels[None, :, 0, row]
            each = each if offset is None else each + offset
            share = (sampled * each[..., None, None]).sum(2)
        else:
            sampled = sampled.flatten(1, 2)  # [B, C·kw, H_out, W_out]
            share = F.conv2d(sampled, kernels[:, :, row].flatten(1)[..., None, None])
            if offset is not None:
                offset = offset.flatten(1)[..., None, None]
                share = share + (sampled * offset).sum(1, keepdim=True)
        out = share if out is None else out + share
    return out.to(x.dtype)
