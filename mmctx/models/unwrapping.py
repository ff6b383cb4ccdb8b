"""The network inside wrappers for distributed runs and test-time augmentation."""

from typing import Any

import torch.nn as nn
from mmengine.model import BaseTTAModel, is_model_wrapper


def bare_model(model: Any) -> nn.Module:
    """The network itself."""
    inner: Any = model
    while is_model_wrapper(inner) or isinstance(inner, BaseTTAModel):
        inner = inner.module
    return inner
