"""What a call needs on the device: sizes and constants of the kernels, and their launch."""

from dataclasses import dataclass
from functools import cached_property, lru_cache

import torch
import triton
import triton.language as tl
from torch import Tensor

from mmctx.compat.triton_interpreter import mend_interpreter

from ..sampling import Pair, output_size
from .settings import PROGRAMS_PER_PROCESSOR, Square, Tile

mend_interpreter()


@dataclass(frozen=True)
class Problem:
    """A contextual convolution to compute; arguments as of `mmctx.ops.contextual_conv2d`."""

    x: Tensor
    weight: Tensor
    offset: Tensor | None
    weight_delta: Tensor | None
    mask: Tensor | None
    stride: Pair
    padding: Pair
    dilation: Pair
    mask_is_logits: bool

    @cached_property
    def depthwise(self) -> bool:
        """Whether each channel is convolved by itself."""
        return self.weight.shape[1] == 1 and self.x.shape[1] > 1

    @cached_property
    def out_size(self) -> Pair:
        """Height and width of the output."""
        size, kernel = self.x.shape[2:], self.weight.shape[2:]
        return output_size(size, kernel, self.stride, self.padding, self.dilation)

    @property
    def out_pixels(self) -> int:
        """Pixels of an output image."""
        return self.out_size[0] * self.out_size[1]

    @cached_property
    def taps(self) -> int:
        """Taps of the kernel."""
        return self.weight.shape[2] * self.weight.shape[3]

    @cached_property
    def compute_type(self) -> torch.dtype:
        """Type of positions, sums and kernels."""
        return torch.promote_types(self.x.dtype, torch.float32)

    @cached_property
    def x_rows(self) -> Tensor:
        """x channels last, [B, H, W, C]; a copy only where x is laid out otherwise."""
        return self.x.permute(0, 2, 3, 1).contiguous()

    @cached_property
    def kernels(self) -> Tensor | None:
        """Depthwise w + Δw, [B or 1, K, C]; dense Δw, [B, K, C], or None."""
        if self.depthwise:
            static = self.weight.flatten(1).t()[None].to(self.compute_type)
            if self.weight_delta is None:
                return static.contiguous()
            delta = self.weight_delta.flatten(2).transpose(1, 2)
            out = torch.empty(delta.shape, device=delta.device, dtype=self.compute_type)
            return torch.add(static, delta, out=out)
        if self.weight_delta is None:
            return None
        return self.weight_delta[:, 0].flatten(2).transpose(1, 2).to(self.compute_type).contiguous()

    @cached_property
    def tensors(self) -> dict[str, Tensor | None]:
        """Inputs by the names that the kernels give them."""
        return dict(x=self.x_rows, kernels=self.kernels, offset=self.offset, mask=self.mask)

    @cached_property
    def sizes(self) -> dict[str, int]:
        """Integers that follow the image, by the kernels' names for them."""
        height, width = self.x.shape[2:]
        sizes = dict(
            height=height,
            width=width,
            out_height=self.out_size[0],
            out_width=self.out_size[1],
            channel_groups=self.x.shape[1] // self.constants['ALIGN'],
        )
        for name in ('stride', 'padding', 'dilation'):
            sizes[f'{name}_y'], sizes[f'{name}_x'] = getattr(self, name)
        for name in ('offset', 'mask'):
            tensor = getattr(self, name)
            strides = (0,) * 4 if tensor is None else tensor.stride()
            sizes.update(
                zip((f'{name}_{axis}' for axis in ('image', 'channel', 'row', 'column')), strides)
            )
        return sizes

    @cached_property
    def constants(self) -> dict:
        """Values that kernels are compiled for; none follows the size of the image."""
        _, channels, height, width = self.x.shape
        return dict(
            TAPS=self.taps,
            KERNEL_WIDTH=self.weight.shape[3],
            LOGITS=self.mask_is_logits,
            # Largest power of 2 that divides C: what lets the compiler load 16 bytes at a time.
            ALIGN=min(channels & -channels, 16),
            OWN_KERNELS=self.weight_delta is not None,
            INDEX=tl.int32 if height * width * channels < 2**31 else tl.int64,
            FLOAT=tl.float64 if self.compute_type == torch.float64 else tl.float32,
        )

    def launch(self, kernel, programs: int, tile: Tile | Square, **arguments) -> None:
        """Run a kernel on as many programs; tensors, sizes and constants are found by name."""
        known = {**self.tensors, **self.sizes, **self.constants, **arguments}
        if isinstance(tile, Tile):
            whole = self.x.shape[1] % tile.channels == 0
            known.update(WHOLE=whole, GROUPS=tile.groups, PIXELS=tile.pixels, LANES=tile.lanes)
        else:
            known.update(SIDE=tile.side, BLOCK=tile.channels)
        options = dict(num_warps=tile.warps, num_stages=1)
        if tile.registers is not None and torch.version.hip is None:
            options['maxnreg'] = tile.registers
        with torch.cuda.device_of(self.x):
            kernel[(programs,)](**{name: known[name] for name in kernel.arg_names}, **options)

    def split(self, items: int, programs: int) -> tuple[int, int]:
        """Pieces to cut items of work into, and items in each, where others make so many programs.

        As many pieces as fill the device, so that a single image does too.
        """
        wanted = triton.cdiv(PROGRAMS_PER_PROCESSOR * _processors(self.x.device), programs)
        size = triton.cdiv(items, min(wanted, items))
        return triton.cdiv(items, size), size


@lru_cache
def _processors(device: torch.device) -> int:
    if device.type != 'cuda':
        return 1
    return torch.cuda.get_device_properties(device).multi_processor_count
