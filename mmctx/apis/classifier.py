"""Classifiers around contextual backbones."""

import torch
from mmpretrain.models import ImageClassifier
from mmpretrain.registry import MODELS
from torch import Tensor

from mmctx.errors import UserError


def build_classifier(backbone: dict) -> ImageClassifier:
    """Build mmpretrain's `ImageClassifier` around a contextual backbone.

    Args:
        backbone (dict): Config of the backbone, for example
            `dict(type='mmctx.ContextualConvNeXt', arch='tiny')`; its `out_type` is set here.

    Returns:
        ImageClassifier: Classifier with a contextual head, the stage-wise loss and ImageNet's
        normalisation.
    """
    return MODELS.build(
        dict(
            type='mmpretrain.ImageClassifier',
            _scope_='mmpretrain',
            backbone=dict(backbone, out_type='logits'),
            head=dict(type='mmctx.ContextualClsHead'),
            data_preprocessor=dict(
                mean=[123.675, 116.28, 103.53],
                std=[58.395, 57.12, 57.375],
                to_rgb=True,
                num_classes=backbone.get('num_classes', 1000),
            ),
        )
    )


def stage_logits(classifier: ImageClassifier, inputs: Tensor) -> tuple[Tensor, ...]:
    """Compute the logits of each stage.

    Args:
        classifier (ImageClassifier): Classifier made by `build_classifier`, or by a config like it.
        inputs (Tensor): Normalised images, (B, 3, H, W).

    Returns:
        tuple[Tensor, ...]: Logits of the four stages, already divided by τ, each (B, N₁) in class
        order; −inf for classes that are no longer considered.

    Raises:
        UserError: The classifier's backbone does not return logits.
    """
    if getattr(classifier.backbone, 'out_type', None) != 'logits':
        raise UserError("stage_logits needs a contextual backbone with out_type='logits'")
    logits: tuple[torch.Tensor, ...] = classifier.extract_feat(inputs)
    return logits
