"""Training that resumes after interruptions: a runner, its hooks, loops and data loading."""

from .hooks import (
    CascadeWarmUpHook,
    CheckpointHook,
    ContextLogHook,
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
    'ExactResumeHook',
    'Interrupted',
    'InterruptionHook',
    'NonFiniteLoss',
    'NonFiniteLossHook',
    'PendingValidationHook',
    'ResumableRunner',
]
