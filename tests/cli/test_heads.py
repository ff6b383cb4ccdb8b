"""A head that does not take what its contextual backbone returns is refused in words of ours."""

import pytest
import torch.nn as nn
from mmpretrain.models import ClsHead, GlobalAveragePooling, LinearClsHead

import mmctx
from mmctx.cli.heads import check_heads
from mmctx.errors import UserError
from mmctx.models.heads import ContextualClsHead


class Network(nn.Module):
    def __init__(self, out_type, head, neck=None):
        super().__init__()
        self.backbone = mmctx.ContextualResNet(
            18, stem_channels=8, base_channels=8, num_classes=4, embed_dims=8, out_type=out_type
        )
        self.neck, self.head = neck, head


class OwnHead(LinearClsHead):
    """A user's."""


def test_each_head_beside_each_output():
    linear, pooling = LinearClsHead(4, 64), GlobalAveragePooling()
    for network in (
        Network('featmap', linear, pooling),
        Network('featmap', ClsHead(), pooling),
        Network('logits', ContextualClsHead()),
        Network('logits', ClsHead()),
        Network('logits', OwnHead(4, 4)),
        linear,
    ):
        check_heads(network)
    with pytest.raises(UserError, match=r'^model\.head is a ContextualClsHead, which takes logits'):
        check_heads(Network('featmap', ContextualClsHead()))
    with pytest.raises(
        UserError, match=r'^model\.head is a LinearClsHead, .* mmctx\.ContextualCls'
    ):
        check_heads(Network('logits', linear))
    student = nn.ModuleDict(dict(student=Network('logits', ContextualClsHead(), pooling)))
    with pytest.raises(
        UserError, match=r'model\.student\.neck is .* take model\.student\.neck=None'
    ):
        check_heads(student)
