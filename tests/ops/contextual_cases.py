"""Random contextual convolutions, and torchvision's answer to them."""

import torch
from torchvision.ops import deform_conv2d

from mmctx.ops import contextual_conv2d
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


def offset_to_one_pixel(like):
    """Δp of a 3×3 kernel, [1, 18, H, W], by which all samples are of the pixel (4, 4)."""
    rows, columns = (torch.arange(size) for size in like.shape[-2:])
    grid = torch.stack(torch.meshgrid(rows, columns, indexing='ij'))
    taps = torch.stack(torch.meshgrid(torch.arange(3), torch.arange(3), indexing='ij'), -1) - 1
    position = grid + taps.reshape(1, 9, 2, 1, 1)
    return (4 - position).flatten(1, 2).to(like).contiguous()


def with_gradients(tensors, options, cotangent=None, **extra):
    """Output and gradients by name; a fixed cotangent so that calls compare."""
    leaves = {
        k: v if v is None else v.detach().requires_grad_(v.requires_grad)
        for k, v in tensors.items()
    }
    out = contextual_conv2d(**leaves, **options, **extra)
    wanted = [k for k, v in leaves.items() if v is not None and v.requires_grad]
    if cotangent is None:
        cotangent = torch.linspace(-1, 2, out.numel(), device=out.device).view_as(out)
    grads = torch.autograd.grad(out, [leaves[k] for k in wanted], cotangent.to(out.dtype))
    return {'out': out.detach(), **dict(zip(wanted, grads))}
