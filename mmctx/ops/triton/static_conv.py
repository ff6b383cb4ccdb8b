"""An ordinary convolution with results in float32, and its gradients, in Triton kernels."""

from functools import lru_cache

import torch
import triton
from torch import Tensor

from ..sampling import Pair, output_size
from .device_launch import aligned, on_device
from .launching import Launch, current_stream
from .settings import precision, split_evenly
from .static_dense import static_dense_kernel, static_dense_weight_kernel
from .static_depthwise import static_depthwise_kernel, static_depthwise_weight_kernel

# Sizes of a depthwise program: runs of output columns, which fit the maps of 224², and channels,
# 64 for a warp. With 98 channels, 7×7 taps and float16 on sm_90 that takes 64 registers, and 2.3
# instructions for each tap of an output value (4.4 if each output reads its own inputs).
DEPTHWISE_RUNS, DEPTHWISE_COLUMNS, DEPTHWISE_CHANNELS = 4, 7, 64
# Sizes of a dense program: output pixels, output channels, and channels of a matrix product. For
# gradients, which are read in float32, larger blocks spill on sm_80.
DENSE_PIXELS, DENSE_CHANNELS, DENSE_INNER, DENSE_BACKWARD = 64, 64, 64, 32
# Most taps of a row whose inputs are loaded together, and most channels with that in float32.
MOST_AHEAD, MOST_AHEAD_IN_FULL = 3, 32
# Number of programs of the weight's gradient: several for each multiprocessor of a large GPU.
WEIGHT_PROGRAMS = 1056

Geometry = tuple[Pair, Pair, Pair]


class StaticConv:
    """A convolution of rows of one shape.

    Args:
        device (torch.device): Where the rows are.
        dtype (torch.dtype): Type of the rows.
        rows_shape (tuple): Of the map, (B, H, W, C).
        weight_shape (tuple): (C, 1, kh, kw) depthwise or (N, C, kh, kw) dense.
        geometry (tuple): Stride, padding and dilation.
        tf32 (bool): Whether products of float32 use TF32.
    """

    def __init__(self, device, dtype, rows_shape, weight_shape, geometry: Geometry, tf32: bool):
        size = output_size(rows_shape[1:3], weight_shape[2:], *geometry)
        self.shape = rows_shape[0], *size, weight_shape[0]
        depthwise = is_depthwise(weight_shape, rows_shape[3])
        self.taps_type = torch.float32 if depthwise else dtype
        shapes = self.shape, rows_shape, weight_shape, geometry
        if depthwise:
            self.launch = _depthwise_launch(*shapes)
        else:
            self.launch = _dense_launch(dtype, *shapes, tf32)

    def __call__(self, stream: int, rows: Tensor, taps: Tensor, bias: Tensor | None) -> Tensor:
        """Result, (B, H_out, W_out, N), in float32, with the weight as `taps_first` lays it out."""
        out = rows.new_empty(self.shape, dtype=torch.float32)
        self.launch(stream, out, rows, taps, bias)
        return out


class StaticConvGradients:
    """Gradients of a `StaticConv` of the same arguments."""

    def __init__(self, device, dtype, rows_shape, weight_shape, geometry: Geometry, tf32: bool):
        size = output_size(rows_shape[1:3], weight_shape[2:], *geometry)
        shape = rows_shape[0], *size, weight_shape[0]
        self.depthwise = is_depthwise(weight_shape, rows_shape[3])
        self.shape = weight_shape
        self.count, channels, *self.kernel = weight_shape
        self.stride = geometry[0]
        if self.depthwise:
            # The gradient of a convolution of stride 1 is a convolution with reversed taps.
            _, padding, dilation = geometry
            transposed = (1, 1), (-padding[0], -padding[1]), (-dilation[0], -dilation[1])
            spread = self._spread_size(size)
            self.rows = _depthwise_launch(
                rows_shape, (*shape[:1], *spread, shape[3]), weight_shape, transposed
            )
            self.weight, chunks = _depthwise_weight_launch(
                shape, rows_shape, weight_shape, geometry
            )
            self.taps_type = torch.float32
        else:
            self.rows = _dense_launch(
                dtype, rows_shape, shape, weight_shape, geometry, tf32, transposed=True
            )
            self.weight, chunks = _dense_weight_launch(
                shape, rows_shape, weight_shape, geometry, tf32
            )
            self.taps_type = dtype
        taps = self.kernel[0] * self.kernel[1]
        # Of the weight and, behind it, of the bias, in the order in which the kernels hold them.
        self.sizes = [self.count * taps * channels, self.count]
        self.sums = chunks, sum(self.sizes)

    def __call__(
        self, stream: int, grad: Tensor, rows: Tensor, taps: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Gradients of rows, weight and bias from that of the output, (B, H_out, W_out, N).

        `taps` are the weight as `taps_first` lays it out, turned if the convolution is dense.
        """
        grad_rows = torch.empty_like(rows)
        self.rows(stream, grad_rows, self._spread(grad) if self.depthwise else grad, taps, None)
        sums = rows.new_empty(self.sums, dtype=torch.float32)
        self.weight(stream, sums, grad, rows)
        grad_weight, grad_bias = sums.sum(0).split(self.sizes)
        if self.depthwise:
            return grad_rows, grad_weight.view(self.shape), grad_bias
        # Channels last, as the weight of a network that trains fastest.
        grad_weight = grad_weight.view(self.count, *self.kernel, -1).permute(0, 3, 1, 2)
        return grad_rows, grad_weight, grad_bias

    def _spread_size(self, size: Pair) -> Pair:
        return (size[0] - 1) * self.stride[0] + 1, (size[1] - 1) * self.stride[1] + 1

    def _spread(self, grad: Tensor) -> Tensor:
        """Gradient of the output with zeros between its pixels, where a stride skips pixels."""
        if self.stride == (1, 1):
            return grad
        batch, height, width, channels = grad.shape
        spread = grad.new_zeros(batch, *self._spread_size((height, width)), channels)
        spread[:, :: self.stride[0], :: self.stride[1]] = grad
        return spread


@lru_cache(maxsize=4096)
def _forward_of(*arguments) -> StaticConv:
    # The last are further types, for which launches are compiled.
    return StaticConv(*arguments[:6])


@lru_cache(maxsize=4096)
def _gradients_of(*arguments) -> StaticConvGradients:
    return StaticConvGradients(*arguments[:6])


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
    run = _forward_of(
        rows.device, rows.dtype, rows.shape, weight.shape, geometry, uses_tf32(rows),
        None if bias is None else bias.dtype,
    )  # fmt: skip
    if 0 in run.shape:
        return rows.new_empty(run.shape, dtype=torch.float32)
    with on_device(rows.device):
        taps = taps_first(weight, run.taps_type)
        return run(current_stream(rows.device), rows, taps, bias)


def static_conv_backward(
    grad: Tensor, rows: Tensor, weight: Tensor, geometry: Geometry
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of rows, weight and bias from that of the output, (B, H_out, W_out, N)."""
    if not grad.numel():
        return torch.zeros_like(rows), torch.zeros_like(weight), weight.new_zeros(len(weight))
    rows, grad = aligned(rows), aligned(grad)
    run = _gradients_of(
        rows.device, rows.dtype, rows.shape, weight.shape, geometry, uses_tf32(rows), grad.dtype
    )
    with on_device(rows.device):
        taps = taps_first(weight, run.taps_type, turned=not run.depthwise)
        return run(current_stream(rows.device), grad, rows, taps)


def uses_tf32(rows: Tensor) -> bool:
    """Whether PyTorch's own convolutions would use TF32."""
    return rows.dtype == torch.float32 and torch.backends.cudnn.allow_tf32


def is_depthwise(weight_shape, channels: int) -> bool:
    return weight_shape[1] == 1 and channels > 1


def taps_first(weight: Tensor, dtype: torch.dtype, turned: bool = False) -> Tensor:
    """A kernel as (kh, kw, C_in, N), or turned, (kh, kw, N, C_in), contiguous."""
    taps = weight.permute(2, 3, 0, 1) if turned else weight.permute(2, 3, 1, 0)
    if taps.dtype == dtype:
        return taps.contiguous()
    return taps.to(dtype, memory_format=torch.contiguous_format)


def _depthwise_launch(out_shape, rows_shape, weight_shape, geometry) -> Launch:
    values = _depthwise_values(out_shape, rows_shape, weight_shape, geometry)
    programs = out_shape[0] * values['tiles'] * values['blocks']
    return Launch(static_depthwise_kernel, programs, values)


def _depthwise_weight_launch(out_shape, rows_shape, weight_shape, geometry) -> tuple[Launch, int]:
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


def _dense_launch(
    dtype, out_shape, rows_shape, weight_shape, geometry, tf32, transposed=False
) -> Launch:
    """Launch of the convolution, or of the gradient of its rows, which are then its output."""
    batch, out_height, out_width, out_channels = out_shape
    channels = rows_shape[3]
    block = _block_size(out_channels, DENSE_BACKWARD if transposed else DENSE_CHANNELS)
    inner = _block_size(channels, DENSE_BACKWARD if transposed else DENSE_INNER)
    blocks = triton.cdiv(out_channels, block)
    tiles = triton.cdiv(out_height * out_width, DENSE_PIXELS)
    width = weight_shape[3]
    # Of float32, in which gradients are, less fits in registers and shared memory.
    fits = not transposed and (dtype.itemsize == 2 or channels <= MOST_AHEAD_IN_FULL)
    values = dict(
        _sizes(out_shape, rows_shape, weight_shape, geometry), tiles=tiles, blocks=blocks,
        CHANNELS=channels, OUT_CHANNELS=out_channels, TRANSPOSED=transposed,
        PRECISION=precision(tf32), PIXELS=DENSE_PIXELS, INNER=inner, BLOCK=block,
        AHEAD=width if fits and width <= MOST_AHEAD else 1,
    )  # fmt: skip
    return Launch(static_dense_kernel, batch * tiles * blocks, values)


def _dense_weight_launch(out_shape, rows_shape, weight_shape, geometry, tf32) -> tuple[Launch, int]:
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
        PRECISION=precision(tf32), PIXELS=DENSE_PIXELS, BLOCK=block, OUT_BLOCK=out_block,
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
