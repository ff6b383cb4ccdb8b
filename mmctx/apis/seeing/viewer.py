"""A trained network that is looked into, and pictures as it sees them."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from mmengine.dataset import pseudo_collate
from mmengine.registry import DefaultScope
from torch import Tensor, nn

from mmctx.apis.predicting import Predictor
from mmctx.errors import UserError
from mmctx.models.context_record import ContextRecord, record_context
from mmctx.models.layers import Contextualizing


class Subject(NamedTuple):
    """A picture as a network sees it.

    Attributes:
        path (str): The file.
        image (np.ndarray): What the test pipeline made of it, (H, W, 3) uint8 RGB; of a video its
            middle frame.
        inputs (Tensor): Normalised images, (B, 3, H', W'), padded where the network pads: one, or
            the frames of a video.
        frame (int): Which of them is shown.
        label (int, optional): Number of the true class, among those that the context considers.
    """

    path: str
    image: np.ndarray
    inputs: Tensor
    frame: int
    label: int | None


class ContextViewer:
    """Looks into a network that a `Predictor` holds.

    Args:
        predictor (Predictor): A classifier, detector or recognizer.

    Attributes:
        names (tuple[str]): Name of each class that the context considers: those of a classifier are
            its own, those of another network ImageNet's if there are 1000, else numbers. Empty for
            a vanilla network that is no classifier.
    """

    def __init__(self, predictor: Predictor):
        self.predictor = predictor
        self.model: Any = predicting_network(predictor.model)
        self.backbone: Any = getattr(self.model, 'backbone', None)
        if self.backbone is None:
            raise UserError(f'this {type(self.model).__name__} has no backbone to look into')
        self.names = self._class_names()

    def _class_names(self) -> tuple[str, ...]:
        own = self.predictor.classes if self.predictor.kind == 'mmpretrain' else None
        layers = contextualizing_of(self.backbone)
        if layers is None:
            return tuple(own or ())
        count = layers.embeddings.num_embeddings
        if own and len(own) == count:
            return tuple(own)
        if count == 1000:
            from mmpretrain.datasets.categories import IMAGENET_CATEGORIES

            return tuple(IMAGENET_CATEGORIES)
        return tuple(f'class {number}' for number in range(count))

    def load(self, path: str | os.PathLike, label: str | int | None = None) -> Subject:
        """Load a picture or video as the network's test pipeline does.

        Args:
            path (str | os.PathLike): The file.
            label (str | int, optional): Name or number of its true class. Defaults to None: of a
                classifier the class that the file's folder is named after, if there is one.

        Raises:
            UserError: The file cannot be read, or there is no such class.
        """
        data = self.predictor.load(path)
        raw = data['inputs']
        with DefaultScope.overwrite_default_scope(self.predictor.kind):
            batch = self.predictor.model.data_preprocessor(pseudo_collate([data]), False)
        inputs = batch['inputs'].flatten(0, -4)
        frames = raw.flatten(0, -4) if raw.ndim > 3 else raw[None]
        index = len(inputs) // 2
        image = frames[index].permute(1, 2, 0).numpy().astype(np.uint8)
        if self.predictor.kind != 'mmaction':
            # Image pipelines load BGR.
            image = image[..., ::-1]
        return Subject(
            str(path), np.ascontiguousarray(image), inputs, index, self._label(str(path), label)
        )

    def _label(self, path: str, label: str | int | None) -> int | None:
        if label is None:
            folder = Path(path).resolve().parent.name
            return find_class(folder, self.names) if self.predictor.kind == 'mmpretrain' else None
        found = find_class(str(label), self.names)
        if found is None and str(label).isdigit() and int(label) < len(self.names):
            found = int(label)
        if found is None:
            known = ', '.join(self.names[:5])
            raise UserError(f'no class {label!r} among {len(self.names)}: {known} ...')
        return found

    def places_of_interest(self, subject: Subject) -> list[tuple[float, float]]:
        """Where to look at a picture: at the centres of a detector's two most certain objects.

        Returns:
            list[tuple[float, float]]: Places, (x, y) as shares of width and height; the centre of
            the picture where no objects are found or looked for.
        """
        centre = (0.5, 0.5)
        if self.predictor.kind != 'mmdet':
            return [centre]
        (result,) = self.predictor([subject.path])
        height, width = self.predictor.load(subject.path)['data_samples'].ori_shape
        boxes = [entry['box'] for entry in result.get('objects', ())[:2]]
        return [
            (min((x1 + x2) / 2 / width, 1), min((y1 + y2) / 2 / height, 1))
            for x1, y1, x2, y2 in boxes
        ] or [centre]

    def run(self, subject: Subject) -> ContextRecord:
        """Record what the backbone's context does with a picture.

        Raises:
            UserError: The network has no context.
        """
        with record_context(self.backbone) as record, torch.no_grad():
            self.backbone(subject.inputs)
        if not record.stages and not record.convolutions:
            raise UserError(f'this {type(self.backbone).__name__} is not contextual')
        return record


def find_class(name: str, names: Sequence[str]) -> int | None:
    """Number of the class of a name, or of one of the synonyms that its name lists by commas."""
    wanted = name.strip().lower()
    for number, each in enumerate(names):
        if wanted == each.lower() or wanted in [part.strip().lower() for part in each.split(',')]:
            return number
    return None


def predicting_network(model: Any) -> nn.Module:
    """The network that predicts: of a semi-supervised detector of mmdet, its teacher or student."""
    if not hasattr(model, 'semi_test_cfg'):
        return model
    return getattr(model, (model.semi_test_cfg or {}).get('predict_on', 'teacher'))


def contextualizing_of(backbone: nn.Module) -> Contextualizing | None:
    """The contextualizing layers of a backbone; None of a vanilla one."""
    return next((m for m in backbone.modules() if isinstance(m, Contextualizing)), None)
