"""How much Δw changes the kernels, by class."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from mmctx.errors import UserError
from mmctx.models.context_record import contextual_convolutions, relative_weight_offset

from .embeddings import cosines
from .viewer import ContextViewer, Subject


class KernelChanges(NamedTuple):
    """How much Δw changes kernels by class.

    Attributes:
        labels (list[int]): Numbers of the classes.
        layers (list[str]): Names of the contextual convolutions.
        changes (np.ndarray): |Δw| / |w|, (classes, layers); see `relative_weight_offset`.
        likeness (np.ndarray): Of the classes' mean Δw in one layer, (classes, classes).
    """

    labels: list[int]
    layers: list[str]
    changes: np.ndarray
    likeness: np.ndarray


def kernel_changes(viewer: ContextViewer, subjects: Sequence[Subject], layer: str) -> KernelChanges:
    """How much Δw changes the kernels for the pictures of each class.

    Args:
        viewer (ContextViewer): The network.
        subjects (Sequence[Subject]): Pictures; one without a true class counts for the class
            that the network considers likeliest.
        layer (str): The convolution whose Δw are compared between classes.

    Raises:
        UserError: No contextual convolution of the network predicts Δw, or this one does not.
    """
    found: dict[int, list[dict[str, Tensor]]] = {}
    for subject in subjects:
        record = viewer.run(subject)
        label = subject.label
        if label is None:
            if not record.stages:
                raise UserError(f'state the class of {subject.path} with --label')
            label = int(list(record.stages.values())[-1].logits[subject.frame].argmax())
        found.setdefault(label, []).append(
            {
                name: c.weight_offset[subject.frame].detach().float().cpu()
                for name, c in record.convolutions.items()
                if c.weight_offset is not None
            }
        )
    labels = sorted(found)
    layers = [n for n in contextual_convolutions(viewer.backbone) if n in found[labels[0]][0]]
    if layer not in layers:
        raise UserError(f'{layer} predicts no Δw; these do: {", ".join(layers) or "none"}')
    changes = np.zeros((len(labels), len(layers)))
    for row, label in enumerate(labels):
        for column, name in enumerate(layers):
            offsets = torch.stack([of_image[name] for of_image in found[label]])
            weight = viewer.backbone.get_submodule(name).weight.detach().cpu()
            changes[row, column] = relative_weight_offset(offsets, weight).item()
    means = torch.stack(
        [torch.stack([of[layer] for of in found[label]]).mean(0).flatten() for label in labels]
    )
    return KernelChanges(labels, layers, changes, likeness(means).numpy())


def likeness(vectors: Tensor) -> Tensor:
    """Cosine similarities of vectors, (N, d), less their mean: (N, N). Of one alone, 1."""
    if len(vectors) == 1:
        return torch.ones(1, 1)
    return cosines(vectors - vectors.mean(0))
