"""The contextual convolution in plain PyTorch: fast on a CPU, with little memory."""

from torch import Tensor

from .sampling import Pair, output_size, sample_taps
from .tapwise_dense import dense_conv
from .tapwise_depthwise import depthwise_conv, taps_of_table


def contextual_conv2d_tapwise(
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
    """See `mmctx.ops.contextual_conv2d`, which checks the arguments.

    Raises:
        NotImplementedError: Second derivatives are asked for.
    """
    batch, channels, *size = x.shape
    kernel = weight.shape[-2:]
    out_size = output_size(size, kernel, stride, padding, dilation)
    depthwise = weight.shape[1] == 1 and channels > 1
    indices, corners = sample_taps(
        x, kernel, stride, padding, dilation, sampling_offset,
        tap_by_tap=depthwise and not taps_of_table(x.numel()),
    )  # fmt: skip
    compute_type = corners.dtype
    if mask is not None:
        mask = mask.flatten(2).transpose(1, 2).to(compute_type)  # [B, P, K], P output pixels
        corners = corners * mask[..., None]
    samples = [t.expand(batch, -1, -1, -1) for t in (indices, corners)]  # [B, P, K, 4]
    # For a single image, flatten returns a strided view, on which embedding_bag is slow.
    rows = x.permute(0, 2, 3, 1).flatten(1, 2).to(compute_type).contiguous()  # [B, H·W, C]

    weight = weight.to(compute_type)
    if weight_offset is not None:
        # Depthwise or dense, one of its first axes has length 1.
        weight_offset = weight_offset.flatten(3).flatten(1, 2).to(compute_type)  # [B, C, K]
        weight_offset = weight_offset.transpose(1, 2).contiguous()  # [B, K, C]
    if depthwise:
        kernels = weight.flatten(1).t().expand(batch, -1, -1)  # [B, K, C]
        if weight_offset is not None:
            kernels = kernels + weight_offset
        out = depthwise_conv(rows, *samples, kernels.contiguous())
    else:
        out = dense_conv(rows, *samples, weight.flatten(2), weight_offset)
    if bias is not None:
        out = out + bias.to(compute_type)
    return out.to(x.dtype).transpose(1, 2).unflatten(2, out_size)
