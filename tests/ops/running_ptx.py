"""Kernels as Triton compiles them for a GPU, run on a CPU in place of launching them."""

import os
import struct

import torch
from compiling import Compiler
from ptx import run_programs
from triton.runtime.jit import JITFunction

from mmctx.ops.triton import import_kernels


def run_compiled(patch, capability: int) -> None:
    """Compile the kernels and run their PTX on tensors of the CPU, whenever they are launched.

    Args:
        patch (MonkeyPatch): Undoes it.
        capability (int): Compute capability of the GPU without its dot.
    """
    # A kernel that is defined once the interpreter is on cannot be compiled.
    import_kernels()
    compiler, compiled = Compiler(capability), {}

    def run(kernel, *args, grid, warmup, **kwargs):
        variant = compiler.bind(kernel, args, kwargs)
        if variant.key not in compiled:
            signature = compiler.source(variant)[0].signature
            names = [name for name, type_ in signature.items() if type_ != 'constexpr']
            compiled[variant.key] = compiler.ptx(variant), names
        ptx, names = compiled[variant.key]
        values = [variant.bound[name] for name in names]
        tensors = [value for value in values if isinstance(value, torch.Tensor)]
        # Triton adds two addresses, which these kernels do not use.
        run_programs(ptx, tensors, [*map(_bits, values), 0, 0], grid[0])

    patch.setattr(JITFunction, 'run', run)
    # The package takes tensors of the CPU then.
    patch.setitem(os.environ, 'TRITON_INTERPRET', '1')


def _bits(value):
    """Bits of an argument as an integer."""
    if isinstance(value, torch.Tensor):
        return value.data_ptr()
    if isinstance(value, float):
        return struct.unpack('<I', struct.pack('<f', value))[0]
    return value
