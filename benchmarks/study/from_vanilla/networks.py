"""Networks of the rows, and where they start from."""

import math
from pathlib import Path

import torch
import torch.nn as nn
from mmengine.optim import build_optim_wrapper
from mmengine.registry import init_default_scope
from mmpretrain.registry import MODELS
from torch import Tensor

from mmctx.engine.optimizers.context_groups import kind_of
from mmctx.engine.optimizers.layer_decay import WITHOUT_DECAY
from mmctx.models.layers.contextualizing import usually_considered

from . import controls  # noqa: F401 - registers backbones
from .rows import RATES, RESNET, Row

SMOOTHING = 0.1
DECAY = 0.05
# Blocks of the stages of the ConvNeXt; ConvNeXt-T has 3, 3, 9, 3.
DEPTHS = (2, 2, 6, 2)


def build_network(row: Row, classes: int, width: int, embed_dims: int) -> nn.Module:
    """Build a row's network, initialized at random.

    Args:
        row (Row): The row.
        classes (int): N₁.
        width (int): Base channels; ResNet50 has 64.
        embed_dims (int): Width of the class embeddings.

    Returns:
        nn.Module: mmpretrain's classifier.
    """
    init_default_scope('mmpretrain')
    backbone, channels = _vanilla_backbone(row.family, width)
    if row.backbone is not None:
        backbone.update(
            type=f'mmctx.Contextual{backbone["type"]}',
            num_classes=classes,
            considered=considered(classes, row.fewer),
            embed_dims=embed_dims,
            out_type='logits' if row.classifies_by_embeddings else 'featmap',
        )
        backbone.update(row.backbone)
    if row.classifies_by_embeddings:
        loss = dict(type='mmctx.StagewiseCrossEntropy', label_smoothing=SMOOTHING, **row.loss)
        model = dict(head=dict(type='mmctx.ContextualClsHead', loss=loss))
    else:
        loss = dict(type='LabelSmoothLoss', label_smooth_val=SMOOTHING, mode='original')
        head = dict(type='LinearClsHead', num_classes=classes, in_channels=channels, loss=loss)
        neck = dict(type='GlobalAveragePooling') if row.family == RESNET else None
        model = dict(neck=neck, head=head)
    network = MODELS.build(dict(type='ImageClassifier', backbone=backbone, **model))
    network.init_weights()
    return network


def _vanilla_backbone(family: str, width: int) -> tuple[dict, int]:
    """Settings of a backbone of stride 16 for small images, and the channels that it ends with."""
    if family == RESNET:
        resnet = dict(depth=50, strides=(2, 2, 2, 2), stem_channels=width, base_channels=width)
        return dict(type='ResNet_CIFAR', **resnet), 32 * width
    # 96 where a ResNet50 has 64, as ConvNeXt-T.
    channels = [3 * width // 2 * ratio for ratio in (1, 2, 4, 8)]
    arch = dict(depths=list(DEPTHS), channels=channels)
    return dict(type='ConvNeXt', arch=arch, stem_patch_size=2), channels[-1]


def considered(classes: int, fewer: int = 1) -> list[int]:
    """N₂, N₃, N₄ of N₁ classes in the paper's proportions, divided by `fewer`."""
    return [max(kept // fewer, 1) for kept in usually_considered(classes)]


def forward(network: nn.Module, images: Tensor) -> tuple[Tensor, ...]:
    """Logits of the stages that classify, (B, N₁) each; a vanilla network has one such stage."""
    features = network.extract_feat(images)
    return (network.head(features),) if hasattr(network.head, 'fc') else features


def loss_of(network: nn.Module, logits: tuple[Tensor, ...], target: Tensor) -> Tensor:
    """The head's loss of logits and one-hot labels (B, N₁)."""
    if hasattr(network.head, 'fc'):
        return network.head.loss_module(logits[0], target)
    return sum(network.head.loss_module(logits, target))


def load_weights(file: Path) -> dict[str, Tensor]:
    """State of a vanilla network that a `Session` kept in half precision, in float32."""
    state = torch.load(file, map_location='cpu', weights_only=True)
    return {k: v.float() if v.is_floating_point() else v for k, v in state.items()}


def start_from(network: nn.Module, row: Row, vanilla: dict[str, Tensor]) -> None:
    """Load a trained vanilla network's weights into a row's network.

    Args:
        network (nn.Module): Changed in place.
        row (Row): Its row.
        vanilla (dict[str, Tensor]): State of the vanilla network.
    """
    missing, unexpected = network.load_state_dict(dict(vanilla), strict=False)
    lost = [name for name in missing if kind_of(name) == 'vanilla']
    # Without its classifier a ConvNeXt has no last norm either.
    if lost or any(not name.startswith(('head.', 'backbone.norm3.')) for name in unexpected):
        raise RuntimeError(f'weights do not fit {row.key}: {lost} missing, {unexpected} unexpected')
    if row.from_classifier:
        embeddings = network.backbone.contextualizing.embeddings.weight
        embeddings.data.copy_(embeddings_from(vanilla['head.fc.weight'], embeddings))


def embeddings_from(weights: Tensor, embeddings: Tensor) -> Tensor:
    """Class embeddings (N₁, d) of a linear classifier's weights (N₁, C): same angles, if N₁ ≤ d.

    Args:
        weights (Tensor): Of the classifier.
        embeddings (Tensor): Of which the result has the shape and the length on average.

    Returns:
        Tensor: The principal components of the weights.
    """
    left, sizes, _ = torch.linalg.svd(weights.double(), full_matrices=False)
    found = torch.zeros_like(embeddings, dtype=torch.float64, device=weights.device)
    count = min(len(sizes), embeddings.shape[1])
    found[:, :count] = (left * sizes)[:, :count]
    # Spread over all dimensions, as those of random embeddings are.
    generator = torch.Generator().manual_seed(0)
    mixing = torch.randn(embeddings.shape[1], embeddings.shape[1], generator=generator)
    found = found @ torch.linalg.qr(mixing.double())[0].to(found.device)
    length = 0.02 * math.sqrt(embeddings.shape[1])
    return (found * (length / found.norm(dim=1).mean())).to(embeddings.dtype)


def build_optimizer(
    network: nn.Module, lr: float, rates: dict[str, float] | None
) -> torch.optim.Optimizer:
    """AdamW with the groups of the shipped configs.

    Args:
        network (nn.Module): On its device.
        lr (float): Learning rate.
        rates (dict[str, float], optional): Factors on kinds of parameters, over `RATES`; None, the
            same rate for all, from scratch.

    Returns:
        torch.optim.Optimizer: Fused on a GPU, where a CUDA graph can take it in.
    """
    on_gpu = next(network.parameters()).is_cuda
    wrapper = build_optim_wrapper(
        network,
        dict(
            optimizer=dict(
                type='AdamW', lr=lr, weight_decay=DECAY, fused=on_gpu, capturable=on_gpu
            ),
            constructor='mmctx.ContextualOptimWrapperConstructor',
            paramwise_cfg=dict(
                norm_decay_mult=0.0,
                bias_decay_mult=0.0,
                flat_decay_mult=0.0,
                custom_keys=WITHOUT_DECAY,
                **({} if rates is None else {**RATES, **rates}),
            ),
        ),
    )
    return wrapper.optimizer
