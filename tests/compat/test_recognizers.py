"""mmaction2's recognizers of frames take every contextual backbone."""

import pytest
import torch
from mmaction.registry import MODELS
from mmengine.registry import DefaultScope

SMALL = dict(num_classes=16, embed_dims=8)
RESNET = dict(depth=18, base_channels=4, stem_channels=4, norm='LN', **SMALL)
CONVNEXT = dict(arch=dict(depths=[1] * 4, channels=[8, 8, 16, 32]), **SMALL)


@pytest.mark.parametrize(
    'backbone',
    [
        dict(type='mmctx.ContextualResNet', **RESNET),
        dict(type='mmctx.ContextualResNetTSM', num_segments=2, **RESNET),
        dict(type='mmctx.ContextualConvNeXt', gap_before_final_norm=False, **CONVNEXT),
    ],
    ids=lambda backbone: backbone['type'],
)
def test_tsn_scores_the_clips_of_a_contextual_backbone(backbone):
    head = dict(type='TSNHead', num_classes=3, in_channels=32, average_clips=None)
    with DefaultScope.overwrite_default_scope('mmaction'):
        config = dict(type='Recognizer2D', backbone=backbone, cls_head=head)
        recognizer = MODELS.build(config).eval()
    frames = torch.randn(2, 2, 3, 32, 32)
    scores = recognizer(frames, stage='head')
    maps = recognizer.backbone(frames.flatten(0, 1))
    pooled = (maps[0] if isinstance(maps, tuple) else maps).mean((2, 3)).unflatten(0, (2, 2))
    torch.testing.assert_close(scores, recognizer.cls_head.fc_cls(pooled.mean(1)))
