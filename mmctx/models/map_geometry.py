"""Where the pixels of a network's maps lie on the image."""

from typing import Any, NamedTuple

import torch
import torch.nn as nn
from mmengine.utils import to_2tuple
from torch import Tensor


class MapGeometry(NamedTuple):
    """Places of a map's pixels on the image, for each axis (vertical, horizontal).

    Attributes:
        stride (tuple[int, int]): Distance of neighbouring pixels, in pixels of the image.
        origin (tuple[float, float]): Centre of the first pixel, in pixels of the image, whose own
            first pixel has its centre at (0, 0).
    """

    stride: tuple[int, int]
    origin: tuple[float, float]

    def on_image(self, points: Tensor) -> Tensor:
        """Points of the map, (..., 2) as (y, x), on the image."""
        return points * torch.tensor(self.stride) + torch.tensor(self.origin)


class GeometryTracer:
    """Follows strided layers through a run of a network, up to the input of one of its layers.

    A context: inside, run the network once. Layers count that see the map as the last strided
    layer left it, so that the shortcuts of residual blocks, which see the larger map, do not.

    Args:
        network (nn.Module): The network.
        layer (nn.Module): The layer whose input map is asked for.

    Attributes:
        geometry (MapGeometry): Of that map, after the run.
    """

    def __init__(self, network: nn.Module, layer: nn.Module):
        self.network, self.layer = network, layer
        self.geometry = MapGeometry((1, 1), (0.0, 0.0))
        self._size: Any = None
        self._arrived = False

    def __enter__(self) -> 'GeometryTracer':
        self._handles = [self.layer.register_forward_pre_hook(self._arrive)]
        for module in self.network.modules():
            strided = hasattr(module, 'stride') and getattr(module, 'kernel_size', None)
            if strided and module is not self.layer:
                self._handles.append(module.register_forward_hook(self._pass))
        return self

    def __exit__(self, *_) -> None:
        for handle in self._handles:
            handle.remove()

    def _arrive(self, module: nn.Module, args: tuple) -> None:
        self._arrived = True

    def _pass(self, module: Any, args: tuple, output: Tensor) -> None:
        before, after = tuple(args[0].shape[-2:]), tuple(output.shape[-2:])
        strides = to_2tuple(module.stride)
        if self._arrived or max(strides) == 1 or self._size not in (None, before):
            return
        self._size = after
        stride, origin = self.geometry
        kernel, padding = to_2tuple(module.kernel_size), to_2tuple(module.padding)
        dilation = to_2tuple(getattr(module, 'dilation', 1))
        self.geometry = MapGeometry(
            (stride[0] * strides[0], stride[1] * strides[1]),
            tuple(  # type: ignore[arg-type]
                o + s * (d * (k - 1) / 2 - p)
                for o, s, d, k, p in zip(origin, stride, dilation, kernel, padding)
            ),
        )
