"""The contextual convolution's benchmark cases: shapes, inputs, formulations, bytes and FLOPs."""

import re
from collections.abc import Callable
from dataclasses import dataclass
from math import prod

import torch
import torch.nn.functional as F
from torch import Tensor
from torchvision.ops import deform_conv2d

from mmctx.errors import UserError
from mmctx.ops import BACKENDS, contextual_conv2d

PATTERN = re.compile(r'(dw|dense)(\d+):(\d+)x(\d+)x(\d+)(?::s(\d+))?(?::b(\d+))?')
# The contextual convolutions of ConvNeXt-T and ResNet50 at 224×224, and a feature map for COCO.
DEFAULT_SHAPES = (
    'dw7:192x28x28', 'dw7:384x14x14', 'dw7:768x7x7',
    'dense3:128x28x28', 'dense3:128x56x56:s2', 'dense3:256x14x14', 'dense3:512x7x7',
    'dw7:192x100x168:b1', 'dw7:192x100x168:b2',
)  # fmt: skip
PLAIN, RELEASED = 'plain conv', 'released'
# Offsets in pixels. Odd multiples of 1/16 are exact in every type, and never reach a whole pixel,
# where the gradient jumps and rounding would decide the side.
SAMPLING_OFFSET_SPREAD, SAMPLING_OFFSET_LIMIT, SAMPLING_OFFSET_STEP = 2, 7.5, 1 / 16


@dataclass(frozen=True)
class OpShape:
    """A convolution to benchmark, with as many output as input channels.

    Attributes:
        depthwise (bool): Whether the convolution is depthwise; otherwise it is dense.
        kernel (int): Height and width of the kernel.
        channels (int): Number of channels of the input and of the output. height, width (int): Size
        of the input, in pixels.
        stride (int): Stride in pixels. Defaults to 1.
        batch (int, optional): Number of images, if the shape fixes it. Defaults to None.
    """

    depthwise: bool
    kernel: int
    channels: int
    height: int
    width: int
    stride: int = 1
    batch: int | None = None

    @classmethod
    def parse(cls, text: str) -> 'OpShape':
        """Read `dw7:192x28x28` or `dense3:128x56x56:s2:b4`.

        Raises:
            UserError: The text is not of that form, a size is 0, or the kernel is even.
        """
        match = PATTERN.fullmatch(text)
        sizes = [int(group) for group in match.groups()[1:] if group] if match else [0]
        if min(sizes) < 1 or sizes[0] % 2 == 0:
            raise UserError(
                f'{text!r} is no shape: write dw7:CHANNELSxHEIGHTxWIDTH or dense3:..., an odd '
                'kernel, and perhaps :s2 for the stride and :b4 for the batch'
            )
        kind, kernel, *size, stride, batch = match.groups()
        return cls(
            kind == 'dw',
            int(kernel),
            *map(int, size),
            int(stride or 1),
            int(batch) if batch else None,
        )

    def __str__(self) -> str:
        kind = 'depthwise' if self.depthwise else 'dense'
        stride = f', stride {self.stride}' if self.stride > 1 else ''
        size = f'{self.channels}×{self.height}×{self.width}'
        return f'{kind} {self.kernel}×{self.kernel}, {size}{stride}'

    @property
    def geometry(self) -> dict:
        """Arguments of the convolution other than tensors, with "same" padding."""
        return dict(stride=self.stride, padding=self.kernel // 2)

    @property
    def out_size(self) -> tuple[int, int]:
        """Height and width of the output, in pixels."""
        return tuple((n - 1) // self.stride + 1 for n in (self.height, self.width))

    def flops(self, batch: int, contextual: bool = True) -> tuple[int, int]:
        """Count the operations of forward and backward pass; a multiply-add counts as two.

        Counts are for each tap, input channel and output pixel; O is 1 for depthwise kernels and
        otherwise the number of output channels. Forward: 2·O for the product with the kernel.
        Backward: 2·O each for the gradients of kernel and sample. A contextual convolution adds,
        forward, 8 to interpolate between four corners and, if dense, 2 for Δw; backward, 8 to
        interpolate again, 8 to distribute the gradient of the sample over x, 8 for the gradients of
        the four corner weights and, if dense, 4 for Δw.

        Args:
            batch (int): Number of images.
            contextual (bool): Whether to count the contextual convolution; otherwise the plain one
                is counted. Defaults to True.
        """
        values = batch * self.channels * self.kernel**2 * prod(self.out_size)
        kernels = 1 if self.depthwise else self.channels
        forward, backward = 2 * kernels, 4 * kernels
        if contextual:
            shared = 0 if self.depthwise else 2
            forward, backward = forward + 8 + shared, backward + 24 + 2 * shared
        return values * forward, values * backward


@dataclass
class OpInputs:
    """Random arguments of the convolution, and a gradient of its output."""

    tensors: dict[str, Tensor]
    cotangent: Tensor

    def plain(self) -> 'OpInputs':
        """Arguments of the plain convolution."""
        kept = {name: self.tensors[name] for name in ('x', 'weight', 'bias')}
        return OpInputs(kept, self.cotangent)

    def bytes(self) -> tuple[int, int]:
        """Bytes that both passes have to move if each tensor is read or written once."""
        given = sum(t.nbytes for t in self.tensors.values())
        # Backward reads all inputs and the gradient of the output, and writes a gradient of each
        # input.
        return given + self.cotangent.nbytes, 2 * given + self.cotangent.nbytes


def draw_inputs(
    shape: OpShape,
    batch: int,
    dtype: torch.dtype,
    device: torch.device,
    modulated: bool = False,
    channels_last: bool = False,
) -> OpInputs:
    """Draw random inputs of a case, all of one type, with offsets that spread by two pixels.

    Args:
        shape (OpShape): Convolution of the case.
        batch (int): Number of images.
        dtype (torch.dtype): Type of every tensor.
        device (torch.device): Device of the tensors.
        modulated (bool): Whether to draw a mask as well. Defaults to False.
        channels_last (bool): Whether x and the gradient of the output are in the memory format
            channels last. Defaults to False.

    Returns:
        OpInputs: Inputs, named as the arguments of `contextual_conv2d`.
    """
    taps, channels, size = shape.kernel**2, shape.channels, shape.out_size
    kernel = (shape.kernel, shape.kernel)

    def normal(*dims, scale=1.0):
        return (torch.randn(dims, device=device) * scale).to(dtype)

    inputs = 1 if shape.depthwise else channels
    scale = (taps * inputs) ** -0.5  # keeps the output near 1
    sampling_offset = torch.randn(batch, 2 * taps, *size, device=device) * SAMPLING_OFFSET_SPREAD
    sampling_offset.clamp_(-SAMPLING_OFFSET_LIMIT, SAMPLING_OFFSET_LIMIT)
    sampling_offset = sampling_offset.div_(2 * SAMPLING_OFFSET_STEP).floor_()
    own_channels = (channels, 1) if shape.depthwise else (1, channels)
    layout = torch.channels_last if channels_last else torch.contiguous_format
    tensors = dict(
        x=normal(batch, channels, shape.height, shape.width).to(memory_format=layout),
        weight=normal(channels, inputs, *kernel, scale=scale),
        bias=normal(channels),
        sampling_offset=((2 * sampling_offset + 1) * SAMPLING_OFFSET_STEP).to(dtype),
        weight_offset=normal(batch, *own_channels, *kernel, scale=scale),
    )
    if modulated:
        tensors['mask'] = torch.rand(batch, taps, *size, device=device).to(dtype)
    return OpInputs(tensors, normal(batch, channels, *size).to(memory_format=layout))


def plain_convolution(x, weight, bias, *, stride, padding) -> Tensor:
    """Vanilla convolution of the same shape, with which the others are compared."""
    groups = 1 if weight.shape[1] == x.shape[1] else x.shape[1]
    return F.conv2d(x, weight, bias, stride, padding, groups=groups)


def released_formulation(
    x, weight, bias, *, sampling_offset, weight_offset, stride, padding, mask=None, **_
) -> Tensor:
    """Formulation of the authors' code: torchvision's operator on one image of B·C channels.

    Each image has its own kernels, so each image is a weight group (if depthwise, each of its
    channels) and an offset group. The computation is in float32, as torchvision's operator does it
    under autocast.
    """
    kernels = (weight + weight_offset).flatten(0, 1)  # [B·C_out, C_in / groups, kh, kw]
    as_one = [
        None if t is None else t.float().flatten(0, 1)[None] for t in (x, sampling_offset, mask)
    ]
    out = deform_conv2d(
        *as_one[:2], kernels.float(), stride=stride, padding=padding, mask=as_one[2]
    )
    return (out.unflatten(1, (len(x), -1))[0] + bias[:, None, None]).to(x.dtype)


def formulations(names: list[str] | None = None) -> dict[str, Callable[..., Tensor]]:
    """List ways to compute a case, by name; the first is the plain convolution, for comparison.

    Args:
        names (list[str], optional): Names of back ends, or `released`. Defaults to None, all of
            them.

    Raises:
        UserError: A name is unknown.
    """

    def through(backend):
        return lambda **arguments: contextual_conv2d(**arguments, backend=backend)

    known = {name: through(name) for name in BACKENDS}
    known[RELEASED] = released_formulation
    unknown = set(names or ()) - set(known)
    if unknown:
        raise UserError(f'--backends: no {", ".join(sorted(unknown))}; there are {list(known)}')
    chosen = {name: known[name] for name in names or known}
    return {PLAIN: plain_convolution, **chosen}
