"""Cross entropies of all stages over the classes that each considers, by two kernels and one back.

Sizes: one to four stages, B images, N classes.
"""

from collections.abc import Callable, Sequence
from functools import lru_cache

import torch
import triton
import triton.language as tl
from torch import Tensor

from .device_launch import aligned, on_device
from .keeping import warps_for_row
from .launching import Launch, current_stream
from .second_derivatives import once_differentiable

# Stages that one launch serves: those of a network.
MOST_STAGES = 4
# Losses that a program adds at a time.
ADDED_AT_ONCE = 1024
LABELS = ['target']


@triton.jit
def choose(stage, first, second, third, fourth):
    """One of four pointers or numbers, by a number that counts from 0."""
    before = tl.where(stage == 0, first, second)
    return tl.where(stage < 2, before, tl.where(stage == 2, third, fourth))


@triton.jit
def restricted_target(x, target, image, smoothing, classes, n, SOFT: tl.constexpr):
    """Which classes are considered, the target over these, and two numbers of an image.

    The numbers are whether its main label is considered, 1 or 0, NaN for a label that is no class,
    and the logarithm of the sum of all exponentials.
    """
    # A NaN counts as considered, so that the loss shows it.
    considered = x != -float('inf')
    if SOFT:
        at = image.to(tl.int64) * classes + n
        t = tl.load(target + at, n < classes, 0).to(tl.float32)
        label = tl.argmax(tl.where(n < classes, t, -float('inf')), 0)
        valid = label >= 0
    else:
        label = tl.load(target + image).to(tl.int64)
        valid = (label >= 0) & (label < classes)
        t = tl.where(n == label, 1.0, 0.0)
    counts = tl.sum(((n == label) & considered).to(tl.float32), 0)
    # A label that there is no class for must not pass for one that is not considered.
    counts = tl.where(valid, counts, float('nan'))
    t = tl.where(considered, t, 0)
    t /= tl.maximum(tl.sum(t, 0), 1.1754943508222875e-38)
    uniform = tl.where(considered, 1.0, 0.0)
    uniform /= tl.maximum(tl.sum(uniform, 0), 1.0)
    t += (uniform - t) * smoothing
    largest = tl.max(x, 0)
    largest = tl.where(largest == -float('inf'), 0, largest)
    return considered, t, counts, largest + tl.log(tl.sum(tl.exp(x - largest), 0))


@triton.jit(do_not_specialize=['batch', 'classes'], do_not_specialize_on_alignment=LABELS)
def sample_losses_kernel(
    losses,  # [S, B], zero for images that do not count
    counts,  # [S, B], 1 for images whose main label is considered, else 0
    logits_1, logits_2, logits_3, logits_4,  # [B, N], −∞ for classes that are not considered
    target,  # [B] labels or [B, N] scores
    batch, classes, smoothing,
    SOFT: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """A program owns an image in a stage."""
    stage, image = tl.program_id(0) // batch, tl.program_id(0) % batch
    n = tl.arange(0, BLOCK)
    logits = choose(stage, logits_1, logits_2, logits_3, logits_4)
    x = tl.load(logits + image.to(tl.int64) * classes + n, n < classes, -float('inf'))
    considered, t, count, log_sum = restricted_target(x, target, image, smoothing, classes, n, SOFT)
    loss = tl.sum(tl.where(considered, t * (log_sum - x), 0), 0)
    # A product, as a NaN must be seen.
    tl.store(losses + tl.program_id(0), loss * count)
    tl.store(counts + tl.program_id(0), count)


@triton.jit(do_not_specialize=['batch'])
def mean_losses_kernel(
    means,  # [S], weighted
    factors,  # [S], what each loss of an image that counts is multiplied by
    losses,  # [S, B]
    counts,  # [S, B]
    numbers,  # [S], how many images count in all processes, or None where there is one process
    batch, processes, weight_1, weight_2, weight_3, weight_4,
    BLOCK: tl.constexpr,
):  # fmt: skip
    """A program owns a stage."""
    stage = tl.program_id(0)
    total, count = tl.zeros([BLOCK], tl.float32), tl.zeros([BLOCK], tl.float32)
    for start in range(0, batch, BLOCK):
        image = start + tl.arange(0, BLOCK)
        total += tl.load(losses + stage * batch + image, image < batch, 0)
        count += tl.load(counts + stage * batch + image, image < batch, 0)
    number = tl.sum(count, 0)
    if numbers is not None:
        number = tl.load(numbers + stage)
    # Of a process on average, as DDP averages gradients.
    factor = choose(stage, weight_1, weight_2, weight_3, weight_4) * processes
    factor /= tl.maximum(number, 1.0)
    tl.store(means + stage, tl.sum(total, 0) * factor)
    tl.store(factors + stage, factor)


@triton.jit(do_not_specialize=['batch', 'classes'], do_not_specialize_on_alignment=LABELS)
def losses_backward_kernel(
    grad_1, grad_2, grad_3, grad_4,  # [B, N], of the logits
    grad,  # [S], of the means
    factors,  # [S]
    logits_1, logits_2, logits_3, logits_4,  # [B, N]
    target,  # [B] labels or [B, N] scores
    batch, classes, smoothing,
    SOFT: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """A program owns an image in a stage."""
    stage, image = tl.program_id(0) // batch, tl.program_id(0) % batch
    n = tl.arange(0, BLOCK)
    at = image.to(tl.int64) * classes + n
    logits = choose(stage, logits_1, logits_2, logits_3, logits_4)
    x = tl.load(logits + at, n < classes, -float('inf'))
    considered, t, count, log_sum = restricted_target(x, target, image, smoothing, classes, n, SOFT)
    factor = tl.load(grad + stage) * tl.load(factors + stage) * count
    g = factor * (tl.sum(t, 0) * tl.exp(x - log_sum) - t)
    grad_logits = choose(stage, grad_1, grad_2, grad_3, grad_4)
    tl.store(grad_logits + at, tl.where(considered, g, 0), n < classes)


class Plan:
    """The launches of the losses."""

    def __init__(self, stages: int, shape, soft: bool, smoothing: float, weights, processes: int):
        batch, classes = shape
        block = triton.next_power_of_2(classes)
        values = dict(
            batch=batch, classes=classes, SOFT=soft, BLOCK=block,
            # Whole numbers would be of another type.
            smoothing=float(smoothing), processes=float(processes),
        )  # fmt: skip
        values |= {f'weight_{i}': float(w) for i, w in enumerate(_four(weights), 1)}
        warps = warps_for_row(block)
        self.losses = Launch(sample_losses_kernel, stages * batch, values, warps)
        self.backward = Launch(losses_backward_kernel, stages * batch, values, warps)
        self.means = Launch(mean_losses_kernel, stages, values | dict(BLOCK=ADDED_AT_ONCE))


@lru_cache(maxsize=4096)
def _plan(device, target_type, stages, shape, soft, smoothing, weights, processes) -> Plan:
    return Plan(stages, shape, soft, smoothing, weights, processes)


class StageLosses(torch.autograd.Function):
    """Weighted mean loss of each stage, (S,), with the gradients of the logits."""

    @staticmethod
    def forward(ctx, target, options, *stage_logits):
        smoothing, weights, processes, all_reduce = options
        stage_logits, target = [aligned(logits) for logits in stage_logits], target.contiguous()
        logits, stages = stage_logits[0], len(stage_logits)
        batch, device = len(logits), logits.device
        plan = _plan(
            device, target.dtype, stages, logits.shape, target.ndim > 1, smoothing, weights,
            processes,
        )  # fmt: skip
        losses, counts = logits.new_empty(stages, batch), logits.new_empty(stages, batch)
        means, factors, numbers = logits.new_empty(stages), logits.new_empty(stages), None
        with on_device(device):
            stream = current_stream(device)
            plan.losses(stream, losses, counts, *_four(stage_logits), target)
            if processes > 1:
                numbers = counts.sum(1)
                all_reduce(numbers)
            plan.means(stream, means, factors, losses, counts, numbers)
        ctx.plan = plan
        ctx.save_for_backward(target, factors, *stage_logits)
        return means

    @staticmethod
    @once_differentiable
    def backward(ctx, grad):
        target, factors, *stage_logits = ctx.saved_tensors
        grads = [torch.empty_like(logits) for logits in stage_logits]
        device = target.device
        with on_device(device):
            ctx.plan.backward(
                current_stream(device), *_four(grads), aligned(grad), factors,
                *_four(stage_logits), target,
            )  # fmt: skip
        return None, None, *grads


def stage_losses(
    stage_logits: Sequence[Tensor],
    target: Tensor,
    weights: Sequence[float],
    smoothing: float,
    processes: int,
    all_reduce: Callable[[Tensor], object],
) -> list[Tensor]:
    """See `mmctx.ops.losses.stage_losses`."""
    options = smoothing, tuple(weights), processes, all_reduce
    return list(StageLosses.apply(target, options, *stage_logits).unbind())


def _four(items: Sequence) -> list:
    """Pointers and numbers of stages that do not exist are never used, so any will do."""
    return [*items, *[items[0]] * (MOST_STAGES - len(items))]
