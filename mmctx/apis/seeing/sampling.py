"""Where a contextual convolution samples, and what it sees of the image by that."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from mmctx.errors import UserError
from mmctx.models.context_record import choose_convolution, record_context, sampling_positions
from mmctx.models.map_geometry import GeometryTracer, MapGeometry
from mmctx.ops import contextual_conv2d
from mmctx.visualization.sampling import SamplingView

from .viewer import ContextViewer, Subject


def sampling_views(
    viewer: ContextViewer,
    subject: Subject,
    layer: str,
    places: Sequence[tuple[float, float]] = ((0.5, 0.5),),
) -> list[SamplingView]:
    """Sampling points and effective receptive fields of a contextual convolution.

    The field on the regular grid is that of the same convolution with Δp = 0; contextual
    convolutions before it keep theirs. Fields are of what the convolution samples: Δp, Δw and
    the mask, through which it knows of the whole image, count as constants.

    Args:
        viewer (ContextViewer): The network.
        subject (Subject): The picture.
        layer (str): Name of the convolution in the backbone, see `choose_convolution`.
        places (Sequence[tuple[float, float]]): Places on the image, (x, y) from 0 to 1; the
            output position nearest to each is shown. Defaults to the centre.

    Raises:
        UserError: A place is outside the image, or the convolution did not run.
    """
    conv = viewer.backbone.get_submodule(choose_convolution(viewer.backbone, layer=layer))
    images = subject.inputs.clone().requires_grad_()
    with (
        torch.enable_grad(),
        record_context(viewer.backbone) as record,
        GeometryTracer(viewer.backbone, conv) as tracer,
        _without_parameter_gradients(viewer.backbone),
    ):
        viewer.backbone(images)
        if layer not in record.convolutions:
            raise UserError(f'{layer} did not run on this input')
        context = record.convolutions[layer]
        _, offset, mask, change = (t if t is None else t.detach() for t in context)
        shared = dict(
            mask=mask,
            weight_offset=change,
            stride=conv.stride,
            padding=conv.padding,
            dilation=conv.dilation,
        )
        regular_output, shifted_output = (
            contextual_conv2d(context.x, conv.weight, conv.bias, sampling_offset=sampled, **shared)
            for sampled in (None, offset)
        )
    height, width = subject.image.shape[:2]
    views = []
    for x, y in places:
        if not (0 <= x <= 1 and 0 <= y <= 1):
            raise UserError(f'a place on the image should be from 0 to 1, got {x},{y}')
        wanted = torch.tensor([y * (height - 1), x * (width - 1)])
        row, column = _nearest(tracer.geometry, conv, wanted, shifted_output.shape[-2:])
        shift, modulation = (t if t is None else t[subject.frame] for t in (offset, mask))
        regular, shifted = (
            tracer.geometry.on_image(points).flip(-1).numpy()
            for points in sampling_positions(conv, shift, row, column)
        )
        regular_field, shifted_field = (
            _receptive_field(output, images, subject.frame, row, column)[:height, :width]
            for output in (regular_output, shifted_output)
        )
        views.append(
            SamplingView(
                regular.mean(0),
                regular,
                shifted,
                None if modulation is None else modulation[:, row, column].cpu().numpy(),
                regular_field,
                shifted_field,
            )
        )
    return views


def _nearest(
    geometry: MapGeometry, conv: Any, place: Tensor, size: Sequence[int]
) -> tuple[int, int]:
    """Output position of a convolution that is nearest to a place on the image, (y, x)."""
    found = []
    axes = zip(conv.stride, conv.padding, conv.dilation, conv.kernel_size)
    for axis, (step, padding, dilation, kernel) in enumerate(axes):
        on_map = (float(place[axis]) - geometry.origin[axis]) / geometry.stride[axis]
        position = (on_map + padding - dilation * (kernel - 1) / 2) / step
        found.append(min(max(round(position), 0), size[axis] - 1))
    return found[0], found[1]


def _receptive_field(
    output: Tensor, images: Tensor, index: int, row: int, column: int
) -> np.ndarray:
    """Size of the gradient of all channels at an output position with respect to each pixel."""
    (gradient,) = torch.autograd.grad(
        output[index, :, row, column].sum(), images, retain_graph=True
    )
    return gradient[index].abs().sum(0).cpu().numpy()


@contextmanager
def _without_parameter_gradients(network: nn.Module) -> Iterator[None]:
    wanted = [p for p in network.parameters() if p.requires_grad]
    for parameter in wanted:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        for parameter in wanted:
            parameter.requires_grad_(True)
