"""Training that resumes after interruptions: a runner, its hooks, loops and data loading."""

from .graphed_forward import GraphedForward
from .hooks import (
    CascadeWarmUpHook,
    CheckpointHook,
    ContextLogHook,
    CudaGraphHook,
    ExactResumeHook,
    Interrupted,
    InterruptionHook,
    NonFiniteLoss,
    NonFiniteLossHook,
    PendingValidationHook,
)
from .runner import ResumableRunner

__all__ = [
    'CascadeWarmUpHook',
    'CheckpointHook',
    'ContextLogHook',
    'CudaGraphHook',
    'ExactResumeHook',
    'GraphedForward',
    'Interrupted',
    'InterruptionHook',
    'NonFiniteLoss',
    'NonFiniteLossHook',
    'PendingValidationHook',
    'ResumableRunner',
]
