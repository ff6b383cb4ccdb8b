"""Take a network elsewhere: ONNX, or a program of torch.export."""

import os
import warnings
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
import torch.nn as nn
from torch import Tensor
from torch.export import Dim

from mmctx.compat.exporting import pooling_any_size
from mmctx.errors import UserError
from mmctx.models.backbones.contextual_backbone import ContextualBackbone
from mmctx.models.eval_mode import eval_mode
from mmctx.registry import base_named

from .image_network import ImageNetwork

FORMATS = ('onnx', 'pt2')
EXPORTERS = ('dynamo', 'torchscript')
# Of networks that do not state their stride, in pixels.
USUAL_STRIDE = 32
# Largest side of an image that torch.export leaves free, in pixels.
LARGEST_SIDE = 2**14
OPSET = 17
# Where their backbones come from, `Recognizer2D` pools the features.
POOLED = ('torchvision', 'timm')


class ExportableNetwork(nn.Module):
    """What is exported of a model: a function of normalised images alone.

    Args:
        model (nn.Module): A backbone or another network of images, a classifier of mmpretrain, a 2D
            recognizer of mmaction2 or a detector of mmdet.

    Attributes:
        frames (int): Frames of a clip; 1 of a network that takes single images.
        least_side (int): Least height and width that torch.export leaves free, in pixels.
    """

    def __init__(self, model: nn.Module):
        super().__init__()
        self.network = ImageNetwork(model)
        self.frames: int = self.network.frames or getattr(model, 'num_segments', 1)  # type: ignore[assignment]
        self.detects = base_named(type(model), 'BaseDetector') is not None
        backbone: Any = getattr(model, 'backbone', model)
        own = isinstance(backbone, ContextualBackbone)
        stride: int = backbone.stride if own else USUAL_STRIDE
        # A map of one pixel would be taken for one that never changes. The coarsest of a detector's
        # neck has half the size of its backbone's.
        self.least_side = (4 if self.detects else 2) * stride

    def forward(self, images: Tensor) -> Any:
        """Run the network.

        Args:
            images (Tensor): Normalised images, (B, 3, H, W); of a recognizer, or its backbone,
                whole clips, one after the other, (N·T, 3, H, W).

        Returns:
            Tensor | tuple[Tensor, ...]: Logits, (B, classes), of a classifier; scores of clips,
            (N, classes), of a recognizer; of a detector the maps of its backbone and neck; of
            another network what it returns.
        """
        model: Any = self.network.model
        if self.detects:
            return tuple(model.extract_feat(images))
        if self.network.frames and not model.with_neck and model.backbone_from not in POOLED:
            # Step by step: `Recognizer2D` writes the example's size into a traced file.
            features = model.backbone(images)
            features = features[-1] if isinstance(features, tuple) else features
            return model.cls_head(features, self.frames)
        return self.network(images)


def export(
    model: nn.Module,
    path: str | os.PathLike,
    size: tuple[int, int] = (224, 224),
    dynamic: bool = True,
    exporter: str = 'dynamo',
) -> float:
    """Write a network to a file, and compare what the file computes with the network.

    Args:
        model (nn.Module): Same as in `ExportableNetwork`. It is exported in eval mode and keeps
            its own mode.
        path (str | os.PathLike): File to write; it ends in `.onnx`, or in `.pt2` for a program of
            torch.export.
        size (tuple[int, int]): Height and width of the example in pixels; a file that is not
            dynamic takes no others. Defaults to (224, 224).
        dynamic (bool): Whether the file takes any number of images, of any size; by torch.export
            from twice the network's stride on, 64 pixels for most, of a detector from 128. Defaults
            to True.
        exporter (str): How ONNX is made: `dynamo`, by torch.export, or `torchscript`, by tracing.
            Defaults to `dynamo`.

    Returns:
        float: Largest difference between the results of file and network on random images, divided
        by the largest result. The images are of another number and size than the example's if the
        file is dynamic. NaN for ONNX if onnxruntime is not installed.

    Raises:
        UserError: The file's ending, the exporter or the size is not possible, a package is
            missing, or torch.export cannot leave the size of the images free.
    """
    path = Path(path)
    if path.suffix[1:] not in FORMATS:
        raise UserError(f'{path} should end in .onnx or .pt2')
    if exporter not in EXPORTERS:
        raise UserError(f'exporter should be one of {EXPORTERS}, got {exporter!r}')
    traced = path.suffix == '.onnx' and exporter == 'torchscript'
    network = ExportableNetwork(model)
    if dynamic and not traced and min(size) < network.least_side:
        raise UserError(f'size should be at least {network.least_side}, got {tuple(size)}')
    if path.suffix == '.onnx':
        _check_packages(exporter)
    parameter = next(model.parameters())
    images = torch.randn(2 * network.frames, 3, *size).to(parameter)
    path.parent.mkdir(parents=True, exist_ok=True)
    with eval_mode(network), torch.no_grad():
        if traced:
            _trace(network, images, path, dynamic)
        else:
            _write_program(network, images, path, dynamic)
        if dynamic:
            larger = [side + 35 for side in size]
            images = torch.randn(3 * network.frames, 3, *larger).to(parameter)
        return _difference(network, path, images)


def _check_packages(exporter: str) -> None:
    needed = ['onnx', 'onnxscript'] if exporter == 'dynamo' else ['onnx']
    missing = [name for name in needed if find_spec(name) is None]
    if missing:
        raise UserError(f"ONNX needs {' and '.join(missing)}: pip install 'mmctx[export]'")


def _write_program(network: ExportableNetwork, images: Tensor, path: Path, dynamic: bool) -> None:
    shapes: Any = None
    if dynamic:
        batch = Dim('batch', max=2**12)
        frames = batch if network.frames == 1 else network.frames * batch
        height, width = (
            Dim(name, min=network.least_side, max=LARGEST_SIDE) for name in ('height', 'width')
        )
        shapes = ({0: frames, 2: height, 3: width},)
    with pooling_any_size():
        try:
            program = torch.export.export(network, (images,), dynamic_shapes=shapes, strict=False)
        except torch._dynamo.exc.UserError as error:
            if error.error_type != torch._dynamo.exc.UserErrorType.CONSTRAINT_VIOLATION:
                raise
            raise UserError(
                'torch.export cannot leave the number and the size of the images free in this '
                'network: export one size (dynamic=False, --static), or ONNX by torchscript'
            ) from error
        if path.suffix == '.pt2':
            torch.export.save(program, path)
            return
        # In one file, which can be moved about.
        torch.onnx.export(
            program, (), path, input_names=['images'], dynamo=True, external_data=False,
            verbose=False,
        )  # fmt: skip


def _trace(network: ExportableNetwork, images: Tensor, path: Path, dynamic: bool) -> None:
    axes = dict(images={0: 'batch', 2: 'height', 3: 'width'}) if dynamic else None
    with warnings.catch_warnings():
        # That the exporter is the older one, and of sizes that are only checked.
        warnings.simplefilter('ignore', DeprecationWarning)
        warnings.simplefilter('ignore', torch.jit.TracerWarning)
        torch.onnx.export(
            network, (images,), path, input_names=['images'], dynamic_axes=axes, dynamo=False,
            opset_version=OPSET,
        )  # fmt: skip


def _difference(network: nn.Module, path: Path, images: Tensor) -> float:
    """Largest difference of a file's results from the network's, over the largest result."""
    expected = _as_list(network(images))
    if path.suffix == '.pt2':
        results = _as_list(torch.export.load(path).module()(images))
    elif find_spec('onnxruntime') is None:
        return float('nan')
    else:
        import onnxruntime

        session = onnxruntime.InferenceSession(path, providers=['CPUExecutionProvider'])
        found = session.run(None, {'images': images.cpu().numpy()})
        results = [torch.from_numpy(each) for each in found]
    pairs = [(a.cpu(), b.cpu()) for a, b in zip(results, expected, strict=True)]
    # Classes that are no longer considered have logits of −inf in both.
    if any((a.isfinite() != b.isfinite()).any() for a, b in pairs):
        return float('inf')
    finite = [(a[b.isfinite()], b[b.isfinite()]) for a, b in pairs]
    largest = max(float(b.abs().max()) for _, b in finite)
    return max(float((a - b).abs().max()) for a, b in finite) / max(largest, 1e-12)


def _as_list(outputs: Any) -> list[Tensor]:
    return [outputs] if isinstance(outputs, Tensor) else list(outputs)
