"""Compiles what the predictors would launch on a GPU that need not be there.

Run in a process of its own: `python offline_predictors.py CAPABILITY DTYPE`; JSON.
"""

import json
import sys

import torch
from offline_kernels import Recorder
from triton.runtime.jit import JITFunction

from mmctx.ops.triton.norm_relu import norm_relu_backward, norm_relu_forward
from mmctx.ops.triton.static_conv import static_conv_backward, static_conv_forward

# Hidden channels and predicted ones, groups, side of the kernel: of the shipped presets.
LAST_LAYERS = [(98, 98, 98, 7), (147, 147, 147, 7), (32, 18, 1, 3), (128, 27, 1, 3), (6, 147, 1, 7)]


def run(dtype: torch.dtype):
    """Forward and backward of every step, with and without what may be absent."""
    for channels, out_channels, groups, side in LAST_LAYERS:
        rows = torch.zeros(2, 9, 7, channels, dtype=dtype)
        vector = torch.zeros(channels)
        pixels, shares = rows.flatten(1, 2), torch.zeros(2, channels)
        norm_relu_forward(pixels, shares, vector, vector, 1e-6)
        norm_relu_backward(pixels, pixels, shares, vector, vector, 1e-6)
        for stride in (1, 2):
            geometry = (stride, stride), (side // 2, side // 2), (1, 1)
            weight = torch.zeros(out_channels, channels // groups, side, side)
            for bias in (None, torch.zeros(out_channels)):
                out = static_conv_forward(rows, weight, bias, geometry)
                if groups > 1:
                    static_conv_backward(out, rows, weight, bias is not None, geometry)


def main():
    recorder = Recorder(int(sys.argv[1]))
    JITFunction.run = lambda kernel, *args, grid, warmup, **options: recorder.bind(
        kernel, dict(zip(kernel.arg_names, args), **options)
    )
    dtype = getattr(torch, sys.argv[2])
    run(dtype)
    torch.backends.cudnn.allow_tf32 = False
    run(dtype)
    report = {}
    for number, variant in enumerate(recorder.variants.values()):
        kernel, arguments, *_ = variant
        figures = ('CHANNELS', 'KERNEL_WIDTH', 'STRIDE_X')
        detail = ' '.join(str(arguments[figure]) for figure in figures if figure in arguments)
        report[f'{number} {kernel.__name__} {detail}'] = recorder.compile(*variant)
    print(json.dumps(report))


if __name__ == '__main__':
    main()
