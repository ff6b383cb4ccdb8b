"""What all stages need of the classes alone, whatever the images, by one kernel.

That is a direction of each class, its embedding at the learned length, and for each merging layer
a hidden vector, ReLU(LayerNorm(linear layer)) of its embedding. Sizes: N classes, embeddings of
length D, hidden vectors of length H.
"""

from collections.abc import Iterator, Sequence
from functools import lru_cache
from typing import Any, NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor

from .device_launch import aligned, launch_on_device, on_device
from .fixed_norm import normalized
from .launching import Launch, current_stream, types_of
from .products import multiply_onto
from .second_derivatives import once_differentiable
from .settings import PRECISE, STAGES, row_tile
from .step_gradient import row_gradients, step_gradients_launch
from .unit_vectors import lengths, unit_backward_launch

# Classes of a program, and values of an embedding that it multiplies at a time, fewer of them where
# its weights would be too many.
ROWS, INNER, WEIGHTS = 16, 64, 8192
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
    """

    weight: Tensor
    bias: Tensor
    scale: Tensor
    shift: Tensor


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
    STAGES: tl.constexpr,
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
        for start in tl.range(0, LENGTH, INNER, num_stages=STAGES):
            d = (start + tl.arange(0, INNER))[None, :]
            x = tl.load(row_at + d, (row < count) & (d < LENGTH), 0)
            # Neighbouring threads read neighbouring numbers, so the weight is turned afterwards.
            w = tl.load(weight + own * LENGTH + d, (own < HIDDEN) & (d < LENGTH), 0).to(x.dtype)
            total = tl.dot(x, tl.trans(w), total, input_precision=PRECISE)
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


@triton.jit(do_not_specialize=['count', 'tiles'], do_not_specialize_on_alignment=PARAMETERS)
def hidden_backward_kernel(
    rows,  # [3, N, M·H] gradients before the norms, and rows' parts of those of scale and shift
    grad_1, grad_2, grad_3,  # [N, H]
    raw_1, raw_2, raw_3,  # [N, H]
    scale_1, scale_2, scale_3, shift_1, shift_2, shift_3,  # [H]
    count, tiles, hidden, mergings,
    EPS: tl.constexpr, BLOCK: tl.constexpr, ROWS: tl.constexpr,
):  # fmt: skip
    """A program owns some classes in one of M merging layers."""
    part, tile = tl.program_id(0) // tiles, tl.program_id(0) % tiles
    channel = tl.arange(0, BLOCK)[None, :]
    exists = channel < hidden
    row = (tile * ROWS + tl.arange(0, ROWS))[:, None].to(tl.int64)
    at, valid = row * hidden + channel, (row < count) & exists
    x = tl.load(choose(part + 1, raw_1, raw_2, raw_3) + at, valid, 0)
    g = tl.load(choose(part + 1, grad_1, grad_2, grad_3) + at, valid, 0)
    scale = choose(part + 1, scale_1, scale_2, scale_3)
    shift = choose(part + 1, shift_1, shift_2, shift_3)
    g, of_scale, of_shift = row_gradients(x, g, scale, shift, None, None, channel, exists, hidden,
                                          EPS)  # fmt: skip
    to = rows + (row * mergings + part) * hidden + channel
    step = count.to(tl.int64) * mergings * hidden
    tl.store(to, g, valid)
    tl.store(to + step, of_scale, valid)
    tl.store(to + 2 * step, of_shift, valid)


class Plan:
    """The launches for class vectors, which are those of the backward pass, too, in training."""

    def __init__(self, shape, hidden: int, mergings: int, eps: float, normalize: bool):
        count, length = shape
        tiles = triton.cdiv(count, ROWS)
        block, hidden_block = (triton.next_power_of_2(n) for n in (length, hidden))
        values = dict(
            count=count, tiles=tiles, EPS=eps, LENGTH=length, HIDDEN=hidden, NORMALIZE=normalize,
            BLOCK=block, HIDDEN_BLOCK=max(hidden_block, 16), ROWS=ROWS,
            INNER=min(max(WEIGHTS // hidden_block, 16), INNER),
            STAGES=STAGES if hidden_block * 16 <= WEIGHTS else 1,
        )  # fmt: skip
        warps = 4 if max(block, hidden_block) <= 128 else 8
        self.forward = Launch(class_vectors_kernel, tiles * (1 + mergings), values, warps)
        self.directions_backward = unit_backward_launch(count, length)
        hidden_block, rows = row_tile(hidden)
        tiles = triton.cdiv(count, rows)
        values = dict(
            count=count, tiles=tiles, hidden=hidden, mergings=mergings, EPS=eps,
            BLOCK=hidden_block, ROWS=rows,
        )  # fmt: skip
        self.hidden_backward = Launch(hidden_backward_kernel, tiles * mergings, values)
        self.weights = step_gradients_launch(3, count, mergings * hidden, length, of_inputs=False)


@lru_cache(maxsize=4096)
def plan_of(device, types, training, shape, hidden, mergings, eps, normalize) -> Plan:
    """The plan for class vectors; the launches also depend on types and on what is wanted."""
    return Plan(shape, hidden, mergings, eps, normalize)


def class_vectors_forward(
    embeddings: Tensor,
    log_length: Tensor,
    steps: Sequence[ClassStep],
    eps: float,
    normalize: bool = False,
    training: bool = False,
) -> tuple[Tensor, list[Tensor], list[Tensor], Plan]:
    """Directions of the classes, and hidden vectors for merging layers, all in float32.

    Args:
        embeddings (Tensor): Class embeddings, (N, D).
        log_length (Tensor): Logarithm of the length of directions, one number.
        steps (Sequence[ClassStep]): Of each merging layer, one to three of equal H.
        eps (float): Epsilon of all norms.
        normalize (bool): Whether merging layers see embeddings scaled to length √D. Defaults to
            False.
        training (bool): Whether to return results before the norm too. Defaults to False.

    Returns:
        tuple: Directions, (N, D); hidden vectors for each layer, (N, H); in training the same
        before the norm; and the plan.
    """
    embeddings = aligned(embeddings)
    first = steps[0].weight
    count, hidden, device = len(embeddings), len(first), embeddings.device
    plan = plan_of(
        device, types_of(embeddings, log_length, *(t for step in steps for t in step)), training,
        embeddings.shape, hidden, len(steps), eps, normalize,
    )  # fmt: skip
    directions = embeddings.new_empty(embeddings.shape, dtype=torch.float32)
    vectors = [directions.new_empty(count, hidden) for _ in steps]
    raw = [directions.new_empty(count, hidden) for _ in steps] if training else []
    weights, biases, scales, shifts = zip(*steps, strict=True)
    launch_on_device(
        plan.forward, directions, *_three(vectors), *_three(raw or [None]), embeddings, log_length,
        *_three([aligned(weight) for weight in weights]), *_three(biases), *_three(scales),
        *_three(shifts),
    )  # fmt: skip
    return directions, vectors, raw, plan


class ClassVectorsOf(torch.autograd.Function):
    """`class_vectors_forward` with its gradients, for embeddings that are not normalized."""

    @staticmethod
    def forward(ctx, embeddings, log_length, eps, *parameters):
        ctx.set_materialize_grads(False)
        steps = [ClassStep(*step) for step in _in_fours(parameters)]
        directions, hidden, raw, ctx.plan = class_vectors_forward(
            embeddings, log_length, steps, eps, training=True
        )
        ctx.save_for_backward(embeddings, log_length, *parameters, *raw)
        return directions, *hidden

    @staticmethod
    @once_differentiable
    def backward(ctx, grad_directions, *grads):
        plan = ctx.plan
        embeddings, log_length, *saved = ctx.saved_tensors
        parameters, raw = saved[: -len(grads)], saved[-len(grads) :]
        needs_embeddings, needs_length, _, *needs = ctx.needs_input_grad
        total = grad_length = None
        found: list[Tensor | None] = [None] * len(needs)
        embeddings = aligned(embeddings)
        device, new = embeddings.device, embeddings.new_empty
        with on_device(device):
            stream = current_stream(device)
            if grad_directions is not None and (needs_embeddings or needs_length):
                total, parts = new(embeddings.shape), new(len(embeddings))
                plan.directions_backward(
                    stream, total, parts, aligned(grad_directions), embeddings, log_length
                )
                if needs_length:
                    grad_length = parts.sum().view(log_length.shape)
            if any(grad is not None for grad in grads) and (needs_embeddings or any(needs)):
                grads = [
                    torch.zeros_like(x) if grad is None else aligned(grad)
                    for grad, x in zip(grads, raw, strict=True)
                ]
                channels, length = len(grads) * raw[0].shape[1], embeddings.shape[1]
                rows, grad_weights = new(3, len(embeddings), channels), new(channels, length)
                plan.hidden_backward(
                    stream, rows, *_three(grads), *_three(raw), *_three(parameters[2::4]),
                    *_three(parameters[3::4]),
                )  # fmt: skip
                if any(needs):
                    sums = new(3, channels)
                    plan.weights(stream, grad_weights, sums, None, rows, embeddings, None, None)
                    found[0::4] = grad_weights.chunk(len(grads))
                    for i in range(3):
                        found[i + 1 :: 4] = sums[i].chunk(len(grads))
                if needs_embeddings:
                    total = multiply_onto(total, rows[0], torch.cat(parameters[0::4]))
        return total if needs_embeddings else None, grad_length, None, *found


def _in_fours(items: Sequence) -> Iterator[Sequence]:
    """Weight, bias, scale and shift of each step."""
    return (items[i : i + 4] for i in range(0, len(items), 4))


def _three(tensors: Sequence[Any]) -> list:
    """Pointers of layers that do not exist are never used, so any will do."""
    return [*tensors, *[tensors[0]] * (MOST_MERGINGS - len(tensors))]
