"""Shapes, types and options of a call, without its data, and the numbers that follow from them."""

from collections.abc import Iterable
from functools import lru_cache
from typing import NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor

from ..sampling import Pair, output_size
from .settings import ONES, PROGRAMS_PER_PROCESSOR, Tile, split_evenly

TYPES = {
    torch.float16: tl.float16,
    torch.bfloat16: tl.bfloat16,
    torch.float32: tl.float32,
    torch.float64: tl.float64,
}
Shape = tuple[int, ...]
# Shape and type of a tensor, with its strides if a kernel takes them.
Outline = tuple[Shape, torch.dtype] | tuple[Shape, torch.dtype, Shape]


class Problem(NamedTuple):
    """A contextual convolution without its data; fields as in `mmctx.ops.contextual_conv2d`.

    Equal problems run the same kernels on the same grids, so launches are cached by problem.
    """

    device: torch.device
    x: Outline
    weight: Outline
    bias: Outline | None
    sampling_offset: Outline | None
    weight_offset: Outline | None
    mask: Outline | None
    stride: Pair
    padding: Pair
    dilation: Pair
    mask_is_logits: bool

    @property
    def batch(self) -> int:
        """Number of images."""
        return self.x[0][0]

    @property
    def channels(self) -> int:
        """Number of channels of x."""
        return self.x[0][1]

    @property
    def out_channels(self) -> int:
        """Number of channels of the output."""
        return self.weight[0][0]

    @property
    def depthwise(self) -> bool:
        """Whether each channel is convolved by itself."""
        return self.weight[0][1] == 1 and self.channels > 1

    @property
    def out_size(self) -> Pair:
        """Height and width of the output."""
        size, kernel = self.x[0][2:], self.weight[0][2:]
        return output_size(size, kernel, self.stride, self.padding, self.dilation)

    @property
    def x_pixels(self) -> int:
        """Number of pixels of an image."""
        return self.x[0][2] * self.x[0][3]

    @property
    def out_pixels(self) -> int:
        """Number of pixels of an output image."""
        return self.out_size[0] * self.out_size[1]

    @property
    def taps(self) -> int:
        """Number of taps of the kernel."""
        return self.weight[0][2] * self.weight[0][3]

    @property
    def ones(self) -> int:
        """Number of columns for Δw, which a dense convolution multiplies by ones."""
        return ONES if self.weight_offset is not None and not self.depthwise else 0

    @property
    def type(self) -> torch.dtype:
        """Type of x."""
        return self.x[1]

    @property
    def compute_type(self) -> torch.dtype:
        """Type of positions and sums."""
        return torch.promote_types(self.type, torch.float32)

    def values(self) -> dict:
        """Integers and constants of the kernels by name, without those of the tiles."""
        height, width = self.x[0][2:]
        values = dict(
            height=height,
            width=width,
            out_height=self.out_size[0],
            out_width=self.out_size[1],
            images=self.batch,
            CHANNELS=self.channels,
            # Whether x has several columns, which are then `CHANNELS` elements apart.
            WIDE=int(self.x[0][3] > 1),
            TAPS=self.taps,
            KERNEL_WIDTH=self.weight[0][3],
            LOGITS=self.mask_is_logits,
            # Largest power of 2 that divides C, so that the compiler can load 16 bytes at a time.
            ALIGN=min(self.channels & -self.channels, 16),
            OWN_KERNELS=self.weight_offset is not None,
            INDEX=tl.int32 if self.x_pixels * self.channels < 2**31 else tl.int64,
            FLOAT=TYPES[self.compute_type],
            BLEND=tl.float16 if self.type == torch.float16 else TYPES[self.compute_type],
            HALF=self.type.itemsize == 2,
            ONES=self.ones,
        )
        values['channel_groups'] = self.channels // values['ALIGN']
        for name in ('stride', 'padding', 'dilation'):
            values[f'{name}_y'], values[f'{name}_x'] = getattr(self, name)
        for name, outline in (('offset', self.sampling_offset), ('mask', self.mask)):
            strides = (0,) * 4 if outline is None else outline[2]
            axes = (f'{name}_{axis}' for axis in ('image', 'channel', 'row', 'column'))
            values.update(zip(axes, strides))
        axes = (f'weight_{axis}' for axis in ('output', 'input', 'row', 'column'))
        values.update(zip(axes, self.weight[2]))
        return values

    def tiled(self, tile: Tile) -> dict:
        """Constants of a kernel that works on tiles of pixels and channel blocks."""
        whole = self.channels % tile.channels == 0
        return dict(WHOLE=whole, GROUPS=tile.groups, PIXELS=tile.pixels, LANES=tile.lanes)

    def split(self, items: int, programs: int, most: int | None = None) -> tuple[int, int]:
        """Split items of work into enough pieces to fill the device, even for a single image.

        Args:
            items (int): Number of items.
            programs (int): Number of programs for each piece.
            most (int, optional): Largest number of pieces. Defaults to None, the number of items.

        Returns:
            tuple[int, int]: Number of pieces, and of items in each.
        """
        wanted = triton.cdiv(PROGRAMS_PER_PROCESSOR * _processors(self.device), programs)
        return split_evenly(items, min(wanted, most or items))


def outline(tensor: Tensor | None, with_strides: bool = False) -> Outline | None:
    """Shape and type of a tensor, with its strides if they are asked for."""
    if tensor is None:
        return None
    if with_strides:
        return tensor.shape, tensor.dtype, tensor.stride()
    return tensor.shape, tensor.dtype


def problem_of(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    sampling_offset: Tensor | None,
    weight_offset: Tensor | None,
    mask: Tensor | None,
    stride: Iterable[int],
    padding: Iterable[int],
    dilation: Iterable[int],
    mask_is_logits: bool,
) -> Problem:
    """Problem of these arguments."""
    return Problem(
        x.device,
        (x.shape, x.dtype),
        outline(weight, with_strides=True),
        outline(bias),
        outline(sampling_offset, with_strides=True),
        outline(weight_offset),
        outline(mask, with_strides=True),
        tuple(stride),
        tuple(padding),
        tuple(dilation),
        mask_is_logits,
    )


def channels_last(image: Tensor) -> Tensor:
    """Make an image batch channels last in memory and 16-byte aligned; copy it only if needed."""
    image = image.contiguous(memory_format=torch.channels_last)
    if image.data_ptr() % 16:
        image = image.clone(memory_format=torch.channels_last)
    return image


@lru_cache
def _processors(device: torch.device) -> int:
    if device.type != 'cuda':
        return 1
    return torch.cuda.get_device_properties(device).multi_processor_count


@lru_cache
def multiplies_halves(device: torch.device) -> bool:
    """Whether `tl.dot` multiplies half precision by tensor cores, with the layout of sm_80."""
    if device.type != 'cuda':
        return True  # as the GPU whose kernels run here
    return torch.version.hip is None and torch.cuda.get_device_capability(device) >= (8, 0)
