"""The network inside wrappers for distributed runs and test-time augmentation."""

import torch.nn as nn
from mmengine.model import BaseTTAModel, is_model_wrapper


def bare_model(model: nn.Module) -> nn.Module:
    """The network itself."""
    while is_model_wrapper(model) or isinstance(model, BaseTTAModel):
        model = model.module
    return model
