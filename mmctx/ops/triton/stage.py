"""A stage of contextualizing as one step of autograd.

Recording its layers one by one would take the host longer than the GPU takes to run them.

Sizes: maps (B, C, height, width), H hidden channels in classifying, N classes of which K are kept,
embeddings of length D, hidden vectors of length M in merging, priors of length P.
"""

from functools import lru_cache
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from .batch_norm import BatchNormVectors
from .cosine_gradient import logits_backward_launch, rows_product_launch
from .device_launch import aligned, on_device
from .keeping import keep_launch
from .launching import current_stream, types_of
from .normed_product import normed_product_launch
from .pixel_mean import PixelMean
from .prior import prior_launch
from .products import multiply
from .second_derivatives import once_differentiable
from .step_gradient import StepGradients, step_gradients_launch

LAYER_NORM, FIXED_NORM, BATCH_NORM = range(3)


class Sizes(NamedTuple):
    """Sizes of a stage.

    Attributes:
        map (torch.Size): Shape of the map, (B, C, height, width).
        first, last (torch.Size): Shapes of the weights in classifying, (H, C) and (D, H).
        classes (int): N.
        keep (int, optional): K; None in the last stage.
        joint (torch.Size, optional): Shape of the weight in merging, (P, M); None in the last one.
    """

    map: torch.Size
    first: torch.Size
    last: torch.Size
    classes: int
    keep: int | None
    joint: torch.Size | None


class Plan:
    """The launches of a stage, which are those of its backward pass, too, in training.

    `types` are those of the map, of the running mean of the norm in classifying, and of the
    parameters.
    """

    def __init__(
        self, sizes: Sizes, types: tuple, norm: tuple, joint_eps: float | None, training: bool
    ):
        (batch, channels, height, width), (hidden, _), (length, _), classes, keep, joint = sizes
        self.kind, eps, momentum = norm
        self.mean = PixelMean(sizes.map, types[0], types[2])
        self.batch_norm = None
        if self.kind == BATCH_NORM:
            self.batch_norm = BatchNormVectors((batch, hidden), eps, momentum)
        else:
            self.norm = normed_product_launch(batch, hidden, length, eps)
        self.keep = keep_launch(batch, classes, length, keep)
        if joint is not None:
            prior, merged = joint
            self.prior = prior_launch(batch, keep or 0, merged, prior, joint_eps or 0.0)
        if not training:
            return
        self.logits_backward = logits_backward_launch(batch, classes, length)
        self.images_backward = rows_product_launch(batch, length, hidden)
        self.last_weights = step_gradients_launch(1, batch, length, hidden, of_inputs=False)
        self.first_backward = StepGradients(
            self.batch_norm, batch, hidden, channels, eps, factor=1 / (height * width)
        )
        if joint is not None:
            self.joint_backward = StepGradients(None, batch, prior, merged, joint_eps or 0.0)


@lru_cache(maxsize=4096)
def plan_of(device, types, follows, sizes, norm, joint_eps, training) -> Plan:
    """The plan of a stage; its launches also depend on types and on dropped classes before it."""
    return Plan(Sizes(*sizes), types, norm, joint_eps, training)


def conclude(
    x: Tensor,
    directions: Tensor,
    hidden: Tensor | None,
    before: Tensor | None,
    keep: int | None,
    norm: Any,
    joint_eps: float | None,
    parameters: tuple[Tensor, ...],
    training: bool,
) -> tuple:
    """What a stage concludes.

    Args:
        x, directions, hidden, before, keep: See `mmctx.ops.contextualizing.run_stage`.
        norm (nn.Module): Norm in classifying.
        joint_eps (float, optional): Epsilon of the norm in merging; None in the last stage.
        parameters (tuple[Tensor, ...]): Weight and bias of the first layer in classifying, scale
            and shift of its norm, weight and bias of the last layer; in every stage but the last
            also weight and bias of the layer in merging, scale and shift of its norm.
        training (bool): Whether to return what gradients need as well.

    Returns:
        tuple: Logits, kept classes and prior; the plan; and what gradients need, of which much is
        None in inference.
    """
    weight, bias, scale, shift, last_weight, last_bias, *joint = parameters
    last_weight, device, batch = aligned(last_weight), x.device, len(x)
    if isinstance(norm, nn.LayerNorm):
        kind, mean, variance = (LAYER_NORM, norm.eps, None), None, None
    else:
        mean, variance = norm.running_mean, norm.running_var
        kind = (BATCH_NORM if norm.training else FIXED_NORM, norm.eps, norm.momentum)
    plan = plan_of(
        device, types_of(x, mean, *parameters), before is not None,
        (x.shape, weight.shape, last_weight.shape, len(directions), keep,
         joint[0].shape if joint else None),
        kind, joint_eps, training,
    )  # fmt: skip
    empty = directions.new_empty
    inner = statistics = mask = prior = share = merged = raw = None
    with on_device(device):
        stream = current_stream(device)
        pooled = plan.mean(stream, x)
        vectors = multiply(pooled, weight.t())
        images = empty(batch, len(last_weight))
        if plan.kind == BATCH_NORM:
            running = mean, variance, norm.num_batches_tracked
            inner, statistics = plan.batch_norm(stream, vectors, bias, scale, shift, running)
            torch.addmm(last_bias, inner, last_weight.t(), out=images)
        else:
            if training:
                inner = torch.empty_like(vectors)
            plan.norm(
                stream, images, inner, vectors, bias, scale, shift, mean, variance, last_weight,
                last_bias,
            )  # fmt: skip
        logits, top = multiply(images, directions.t()), None
        if keep is not None:
            mask = empty(logits.shape, dtype=torch.bool)
            top = empty((batch, keep), dtype=torch.int32)
            if training:
                share = torch.empty_like(logits)
        if before is not None:
            before = aligned(before)
        plan.keep(stream, logits, mask, top, share, logits, images, before)
        if joint:
            joint_weight, joint_bias, joint_scale, joint_shift = joint
            length, width = joint_weight.shape
            prior, raw = joint_weight.new_empty(batch, length), empty(batch, length)
            if training:
                merged = empty(batch, width)
            plan.prior(
                stream, prior, raw, merged, aligned(hidden), top, aligned(joint_weight),
                joint_bias, joint_scale, joint_shift,
            )  # fmt: skip
    if kind[0] == BATCH_NORM:
        # Not needed, and changed in place by the next batch.
        mean = variance = None
    saved = pooled, vectors, statistics, mean, variance, inner, images, logits, share, merged, raw
    return (logits, mask, prior), plan, saved


def parameters_of(
    classifying: nn.Sequential, joint: nn.Sequential | None
) -> tuple[nn.Module, float | None, tuple[Tensor, ...]]:
    """Norm, epsilon in merging and parameters of a stage, as `conclude` takes them."""
    fc, norm, _, last = classifying
    parameters = fc.weight, fc.bias, norm.weight, norm.bias, last.weight, last.bias
    if joint is None:
        return norm, None, parameters
    fc, joint_norm, _ = joint
    merging = fc.weight, fc.bias, joint_norm.weight, joint_norm.bias
    return norm, joint_norm.eps, parameters + merging


class Stage(torch.autograd.Function):
    """`conclude` with its gradients."""

    @staticmethod
    def forward(ctx, before, options, x, directions, hidden, *parameters):
        ctx.set_materialize_grads(False)
        found, plan, saved = conclude(
            x, directions, hidden, before, *options, parameters, training=True
        )
        if found[1] is not None:
            ctx.mark_non_differentiable(found[1])
        ctx.save_for_backward(directions, *saved, *parameters)
        ctx.plan, ctx.of_map = plan, (x.shape, x.dtype)
        return found

    @staticmethod
    @once_differentiable
    def backward(ctx, grad_logits, _, grad_prior):
        plan, saved = ctx.plan, ctx.saved_tensors
        device = saved[0].device
        needs = ctx.needs_input_grad
        found: list[Any] = [None] * len(needs)
        with on_device(device):
            stream = current_stream(device)
            if grad_prior is not None:
                share, merged, raw = saved[9:12]
                merging_backward(plan, stream, grad_prior, share, merged, raw, saved[18:], needs,
                                 found)  # fmt: skip
            if grad_logits is not None and (any(needs[2:4]) or any(needs[5:11])):
                classifying_backward(plan, stream, grad_logits, saved[:9], saved[12:18], needs,
                                     ctx.of_map, found)  # fmt: skip
        return tuple(found)


def merging_backward(plan, stream, grad, share, merged, raw, joint, needs, found) -> None:
    """Find the gradients of hidden vectors and the parameters in merging, of the prior's.

    Those of frozen parameters as well, as one kernel makes them all.
    """
    weight, _, scale, shift = joint
    grad_merged = torch.empty_like(merged)
    found[11], sums = plan.joint_backward(
        stream, aligned(grad), grad_merged, raw, merged, weight, None, (scale, shift, None, None)
    )
    found[12:] = sums.unbind()
    if needs[4]:
        found[4] = multiply(share.t(), grad_merged)


def classifying_backward(plan, stream, grad, saved, parameters, needs, of_map, found) -> None:
    """Find the gradients of map, directions and parameters in classifying, of the logits'.

    Those of the first layer as well if it is frozen, as one kernel makes them with the map's.
    """
    directions, pooled, vectors, statistics, mean, variance, inner, images, logits = saved
    weight, bias, scale, shift, last_weight, _ = parameters
    grad_products, along = torch.empty_like(logits), logits.new_empty(len(logits))
    plan.logits_backward(stream, grad_products, along, aligned(grad), logits, images)
    if needs[3]:
        found[3] = multiply(grad_products.t(), images)
    if not (needs[2] or any(needs[5:11])):
        return
    grad_images, grad_inner = torch.empty_like(images), torch.empty_like(inner)
    plan.images_backward(
        stream, grad_inner, grad_images, multiply(grad_products, directions), along, images,
        aligned(last_weight),
    )  # fmt: skip
    if any(needs[9:11]):
        found[9], found[10] = grad.new_empty(last_weight.shape), grad.new_empty(len(last_weight))
        plan.last_weights(stream, found[9], found[10], None, grad_images, inner, None, None)
    shape, dtype = of_map
    grad_map = pooled.new_empty((*shape[:2], 1, 1), dtype=dtype)
    found[5], sums = plan.first_backward(
        stream, grad_inner, grad_map, vectors, pooled, weight, bias, (scale, shift, mean, variance),
        statistics,
    )  # fmt: skip
    found[6:9] = sums.unbind()
    found[2] = grad_map.expand(shape)


def run_stage(
    x: Tensor,
    directions: Tensor,
    hidden: Tensor | None,
    before: Tensor | None,
    keep: int | None,
    classifying: nn.Sequential,
    joint: nn.Sequential | None,
) -> tuple[Tensor, Tensor | None, Tensor | None]:
    """See `mmctx.ops.contextualizing.run_stage`."""
    norm, joint_eps, parameters = parameters_of(classifying, joint)
    if torch.is_grad_enabled():
        return Stage.apply(before, (keep, norm, joint_eps), x, directions, hidden, *parameters)
    return conclude(
        x, directions, hidden, before, keep, norm, joint_eps, parameters, training=False
    )[0]
