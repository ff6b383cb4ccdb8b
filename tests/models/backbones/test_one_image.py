"""One image trains a network whose batch norms do not train, and is refused where one does."""

import pytest
import torch
from torch.nn.modules.batchnorm import _BatchNorm

from mmctx.errors import UserError
from mmctx.models.backbones import ContextualResNet

IMAGE = torch.zeros(1, 3, 64, 64)


def network(**options):
    return ContextualResNet(18, base_channels=8, stem_channels=8, num_classes=8,
                            considered=(4, 3, 2), embed_dims=8, **options).train()  # fmt: skip


def test_norms_in_evaluation_mode_take_one_image():
    net = network(frozen_stages=1, norm_eval=True, out_indices=(0, 1, 2, 3))
    assert not any(m.training for m in net.modules() if isinstance(m, _BatchNorm))
    assert [len(x) for x in net(IMAGE)] == [1, 1, 1, 1]


def test_norms_of_a_frozen_network_take_one_image():
    net = network()
    for module in net.modules():
        if isinstance(module, _BatchNorm):
            module.eval()
    net(IMAGE)


def test_a_batch_norm_that_trains_does_not():
    with pytest.raises(UserError, match="pass norm='LN'"):
        network()(IMAGE)
    network(norm='LN')(torch.zeros(1, 3, 96, 96))
