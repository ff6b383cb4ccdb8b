"""An ordinary convolution with results in float32, and its gradients, in Triton kernels."""

from functools import lru_cache

import torch
import triton
from torch import Tensor

from ..sampling import Pair, output_size
from .device_launch import aligned, launch_on_device
from .launching import Launch
from .settings import split_evenly
from .static_dense import static_dense_kernel, static_dense_weight_kernel
from .static_depthwise import static_depthwise_kernel, static_depthwise_weight_kernel

# Sizes of a depthwise program: runs of output columns, which fit the maps of 224², and channels,
# 64 for a warp. With 98 channels, 7×7 taps and float16 on sm_90 that takes 64 registers, and 2.3
# instructions for each tap of an output value (4.4 if each output reads its own inputs).
DEPTHWISE_RUNS, DEPTHWISE_COLUMNS, DEPTHWISE_CHANNELS = 4, 7, 64
# Sizes of a dense program: output pixels, output channels, and channels of a matrix product. For
# gradients, which are read in float32, larger blocks spill on sm_80.
DENSE_PIXELS, DENSE_CHANNELS, DENSE_INNER, DENSE_BACKWARD = 64, 64, 64, 32
# Number of programs of the weight's gradient: several for each multiprocessor of a large GPU.
WEIGHT_PROGRAMS = 1056

Geometry = tuple[Pair, Pair, Pair]


def static_conv_forward(
    rows: Tensor, weight: Tensor, bias: Tensor | None, geometry: Geometry
) -> Tensor:
    """Compute the convolution in float32, (B, H_out, W_out, N).

    Args:
        rows (Tensor): Map, (B, H, W, C), in float16, bfloat16 or float32.
        weight (Tensor): Kernel, (C, 1, kh, kw) depthwise or (N, C, kh, kw) dense.
        bias (Tensor, optional): Bias, (N,).
        geometry (tuple): Stride, padding and dilation.
    """
    rows = aligned(rows)
    depthwise = is_depthwise(weight, rows.shape[3])
    types = rows.dtype, None if bias is None else bias.dtype
    prepare = _depthwise_launch if depthwise else _dense_launch
    out_shape = _out_shape(rows.shape, weight.shape, geometry)
    out = torch.empty(out_shape, dtype=torch.float32, device=rows.device)
    if out.numel():
        launch = prepare(
            rows.device, out_shape, rows.shape, weight.shape, geometry, types, _uses_tf32(rows)
        )
        taps = taps_first(weight, torch.float32 if depthwise else rows.dtype)
        launch_on_device(launch, out, rows, taps, bias)
    return out


def static_conv_backward(
    grad: Tensor, rows: Tensor, weight: Tensor, has_bias: bool, geometry: Geometry
) -> tuple[Tensor, Tensor, Tensor | None]:
    """Gradients of rows, weight and bias from that of the output, (B, H_out, W_out, N)."""
    if not grad.numel():
        grad_bias = weight.new_zeros(len(weight)) if has_bias else None
        return torch.zeros_like(rows), torch.zeros_like(weight), grad_bias
    rows, grad = aligned(rows), aligned(grad)
    if not is_depthwise(weight, rows.shape[3]):
        return _dense_backward(grad, rows, weight, has_bias, geometry)
    taps = weight.shape[2] * weight.shape[3]
    types = rows.dtype, grad.dtype
    grad_rows = torch.empty_like(rows)
    # The gradient of a convolution of stride 1 is a convolution with reversed taps.
    stride, padding, dilation = geometry
    spread = _spread(grad, stride)
    transposed = (1, 1), (-padding[0], -padding[1]), (-dilation[0], -dilation[1])
    launch = _depthwise_launch(
        rows.device, rows.shape, spread.shape, weight.shape, transposed, types
    )
    launch_on_device(launch, grad_rows, spread, taps_first(weight, torch.float32), None)
    launch, chunks = _weight_launch(
        rows.device, grad.shape, rows.shape, weight.shape, geometry, types
    )
    sums = torch.empty(chunks, taps + 1, rows.shape[3], dtype=torch.float32, device=rows.device)
    launch_on_device(launch, sums, grad, rows)
    sums = sums.sum(0)
    grad_weight = sums[:taps].t().contiguous().view(weight.shape)
    return grad_rows, grad_weight, sums[taps] if has_bias else None


def _spread(grad: Tensor, stride: Pair) -> Tensor:
    """Gradient of the output with zeros between its pixels, where a stride skips pixels."""
    if stride == (1, 1):
        return grad
    batch, height, width, channels = grad.shape
    size = (height - 1) * stride[0] + 1, (width - 1) * stride[1] + 1
    spread = grad.new_zeros(batch, *size, channels)
    spread[:, :: stride[0], :: stride[1]] = grad
    return spread


def _dense_backward(grad, rows, weight, has_bias, geometry):
    """Gradients of a dense convolution, the products in the rows' type."""
    types, tf32 = (rows.dtype, grad.dtype), _uses_tf32(rows)
    grad_rows = torch.empty_like(rows)
    launch = _dense_launch(
        rows.device, rows.shape, grad.shape, weight.shape, geometry, types, tf32, transposed=True
    )
    taps = taps_first(weight.transpose(0, 1), rows.dtype)
    launch_on_device(launch, grad_rows, grad, taps, None)
    launch, chunks = _dense_weight_launch(
        rows.device, grad.shape, rows.shape, weight.shape, geometry, types, tf32
    )
    count, channels, *kernel = weight.shape
    sums = torch.empty(chunks, weight.numel() + count, dtype=torch.float32, device=rows.device)
    launch_on_device(launch, sums, grad, rows)
    grad_weight, grad_bias = sums.sum(0).split([weight.numel(), count])
    # Channels last, as the weight of a network that trains fastest.
    grad_weight = grad_weight.view(count, *kernel, channels).permute(0, 3, 1, 2)
    return grad_rows, grad_weight, grad_bias if has_bias else None


def _uses_tf32(rows: Tensor) -> bool:
    """Whether PyTorch's own convolutions would use TF32."""
    return rows.dtype == torch.float32 and torch.backends.cudnn.allow_tf32


def is_depthwise(weight: Tensor, channels: int) -> bool:
    """Whether each channel is convolved by itself."""
    return weight.shape[1] == 1 and channels > 1


def taps_first(weight: Tensor, dtype: torch.dtype) -> Tensor:
    """A kernel as (kh, kw, C_in, N), in which neighbouring channels are adjacent in memory."""
    taps = weight.permute(2, 3, 1, 0)
    if taps.dtype == dtype:
        return taps.contiguous()
    return taps.to(dtype, memory_format=torch.contiguous_format)


@lru_cache(maxsize=4096)
def _out_shape(rows_shape, weight_shape, geometry: Geometry) -> tuple[int, ...]:
    """(B, H_out, W_out, N)."""
    size = output_size(rows_shape[1:3], weight_shape[2:], *geometry)
    return rows_shape[0], *size, weight_shape[0]


@lru_cache(maxsize=4096)
def _depthwise_launch(
    device, out_shape, rows_shape, weight_shape, geometry, types, tf32=None
) -> Launch:
    values = _depthwise_values(out_shape, rows_shape, weight_shape, geometry)
    programs = out_shape[0] * values['tiles'] * values['blocks']
    return Launch(static_depthwise_kernel, programs, values)


@lru_cache(maxsize=4096)
def _weight_launch(
    device, out_shape, rows_shape, weight_shape, geometry, types
) -> tuple[Launch, int]:
    """Launch of the weight's gradient, and the number of chunks of runs."""
    values = _depthwise_values(out_shape, rows_shape, weight_shape, geometry)
    all_tiles, programs = out_shape[0] * values['tiles'], values['blocks'] * weight_shape[2]
    chunks, chunk_tiles = split_evenly(all_tiles, triton.cdiv(WEIGHT_PROGRAMS, programs))
    values.update(all_tiles=all_tiles, chunk_tiles=chunk_tiles)
    return Launch(static_depthwise_weight_kernel, programs * chunks, values), chunks


def _depthwise_values(out_shape, rows_shape, weight_shape, geometry) -> dict[str, int]:
    _, out_height, out_width, channels = out_shape
    block = _block_size(channels, DEPTHWISE_CHANNELS)
    row_runs = triton.cdiv(out_width, DEPTHWISE_COLUMNS)
    step = (DEPTHWISE_COLUMNS - 1) * geometry[0][1], (weight_shape[3] - 1) * geometry[2][1]
    return dict(
        _sizes(out_shape, rows_shape, weight_shape, geometry),
        row_runs=row_runs,
        tiles=triton.cdiv(out_height * row_runs, DEPTHWISE_RUNS),
        blocks=triton.cdiv(channels, block),
        CHANNELS=channels,
        # Forward a run reads from its first tap on, for the gradient to both sides of it.
        FIRST=min(step[1], 0),
        LAST=step[0] + max(step[1], 0),
        RUNS=DEPTHWISE_RUNS,
        COLUMNS=DEPTHWISE_COLUMNS,
        BLOCK=block,
    )


@lru_cache(maxsize=4096)
def _dense_launch(
    device, out_shape, rows_shape, weight_shape, geometry, types, tf32, transposed=False
) -> Launch:
    """Launch of the convolution, or of the gradient of its rows, which are then its output."""
    batch, out_height, out_width, out_channels = out_shape
    channels = rows_shape[3]
    block = _block_size(out_channels, DENSE_BACKWARD if transposed else DENSE_CHANNELS)
    inner = _block_size(channels, DENSE_BACKWARD if transposed else DENSE_INNER)
    blocks = triton.cdiv(out_channels, block)
    tiles = triton.cdiv(out_height * out_width, DENSE_PIXELS)
    values = dict(
        _sizes(out_shape, rows_shape, weight_shape, geometry), tiles=tiles, blocks=blocks,
        CHANNELS=channels, OUT_CHANNELS=out_channels, TRANSPOSED=transposed,
        PRECISION='tf32' if tf32 else 'ieee', PIXELS=DENSE_PIXELS, INNER=inner, BLOCK=block,
    )  # fmt: skip
    return Launch(static_dense_kernel, batch * tiles * blocks, values)


@lru_cache(maxsize=4096)
def _dense_weight_launch(
    device, out_shape, rows_shape, weight_shape, geometry, types, tf32
) -> tuple[Launch, int]:
    """Launch of the weight's gradient, and the number of chunks of tiles."""
    batch, out_height, out_width, out_channels = out_shape
    channels = rows_shape[3]
    block = _block_size(channels, DENSE_CHANNELS)
    out_block = _block_size(out_channels, DENSE_BACKWARD)
    blocks = triton.cdiv(channels, block)
    tiles = triton.cdiv(out_height * out_width, DENSE_PIXELS)
    programs = weight_shape[2] * weight_shape[3] * blocks * triton.cdiv(out_channels, out_block)
    all_tiles = batch * tiles
    chunks, chunk_tiles = split_evenly(all_tiles, triton.cdiv(WEIGHT_PROGRAMS, programs))
    values = dict(
        _sizes(out_shape, rows_shape, weight_shape, geometry), tiles=tiles, all_tiles=all_tiles,
        chunk_tiles=chunk_tiles, blocks=blocks, CHANNELS=channels, OUT_CHANNELS=out_channels,
        PRECISION='tf32' if tf32 else 'ieee', PIXELS=DENSE_PIXELS, BLOCK=block, OUT_BLOCK=out_block,
    )  # fmt: skip
    return Launch(static_dense_weight_kernel, programs * chunks, values), chunks


def _sizes(out_shape, rows_shape, weight_shape, geometry: Geometry) -> dict[str, int]:
    """Sizes of the maps and the geometry, by parameter of the kernels."""
    values = dict(
        height=rows_shape[1], width=rows_shape[2], out_height=out_shape[1], out_width=out_shape[2]
    )
    values['KERNEL_HEIGHT'], values['KERNEL_WIDTH'] = weight_shape[2:]
    for name, pair in zip(('STRIDE', 'PADDING', 'DILATION'), geometry):
        values[f'{name}_Y'], values[f'{name}_X'] = pair
    return values


def _block_size(size: int, most: int) -> int:
    """Smallest power of two for `size`, at least 16 for matrix products and at most `most`."""
    return min(max(triton.next_power_of_2(size), 16), most)
