"""Triton's interpreter, made to run all kernels and to take less time."""

import contextlib
import functools
import math
import os
import sys
from collections.abc import Iterator
from types import SimpleNamespace

import pytest

import mmctx.ops.triton as kernels
from mmctx.compat.triton_interpreter import fix_interpreter


@contextlib.contextmanager
def interpreting() -> Iterator[pytest.MonkeyPatch]:
    """Interpret the kernels whenever they run; yields what undoes it."""
    import triton.language as tl
    from triton.runtime import interpreter
    from triton.runtime.jit import JITFunction

    # Functions are interpreted or not from their definition on. All are defined now, and replaced.
    kernels.import_kernels()
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(os.environ, 'TRITON_INTERPRET', '1')
        fix_interpreter()
        imported = [m for name, m in sys.modules.items() if name.startswith(kernels.__name__)]
        for module in (tl, tl.standard, *imported):
            for name, function in vars(module).copy().items():
                if isinstance(function, JITFunction):
                    interpreted = interpreter.InterpretedFunction(
                        function.fn,
                        do_not_specialize_on_alignment=[*unaligned_parameters(function)],
                    )
                    patch.setattr(module, name, interpreted)
        _save_time(patch)
        # Triton's language is prepared once instead of in each function.
        prepared = interpreter._patch_lang(SimpleNamespace(__globals__=dict(tl=tl, core=tl.core)))
        patch.setattr(interpreter, '_patch_lang', lambda function: interpreter._LangPatchScope())
        try:
            yield patch
        finally:
            prepared.restore()


def unaligned_parameters(kernel) -> set[str]:
    """Names of a kernel's pointers whose addresses need not be divisible by 16."""
    if hasattr(kernel, 'params'):
        return {p.name for p in kernel.params if p.do_not_specialize_on_alignment}
    return set(kernel.kwargs['do_not_specialize_on_alignment'] or ())


def _save_time(patch):
    """Do once what the interpreter does at each step of a kernel."""
    from triton.language import core
    from triton.runtime import interpreter

    blocks: dict = {}
    numpy_types: dict = {}

    def call(function, *args, **kwargs):
        return function.rewrite()(*args, **kwargs)

    @functools.cache
    def constant(shape):
        return core.tuple([core.constexpr(s) for s in shape]), core.constexpr(math.prod(shape))

    def initialize_tensor(tensor, handle, type_):
        tensor.handle, tensor.type, tensor.dtype = handle, type_, type_.scalar
        tensor.shape, tensor.numel = constant(type_.shape if type_.is_block() else ())

    def initialize_block_once(made, element, shape):
        key = element.name, tuple([getattr(size, 'value', size) for size in shape])
        if key not in blocks:
            initialize_block(made, element, shape)
            blocks[key] = vars(made).copy()
        vars(made).update(blocks[key])

    def have_same_values(shape, other):
        return core.constexpr(shape.values == getattr(other, 'values', other))

    def find_numpy_type_once(type_):
        if type_.name not in numpy_types:
            numpy_types[type_.name] = find_numpy_type(type_)
        return numpy_types[type_.name]

    initialize_block, find_numpy_type = core.block_type.__init__, interpreter._get_np_dtype
    patch.setattr(interpreter.InterpretedFunction, '__call__', call)
    patch.setattr(core.tuple, '__eq__', have_same_values)
    patch.setattr(core.tensor, '__init__', initialize_tensor)
    patch.setattr(core.block_type, '__init__', initialize_block_once)
    patch.setattr(interpreter, '_get_np_dtype', find_numpy_type_once)
    # No size of the tests is near where integers overflow.
    patch.setattr(
        interpreter.interpreter_builder, 'options',
        interpreter.InterpreterOptions(sanitize_overflow=False),
    )  # fmt: skip
