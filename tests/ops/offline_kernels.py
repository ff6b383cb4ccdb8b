"""Binds and compiles what the Triton back end would launch, for a GPU that need not be there.

Run in a process of its own, as Triton's interpreter replaces the kernels where it is on:
`python offline_kernels.py sizes` or `python offline_kernels.py compile CAPABILITY DTYPE`; JSON.
"""

import json
import re
import subprocess
import sys
import tempfile
from pathlib import Path

import torch
import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource, make_backend
from triton.runtime.jit import JITFunction, create_function_from_signature

from mmctx.ops.sampling import output_size
from mmctx.ops.triton import settings
from mmctx.ops.triton.backward import backward
from mmctx.ops.triton.forward import forward
from mmctx.ops.triton.launch import Problem
from mmctx.ops.triton.operator import ARGUMENTS

CUOBJDUMP = Path(triton.__file__).parent / 'backends' / 'nvidia' / 'bin' / 'cuobjdump'


class Recorder:
    """Takes the place of launching: keeps the variant that Triton would compile for each call."""

    def __init__(self, capability: int):
        self.target = GPUTarget('cuda', capability, 32)
        self.backend = make_backend(self.target)
        self.variants = {}
        JITFunction.run = lambda kernel, *args, grid, warmup, **kwargs: self.bind(kernel, kwargs)

    def bind(self, kernel, kwargs):
        binder = create_function_from_signature(kernel.signature, kernel.params, self.backend)
        bound, specialization, options = binder(debug=False, **kwargs)
        key = kernel.__name__, str(specialization), str(options)
        self.variants[key] = kernel, kwargs, bound, specialization, options

    def compile(self, kernel, kwargs, bound, specialization, options):
        options, signature, constexprs, attributes = kernel._pack_args(
            self.backend, kwargs, bound, specialization, options
        )
        source = ASTSource(kernel, signature, constexprs, attributes)
        compiled = triton.compile(source, target=self.target, options=options.__dict__)
        with tempfile.NamedTemporaryFile(suffix='.cubin') as cubin:
            cubin.write(compiled.asm['cubin'])
            cubin.flush()
            usage = subprocess.run(
                [CUOBJDUMP, '--dump-resource-usage', cubin.name], capture_output=True, text=True
            ).stdout
        loads = re.findall(r'ld\.global(?:\.v(\d))?\.b(\d+)', compiled.asm['ptx'])
        return dict(
            registers=int(re.search(r'REG:(\d+)', usage)[1]),
            spilled=int(re.search(r'STACK:(\d+)', usage)[1]),
            widest_load=max(int(count or 1) * int(bits) // 8 for count, bits in loads),
        )


def run(shape, channels, depthwise, dtype, stride=1):
    """Forward and backward of one case, with everything that a call can have."""
    batch, height, width = shape
    side, padding = (7, 3) if depthwise else (3, 1)
    taps, pair = side * side, (stride, stride)
    out = output_size((height, width), (side, side), pair, (padding, padding), (1, 1))
    grid = torch.zeros(batch, 3 * taps, *out)
    weight = torch.zeros(channels, 1 if depthwise else channels, side, side)
    delta = torch.zeros(batch, *((channels, 1) if depthwise else (1, channels)), side, side)
    offset, mask = grid.split([2 * taps, taps], 1)
    problem = Problem(
        torch.zeros(batch, channels, height, width, dtype=dtype), weight, offset, delta, mask,
        pair, (padding, padding), (1, 1), True,
    )  # fmt: skip
    grad = forward(problem, torch.zeros(channels))
    for method in settings.INPUT_GRADIENTS:
        with settings.override(input_gradient=method):
            backward(problem, grad, dict.fromkeys(ARGUMENTS, True))


def main():
    mode, *rest = sys.argv[1:]
    recorder = Recorder(int(rest[0]) if rest else 90)
    report = {}
    if mode == 'sizes':
        for shape in [(1, 1, 1), (1, 7, 7), (2, 16, 16), (3, 25, 42), (2, 32, 17), (16, 5, 48)]:
            for stride in (1, 2):
                run(shape, 64, True, torch.float16, stride)
                run(shape, 64, False, torch.float16, stride)
        for name, *_ in recorder.variants:
            report[name] = report.get(name, 0) + 1
    else:
        for depthwise in (True, False):
            run((2, 9, 7), 192 if depthwise else 256, depthwise, getattr(torch, rest[1]))
        for number, variant in enumerate(recorder.variants.values()):
            name = variant[0].__name__
            part = 'depthwise' if variant[1].get('TAPS') == 49 else 'dense'
            report[f'{number} {name} {part}'] = recorder.compile(*variant)
    print(json.dumps(report))


if __name__ == '__main__':
    main()
