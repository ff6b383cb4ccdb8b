"""Kernels as Triton compiles them for a GPU, run on a CPU in place of launching them."""

import os
import struct

import torch
import triton
from compiling import Compiler
from ptx import run_programs
from triton.runtime.jit import JITFunction

from mmctx.ops.triton import import_kernels


class CompiledKernels:
    """Kernels that are compiled at their first call, and run on tensors of the CPU.

    Args:
        capability (int): Compute capability of the GPU without its dot.
    """

    def __init__(self, capability: int):
        self.compiler = Compiler(capability)
        self.compiled = {}

    def run(self, kernel: JITFunction, args: tuple, kwargs: dict, grid: tuple) -> None:
        """Run all programs of a call."""
        variant = self.compiler.bind(kernel, args, kwargs)
        if variant.key not in self.compiled:
            signature = self.compiler.source(variant)[0].signature
            names = [name for name, type_ in signature.items() if type_ != 'constexpr']
            self.compiled[variant.key] = self.compiler.ptx(variant), names
        ptx, names = self.compiled[variant.key]
        values = [variant.bound[name] for name in names]
        tensors = [value for value in values if isinstance(value, torch.Tensor)]
        programs, *others = grid
        assert all(size == 1 for size in others)
        # Triton adds two addresses, which these kernels do not use.
        run_programs(ptx, tensors, [*map(_bits, values), 0, 0], programs)


def run_compiled(patch, capability: int) -> None:
    """Compile the kernels and run their PTX on tensors of the CPU, whenever they are launched.

    Args:
        patch (MonkeyPatch): Undoes it.
        capability (int): Compute capability of the GPU without its dot.

    Raises:
        RuntimeError: If Triton's interpreter is on, so that kernels cannot be compiled.
    """
    if triton.knobs.runtime.interpret:
        raise RuntimeError('kernels cannot be compiled: unset TRITON_INTERPRET')
    # Nor could one that is defined once it is on.
    import_kernels()
    kernels = CompiledKernels(capability)

    def run(kernel, *args, grid, warmup, **kwargs):
        kernels.run(kernel, args, kwargs, grid)

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
