"""The network inside wrappers for distributed runs and test-time augmentation."""

from typing import Any

import torch.nn as nn
from mmengine.model import BaseTTAModel, is_model_wrapper


def bare_model(model: Any) -> nn.Module:
    """The network itself."""
    while is_model_wrapper(model) or isinstance(model, BaseTTAModel):
        model = model.module
    return model
