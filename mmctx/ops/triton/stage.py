"""A stage of contextualizing as one step, as recording it layer by layer takes longer than the GPU.

Sizes: maps (B, C, height, width), N classes, embeddings of length D, priors of length P.
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from .batch_norm import batch_norm_relu, batch_norm_relu_backward
from .cosine_gradient import embedding_backward, logits_backward
from .fixed_norm import Norm
from .keeping import keep_classes
from .normed_product import normed_product
from .prior import merge
from .products import multiply, multiply_add, multiply_scaled
from .step_gradient import norm_backward, step_weights


def infer_stage(
    x: Tensor,
    directions: Tensor,
    hidden: Tensor | None,
    before: Tensor | None,
    count: int | None,
    classifying: nn.Sequential,
    joint: nn.Sequential | None,
) -> tuple[Tensor, Tensor | None, Tensor | None]:
    """See `mmctx.ops.contextualizing.run_stage`, without gradients."""
    fc, norm, _, last = classifying
    weight = fc.weight
    vectors = multiply(x.mean((2, 3), dtype=weight.dtype), weight.t())
    images, _ = normed_product(vectors, fc.bias, Norm.of(norm), last.weight, last.bias)
    logits, kept = keep_classes(multiply(images, directions.t()), images, before, count)
    if kept is None or joint is None:
        return logits, None, None
    fc, norm, _ = joint
    prior, *_ = merge(hidden, kept.top, fc.weight, fc.bias, norm.weight, norm.bias, norm.eps)
    return logits, kept.mask, prior


def train_stage(
    x: Tensor,
    directions: Tensor,
    hidden: Tensor | None,
    before: Tensor | None,
    count: int | None,
    classifying: nn.Sequential,
    joint: nn.Sequential | None,
) -> tuple[Tensor, Tensor | None, Tensor | None]:
    """See `mmctx.ops.contextualizing.run_stage`, with gradients."""
    fc, norm, _, last = classifying
    parameters = [fc.weight, fc.bias, norm.weight, norm.bias, last.weight, last.bias]
    eps = None
    if joint is not None:
        fc, joint_norm, _ = joint
        parameters += [fc.weight, fc.bias, joint_norm.weight, joint_norm.bias]
        eps = joint_norm.eps
    return Stage.apply(before, (norm, count, eps), x, directions, hidden, *parameters)


class Stage(torch.autograd.Function):
    """Logits, kept classes and prior of a stage in training, with their gradients."""

    @staticmethod
    def forward(ctx, before, options, x, directions, hidden, *parameters):
        norm, count, eps = options
        weight, bias, scale, shift, last_weight, last_bias, *joint = parameters
        ctx.set_materialize_grads(False)
        pooled = x.mean((2, 3), dtype=torch.float32)
        vectors = multiply(pooled, weight.t())
        statistics = mean = variance = None
        if trains_batch_norm(norm):
            inner, statistics = batch_norm_relu(vectors, bias, norm)
            images = multiply_add(last_bias, inner, last_weight.t())
        else:
            fixed = Norm.of(norm)
            _, _, mean, variance, _ = fixed
            images, inner = normed_product(vectors, bias, fixed, last_weight, last_bias, True)
        products = multiply(images, directions.t())
        logits, kept = keep_classes(products, images, before, count, with_share=True)
        mask = prior = raw = merged = share = None
        if kept is not None:
            mask, top, share = kept
            prior, raw, merged = merge(hidden, top, *joint, eps, keep_merged=True)
            ctx.mark_non_differentiable(mask)
        ctx.save_for_backward(
            directions, pooled, vectors, statistics, mean, variance, inner, images, logits, share,
            merged, raw, *parameters,
        )  # fmt: skip
        ctx.of_map, ctx.eps = (x.shape, x.dtype), (norm.eps, eps)
        return logits, mask, prior

    @staticmethod
    @once_differentiable
    def backward(ctx, grad_logits, _, grad_prior):
        (
            directions, pooled, vectors, statistics, mean, variance, inner, images, logits, share,
            merged, raw, *parameters,
        ) = ctx.saved_tensors  # fmt: skip
        weight, bias, scale, shift, last_weight, _, *joint = parameters
        needs_x, needs_directions, needs_hidden, *needs = ctx.needs_input_grad[2:]
        found: list[Any] = [None] * (5 + len(parameters))
        if grad_prior is not None:
            joint_weight, _, *joint_norm = joint
            rows = norm_backward(grad_prior, raw, None, Norm(*joint_norm, None, None, ctx.eps[1]))
            if needs_hidden:
                found[4] = multiply(share.t(), multiply(rows[0], joint_weight))
            if any(needs[6:]):
                found[11:] = step_gradients(rows, merged)
        if grad_logits is None or not (needs_x or needs_directions or any(needs[:6])):
            return tuple(found)
        grad_products, along = logits_backward(grad_logits, logits, images)
        if needs_directions:
            found[3] = multiply(grad_products.t(), images)
        if not (needs_x or any(needs[:6])):
            return tuple(found)
        grad_images, grad_inner = embedding_backward(
            multiply(grad_products, directions), along, images, last_weight
        )
        if any(needs[4:6]):
            found[9], sums = step_weights(grad_images[None], inner)
            found[10] = sums[0]
        if statistics is not None:
            grad_vectors, sums = batch_norm_relu_backward(
                grad_inner, vectors, statistics, scale, shift
            )
            if needs[0]:
                found[5] = multiply(grad_vectors.t(), pooled)
            found[6:9] = sums.unbind()
        else:
            norm = Norm(scale, shift, mean, variance, ctx.eps[0])
            rows = norm_backward(grad_inner, vectors, bias, norm)
            grad_vectors = rows[0]
            if any(needs[:4]):
                found[5:9] = step_gradients(rows, pooled)
        if needs_x:
            shape, dtype = ctx.of_map
            pixels = shape[2] * shape[3]
            grad = multiply_scaled(grad_vectors, weight, 1 / pixels).to(dtype)
            found[2] = grad[:, :, None, None].expand(shape)
        return tuple(found)


def step_gradients(rows: Tensor, inputs: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Gradients of weight and bias of a linear layer, and of scale and shift of the norm.

    Args:
        rows (Tensor): See `norm_backward`, (3, N, C).
        inputs (Tensor): Input of the linear layer, (N, K).
    """
    grad_weight, sums = step_weights(rows, inputs)
    return grad_weight, *sums.unbind()


def trains_batch_norm(norm: nn.Module) -> bool:
    """Whether a norm is a batch norm that takes statistics of what it is given."""
    return not isinstance(norm, nn.LayerNorm) and norm.training
