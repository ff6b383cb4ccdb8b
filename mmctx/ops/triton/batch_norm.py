"""Linear layer, batch norm and ReLU of vectors in training: one kernel beside the products.

Step by step they are four kernels forward and six backward, each of which takes the host longer to
launch than the GPU to run.
"""

from functools import lru_cache

import torch
import triton
import triton.language as tl
from torch import Tensor, nn

from .batch_statistics import update_running
from .device_launch import aligned, on_device
from .launching import Launch, current_stream, mark_as_changed
from .products import multiply
from .second_derivatives import once_differentiable

# Vectors that a program holds at once, and its channels, which it owns alone.
ROWS, CHANNELS = 128, 16
# Parameters may be slices of a larger buffer, so their addresses may have any alignment.
VECTORS = ['bias', 'scale', 'shift', 'running_mean', 'running_variance', 'batches']
OPTIONS = dict(do_not_specialize=['count'], do_not_specialize_on_alignment=VECTORS)


@triton.jit
def load_rows(vectors, start, count, channel, exists, length, ROWS: tl.constexpr):
    """Indices of the values of some vectors, whether they exist, and the values, in float32."""
    row = (start + tl.arange(0, ROWS))[:, None]
    at, valid = row.to(tl.int64) * length + channel, (row < count) & exists
    return at, valid, tl.load(vectors + at, valid, 0).to(tl.float32)


@triton.jit
def load_gradients(vectors, grad, start, count, channel, exists, mean, deviation, weight, offset,
                   length, ROWS: tl.constexpr):  # fmt: skip
    """As `load_rows`, with the vectors normalised, and the gradients before the ReLU."""
    at, valid, x = load_rows(vectors, start, count, channel, exists, length, ROWS)
    _, _, g = load_rows(grad, start, count, channel, exists, length, ROWS)
    x = (x - mean) * deviation
    return at, valid, x, tl.where(x * weight + offset <= 0, 0, g)


@triton.jit(**OPTIONS)
def batch_norm_relu_kernel(
    out,  # [N, C]
    statistics,  # [2, C], mean and 1/σ
    running_mean,  # [C]
    running_variance,  # [C]
    batches,  # one int64, the number of batches so far
    vectors,  # [N, C] without the bias, which changes nothing but the running mean
    bias,  # [C]
    scale,  # [C]
    shift,  # [C]
    count, length,
    EPS: tl.constexpr, MOMENTUM: tl.constexpr, ROWS: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """A program owns some channels."""
    channel = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)[None, :]
    exists = channel < length
    total = tl.zeros([ROWS, BLOCK], tl.float32)
    for start in range(0, count, ROWS):
        _, _, x = load_rows(vectors, start, count, channel, exists, length, ROWS)
        total += x
    mean = tl.sum(total, 0, keep_dims=True) / count
    total = tl.zeros([ROWS, BLOCK], tl.float32)
    for start in range(0, count, ROWS):
        _, valid, x = load_rows(vectors, start, count, channel, exists, length, ROWS)
        x = tl.where(valid, x - mean, 0)
        total += x * x
    squares = tl.sum(total, 0, keep_dims=True)
    deviation = tl.rsqrt(squares / count + EPS)
    weight = tl.load(scale + channel, exists, 0).to(tl.float32)
    offset = tl.load(shift + channel, exists, 0).to(tl.float32)
    for start in range(0, count, ROWS):
        at, valid, x = load_rows(vectors, start, count, channel, exists, length, ROWS)
        y = (x - mean) * deviation * weight + offset
        # Not `tl.maximum(y, 0)`, which would hide a NaN.
        tl.store(out + at, tl.where(y <= 0, 0, y).to(out.dtype.element_ty), valid)
    tl.store(statistics + channel, mean, exists)
    tl.store(statistics + length + channel, deviation, exists)
    mean += tl.load(bias + channel, exists, 0).to(tl.float32)
    update_running(running_mean, running_variance, batches, channel, exists, mean,
                   squares / (count - 1), MOMENTUM)  # fmt: skip


@triton.jit(**OPTIONS)
def batch_norm_relu_backward_kernel(
    grad_vectors,  # [N, C]
    sums,  # [3, C], gradients of bias, scale and shift
    grad,  # [N, C]
    vectors,  # [N, C]
    statistics,  # [2, C], mean and 1/σ
    scale,  # [C]
    shift,  # [C]
    count, length,
    ROWS: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """A program owns some channels."""
    channel = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)[None, :]
    exists = channel < length
    mean = tl.load(statistics + channel, exists, 0)
    deviation = tl.load(statistics + length + channel, exists, 0)
    weight = tl.load(scale + channel, exists, 0).to(tl.float32)
    offset = tl.load(shift + channel, exists, 0).to(tl.float32)
    total = tl.zeros([ROWS, BLOCK], tl.float32)
    along = tl.zeros([ROWS, BLOCK], tl.float32)
    for start in range(0, count, ROWS):
        _, _, x, g = load_gradients(vectors, grad, start, count, channel, exists, mean, deviation,
                                    weight, offset, length, ROWS)  # fmt: skip
        total += g
        along += g * x
    grad_shift = tl.sum(total, 0, keep_dims=True)
    grad_scale = tl.sum(along, 0, keep_dims=True)
    total = tl.zeros([ROWS, BLOCK], tl.float32)
    for start in range(0, count, ROWS):
        at, valid, x, g = load_gradients(vectors, grad, start, count, channel, exists, mean,
                                         deviation, weight, offset, length, ROWS)  # fmt: skip
        g = (g - (grad_shift + x * grad_scale) / count) * deviation * weight
        total += tl.where(valid, g, 0)
        tl.store(grad_vectors + at, g.to(grad_vectors.dtype.element_ty), valid)
    tl.store(sums + channel, tl.sum(total, 0, keep_dims=True), exists)
    tl.store(sums + length + channel, grad_scale, exists)
    tl.store(sums + 2 * length + channel, grad_shift, exists)


class BatchNormStep(torch.autograd.Function):
    """ReLU(batch norm(linear layer)) with its gradients, which updates the running statistics."""

    @staticmethod
    def forward(ctx, x, weight, bias, scale, shift, norm):
        vectors = multiply(x, weight.t())
        ctx.launches = _launches(
            x.device, vectors.shape, norm.eps, norm.momentum,
            (vectors.dtype, norm.running_mean.dtype, scale.dtype),
        )  # fmt: skip
        running = norm.running_mean, norm.running_var, norm.num_batches_tracked
        with on_device(x.device):
            stream = current_stream(x.device)
            out, statistics = ctx.launches(stream, vectors, bias, scale, shift, running)
        ctx.save_for_backward(x, weight, vectors, statistics, scale, shift)
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx, grad):
        x, weight, vectors, statistics, scale, shift = ctx.saved_tensors
        with on_device(x.device):
            grad_vectors, sums = ctx.launches.gradients(
                current_stream(x.device), aligned(grad), vectors, statistics, scale, shift
            )
        needs_x, needs_weight = ctx.needs_input_grad[:2]
        grad_x = multiply(grad_vectors, weight) if needs_x else None
        grad_weight = multiply(grad_vectors.t(), x) if needs_weight else None
        return grad_x, grad_weight, *sums.to(scale.dtype).unbind(), None


def takes_batch_norm(norm: nn.Module) -> bool:
    """Whether the kernel does what a norm would do in training."""
    # Not a subclass, as of a norm that synchronises.
    return (
        type(norm) is nn.BatchNorm1d
        and norm.training
        and norm.affine
        and norm.track_running_stats
        and norm.momentum is not None
    )


def _empty(rows: int, like: Tensor) -> Tensor:
    return like.new_empty(rows, len(like), dtype=torch.float32)


class BatchNormVectors:
    """Launches of ReLU(batch norm) of vectors of one shape, forward and backward.

    Args:
        shape (tuple): Of the vectors, (N, C).
        eps (float): Epsilon of the norm.
        momentum (float): Momentum of the running statistics.
    """

    def __init__(self, shape, eps: float, momentum: float):
        count, length = shape
        values = dict(
            count=count, length=length, EPS=eps, MOMENTUM=momentum, ROWS=ROWS, BLOCK=CHANNELS
        )
        programs = triton.cdiv(length, CHANNELS)
        self.forward = Launch(batch_norm_relu_kernel, programs, values)
        self.backward = Launch(batch_norm_relu_backward_kernel, programs, values)

    def __call__(
        self, stream: int, vectors: Tensor, bias: Tensor, scale: Tensor, shift: Tensor, running
    ) -> tuple[Tensor, Tensor]:
        """Results, (N, C), and statistics, (2, C), of vectors without their bias.

        `running` are the running mean, running variance and number of batches, all updated.
        """
        out, statistics = torch.empty_like(vectors), _empty(2, scale)
        self.forward(stream, out, statistics, *running, vectors, bias, scale, shift)
        mark_as_changed(running)
        return out, statistics

    def gradients(
        self, stream: int, grad: Tensor, vectors: Tensor, statistics: Tensor, scale, shift
    ) -> tuple[Tensor, Tensor]:
        """Gradients of the vectors, and of bias, scale and shift, (3, C), in float32."""
        grad_vectors, sums = torch.empty_like(vectors), _empty(3, scale)
        self.backward(stream, grad_vectors, sums, grad, vectors, statistics, scale, shift)
        return grad_vectors, sums


@lru_cache(maxsize=4096)
def _launches(device, shape, eps, momentum, types) -> BatchNormVectors:
    return BatchNormVectors(shape, eps, momentum)
