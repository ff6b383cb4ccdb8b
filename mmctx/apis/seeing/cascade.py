"""Which classes remain after each stage."""

import torch

from mmctx.errors import UserError
from mmctx.visualization.cascade import Step

from .viewer import ContextViewer, Subject


def cascade_of(viewer: ContextViewer, subject: Subject) -> list[Step]:
    """The classes that remain after each stage.

    Raises:
        UserError: No stage of the network classifies.
    """
    stages = viewer.run(subject).stages
    if not stages:
        raise UserError('no stage of this network classifies, so there is no cascade')
    steps = []
    for stage, context in stages.items():
        scores = context.logits[subject.frame].float().softmax(0).cpu()
        if context.kept is None:
            kept = torch.zeros(len(scores), dtype=torch.bool)
            kept[scores.argmax()] = True
        else:
            kept = context.kept[subject.frame].cpu()
        steps.append(Step(stage, scores.numpy(), kept.numpy()))
    return steps
