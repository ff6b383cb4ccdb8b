"""Hooks that save, resume, guard and speed up a run, and those of the cascade of stages."""

from .cascade_warm_up_hook import CascadeWarmUpHook
from .checkpoint_hook import CheckpointHook
from .context_log_hook import ContextLogHook
from .cuda_graph_hook import CudaGraphHook
from .exact_resume_hook import ExactResumeHook
from .interruption_hook import Interrupted, InterruptionHook
from .nonfinite_loss_hook import NonFiniteLoss, NonFiniteLossHook
from .pending_validation_hook import PendingValidationHook

__all__ = [
    'CascadeWarmUpHook',
    'CheckpointHook',
    'ContextLogHook',
    'CudaGraphHook',
    'ExactResumeHook',
    'Interrupted',
    'InterruptionHook',
    'NonFiniteLoss',
    'NonFiniteLossHook',
    'PendingValidationHook',
]
