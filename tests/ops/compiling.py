"""Kernels as Triton compiles them for a GPU that need not be there."""

import functools
from typing import NamedTuple

import triton
from ptx import PTX
from triton._C.libtriton import ir
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource, make_backend
from triton.runtime.jit import JITFunction, create_function_from_signature


class Variant(NamedTuple):
    """What Triton would compile for a launch: arguments, and what it takes for constant of them."""

    kernel: JITFunction
    kwargs: dict
    bound: dict
    specialization: list
    options: dict

    @property
    def key(self):
        """The same for all launches that run the same machine code."""
        return self.kernel.__name__, str(self.specialization), str(self.options)


class Compiler:
    """Triton's compiler for a GPU of one capability.

    Args:
        capability (int): Compute capability without its dot, such as 90.
    """

    def __init__(self, capability: int):
        self.target = GPUTarget('cuda', capability, 32)
        self.backend = make_backend(self.target)
        self.binder = functools.cache(
            lambda kernel: create_function_from_signature(
                kernel.signature, kernel.params, self.backend
            )
        )

    def bind(self, kernel: JITFunction, args: tuple, kwargs: dict) -> Variant:
        """The variant of a kernel that a call would launch."""
        return Variant(kernel, kwargs, *self.binder(kernel)(*args, debug=False, **kwargs))

    def source(self, variant: Variant):
        """The variant as Triton's compiler takes it, and its options."""
        kernel, kwargs, bound, specialization, options = variant
        options, signature, constants, attributes = kernel._pack_args(
            self.backend, kwargs, bound, specialization, options
        )
        return ASTSource(kernel, signature, constants, attributes), options

    def represent(self, variant: Variant):
        """Take a variant as far as Triton's own representation; a module, its source, options."""
        source, options = self.source(variant)
        context = ir.context()
        ir.load_dialects(context)
        self.backend.load_dialects(context)
        codegen = self.backend.get_codegen_implementation(options)
        modules = self.backend.get_module_map()
        module = source.make_ir(self.target, options, codegen, modules, context)
        return module, source, options

    def ptx(self, variant: Variant) -> PTX:
        """Take a variant as far as PTX."""
        module, source, options = self.represent(variant)
        stages, metadata = {}, dict(options.__dict__, target=self.target)
        self.backend.add_stages(stages, options, source.language)
        for name, stage in stages.items():
            if name != 'cubin':
                module = stage(module, metadata)
        return PTX(module, metadata['shared'])

    def machine_code(self, variant: Variant):
        """Compile a variant to the end, as a launch does."""
        source, options = self.source(variant)
        return triton.compile(source, target=self.target, options=options.__dict__)
