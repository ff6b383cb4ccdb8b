"""Random contextual convolutions, and torchvision's answer to them."""

import torch
from torchvision.ops import deform_conv2d

from mmctx.ops.sampling import output_size

# batch, channels, height, width, kernel, stride, padding, dilation
GEOMETRIES = [
    (1, 5, 7, 9, (3, 3), 1, 1, 1),
    (2, 4, 10, 7, (3, 3), 2, 1, 1),
    (3, 3, 9, 11, (3, 3), 1, 2, 2),
    (1, 6, 5, 5, (7, 7), 1, 3, 1),
    (2, 2, 8, 6, (5, 3), (2, 1), (2, 0), (1, 2)),
    (1, 3, 1, 1, (3, 3), 1, 1, 1),
]


def make_case(geometry, depthwise, spread=2.0, dtype=torch.float64, device='cpu'):
    batch, channels, height, width, kernel, stride, padding, dilation = geometry
    pairs = [v if isinstance(v, tuple) else (v, v) for v in (stride, padding, dilation)]
    taps = kernel[0] * kernel[1]
    out = output_size((height, width), kernel, *pairs)
    out_channels = channels if depthwise else channels + 2
    generator = torch.Generator().manual_seed(sum(map(hash, geometry)) % 1000)

    def random(*shape):
        return torch.randn(shape, generator=generator, dtype=torch.float64).to(device, dtype)

    tensors = dict(
        x=random(batch, channels, height, width),
        weight=random(out_channels, 1 if depthwise else channels, *kernel),
        bias=random(out_channels),
        sampling_offset=random(batch, 2 * taps, *out) * spread,
        weight_offset=random(batch, *((channels, 1) if depthwise else (1, channels)), *kernel),
        mask=random(batch, taps, *out).sigmoid(),
    )
    return tensors, dict(stride=stride, padding=padding, dilation=dilation)


def by_torchvision(x, weight, bias, sampling_offset, weight_offset, mask, **geometry):
    return torch.cat(
        [
            deform_conv2d(x[i : i + 1], sampling_offset[i : i + 1], weight + weight_offset[i], bias,
                          mask=mask[i : i + 1], **geometry)
            for i in range(len(x))
        ]
    )  # fmt: skip


def relative_error(value, expected):
    return (value - expected).norm() / expected.norm().clamp(min=1e-12)
