"""What all stages need of the classes alone, whatever the images, by one kernel.

That is a direction of each class, its embedding at the learned length, and for each merging layer
a hidden vector, ReLU(LayerNorm(linear layer)) of its embedding. Sizes: N classes, embeddings of
length D, hidden vectors of length H.
"""

from collections.abc import Iterator, Sequence
from functools import lru_cache
from typing import NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor
from torch.autograd.function import once_differentiable

from .device_launch import aligned, launch_on_device
from .fixed_norm import Norm, normalized
from .launching import Launch
from .products import multiply_onto
from .step_gradient import norm_backward, step_weights
from .unit_vectors import lengths, unit_vectors_backward

# Classes of a program, and values of an embedding that it multiplies at a time.
ROWS, INNER = 16, 64
# Merging layers that one launch serves: those of a network of four stages.
MOST_MERGINGS = 3
# Longest vectors that a program holds for all of its classes at once.
MOST_LENGTH = 1024
PARAMETERS = [f'{name}_{i}' for name in ('bias', 'scale', 'shift') for i in (1, 2, 3)]
VECTORS = ['log_length', *PARAMETERS]


class ClassStep(NamedTuple):
    """Linear layer and LayerNorm that make a merging layer's hidden vectors.

    Attributes:
        weight (Tensor): (H, D).
        bias, scale, shift (Tensor): (H,).
        eps (float): Epsilon of the norm.
    """

    weight: Tensor
    bias: Tensor
    scale: Tensor
    shift: Tensor
    eps: float


@triton.jit
def choose(part, first, second, third):
    """One of three pointers, by a number that counts from 1."""
    return tl.where(part == 1, first, tl.where(part == 2, second, third))


@triton.jit(do_not_specialize=['count', 'tiles'], do_not_specialize_on_alignment=VECTORS)
def class_vectors_kernel(
    directions,  # [N, D]
    hidden_1, hidden_2, hidden_3,  # [N, H]
    raw_1, raw_2, raw_3,  # [N, H] results before the norm, or None
    embeddings,  # [N, D]
    log_length,  # one number
    weight_1, weight_2, weight_3,  # [H, D]
    bias_1, bias_2, bias_3, scale_1, scale_2, scale_3, shift_1, shift_2, shift_3,  # [H]
    count, tiles,
    EPS: tl.constexpr, LENGTH: tl.constexpr, HIDDEN: tl.constexpr, NORMALIZE: tl.constexpr,
    BLOCK: tl.constexpr, HIDDEN_BLOCK: tl.constexpr, ROWS: tl.constexpr, INNER: tl.constexpr,
):  # fmt: skip
    """A program owns the directions, or one layer's hidden vectors, of some classes."""
    part, tile = tl.program_id(0) // tiles, tl.program_id(0) % tiles
    row = (tile * ROWS + tl.arange(0, ROWS))[:, None]
    row_at = embeddings + row.to(tl.int64) * LENGTH
    if part == 0:
        all_d = tl.arange(0, BLOCK)[None, :]
        there = (row < count) & (all_d < LENGTH)
        vector = tl.load(row_at + all_d, there, 0).to(tl.float32)
        vector = vector / lengths(vector) * tl.exp(tl.load(log_length).to(tl.float32))
        tl.store(directions + row.to(tl.int64) * LENGTH + all_d, vector, there)
    else:
        weight = choose(part, weight_1, weight_2, weight_3)
        channel = tl.arange(0, HIDDEN_BLOCK)[None, :]
        exists = channel < HIDDEN
        own = tl.arange(0, HIDDEN_BLOCK)[:, None]
        total = tl.zeros([ROWS, HIDDEN_BLOCK], tl.float32)
        squares = tl.zeros([ROWS, INNER], tl.float32)
        for start in range(0, LENGTH, INNER):
            d = (start + tl.arange(0, INNER))[None, :]
            x = tl.load(row_at + d, (row < count) & (d < LENGTH), 0)
            # Neighbouring threads read neighbouring numbers, so the weight is turned afterwards.
            w = tl.load(weight + own * LENGTH + d, (own < HIDDEN) & (d < LENGTH), 0).to(x.dtype)
            total = tl.dot(x, tl.trans(w), total, input_precision='ieee')
            if NORMALIZE:
                squares += x.to(tl.float32) * x.to(tl.float32)
        if NORMALIZE:
            length = tl.maximum(tl.sqrt(tl.sum(squares, 1, keep_dims=True)), 1e-12)
            total *= tl.sqrt(LENGTH + 0.0) / length
        bias = choose(part, bias_1, bias_2, bias_3)
        total += tl.load(bias + channel, exists, 0).to(tl.float32)
        at, valid = row.to(tl.int64) * HIDDEN + channel, (row < count) & exists
        if raw_1 is not None:
            tl.store(choose(part, raw_1, raw_2, raw_3) + at, total, valid)
        scale = choose(part, scale_1, scale_2, scale_3)
        shift = choose(part, shift_1, shift_2, shift_3)
        y = normalized(total, scale, shift, None, None, channel, exists, EPS, HIDDEN)
        tl.store(choose(part, hidden_1, hidden_2, hidden_3) + at, y, valid)


def class_vectors_forward(
    embeddings: Tensor,
    log_length: Tensor,
    steps: Sequence[ClassStep],
    normalize: bool,
    keep_raw: bool = False,
) -> tuple[Tensor, list[Tensor], list[Tensor] | None]:
    """Directions of the classes, and hidden vectors for merging layers, all in float32.

    Args:
        embeddings (Tensor): Class embeddings, (N, D).
        log_length (Tensor): Logarithm of the length of directions, one number.
        steps (Sequence[ClassStep]): Of each merging layer, one to three of equal H and epsilon.
        normalize (bool): Whether merging layers see embeddings scaled to length √D.
        keep_raw (bool): Whether to return the results before the norm too. Defaults to False.

    Returns:
        tuple: Directions, (N, D); hidden vectors for each layer, (N, H); and, if wanted, the same
        before the norm.
    """
    embeddings = aligned(embeddings)
    count, hidden = len(embeddings), len(steps[0].weight)
    launch = _launch(
        embeddings.device, embeddings.shape, hidden, len(steps), steps[0].eps, normalize, keep_raw,
        (embeddings.dtype, log_length.dtype, steps[0].weight.dtype),
    )  # fmt: skip
    options = dict(dtype=torch.float32, device=embeddings.device)
    directions = torch.empty(embeddings.shape, **options)
    vectors = [torch.empty(count, hidden, **options) for _ in steps]
    raw = [torch.empty(count, hidden, **options) for _ in steps] if keep_raw else None
    launch_on_device(
        launch, directions, *_three(vectors), *_three(raw or [None]), embeddings, log_length,
        *_three([aligned(step.weight) for step in steps]),
        *_three([step.bias for step in steps]),
        *_three([step.scale for step in steps]),
        *_three([step.shift for step in steps]),
    )  # fmt: skip
    return directions, vectors, raw


class ClassVectorsOf(torch.autograd.Function):
    """`class_vectors_forward` with its gradients, for embeddings of any length."""

    @staticmethod
    def forward(ctx, embeddings, log_length, eps, *parameters):
        ctx.set_materialize_grads(False)
        steps = [ClassStep(*step, eps) for step in _in_fours(parameters)]
        directions, hidden, raw = class_vectors_forward(embeddings, log_length, steps, False, True)
        ctx.save_for_backward(embeddings, log_length, *parameters, *raw)
        ctx.eps = eps
        return directions, *hidden

    @staticmethod
    @once_differentiable
    def backward(ctx, grad_directions, *grads):
        embeddings, log_length, *saved = ctx.saved_tensors
        raw = saved[-len(grads) :]
        needs_embeddings, needs_length, _, *needs = ctx.needs_input_grad
        grad_embeddings = grad_length = None
        if grad_directions is not None and (needs_embeddings or needs_length):
            grad_embeddings, grad_length = unit_vectors_backward(
                grad_directions, embeddings, log_length
            )
        found = []
        for grad, before, (weight, _, scale, shift), needed in zip(
            grads, raw, _in_fours(saved[: -len(grads)]), _in_fours(needs), strict=True
        ):
            if grad is None or not (needs_embeddings or any(needed)):
                found += [None] * 4
                continue
            rows = norm_backward(grad, before, None, Norm(scale, shift, None, None, ctx.eps))
            if any(needed):
                grad_weight, sums = step_weights(rows, embeddings)
                found += [grad_weight, *sums.unbind()]
            else:
                found += [None] * 4
            if needs_embeddings:
                grad_embeddings = multiply_onto(grad_embeddings, rows[0], weight)
        return grad_embeddings, grad_length, None, *found


def _in_fours(items: Sequence) -> Iterator[Sequence]:
    """Weight, bias, scale and shift of each step."""
    return (items[i : i + 4] for i in range(0, len(items), 4))


def _three(tensors: list) -> list:
    """Pointers of layers that do not exist are never used, so any will do."""
    return tensors + tensors[:1] * (MOST_MERGINGS - len(tensors))


@lru_cache(maxsize=4096)
def _launch(device, shape, hidden, mergings, eps, normalize, keep_raw, types) -> Launch:
    count, length = shape
    tiles = triton.cdiv(count, ROWS)
    values = dict(
        count=count, tiles=tiles, EPS=eps, LENGTH=length, HIDDEN=hidden, NORMALIZE=normalize,
        BLOCK=triton.next_power_of_2(length), HIDDEN_BLOCK=max(triton.next_power_of_2(hidden), 16),
        ROWS=ROWS, INNER=INNER,
    )  # fmt: skip
    warps = 4 if max(length, hidden) <= 256 else 8
    return Launch(class_vectors_kernel, tiles * (1 + mergings), values, warps)
