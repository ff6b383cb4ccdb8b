"""Faults of Triton's interpreter (TRITON_INTERPRET=1, Triton 3.6 and before).

* It holds scalars as arrays of one element and asks for an int wherever a kernel loops over a range
  that is not constant; from numpy 2.4 on these do not turn into one: `TypeError: only 0-dimensional
  arrays can be converted to Python scalars`.
* It holds bfloat16 as 16-bit integers, and `tl.dot` multiplies these.

Nothing happens without TRITON_INTERPRET=1 or where it is mended.
"""

import numpy as np


def mend_interpreter() -> None:
    """Let tensors of the interpreter serve as an index again, and multiply bfloat16 matrices."""
    import triton

    if not triton.knobs.runtime.interpret:
        return
    from triton.runtime import interpreter

    if not _one_element_is_a_scalar():
        _mend_index(interpreter)
    _mend_products(interpreter)


def _mend_index(interpreter) -> None:
    if getattr(interpreter._patch_lang_tensor, 'mended', False):
        return
    patch = interpreter._patch_lang_tensor

    def patch_and_mend(tensor, scope):
        patch(tensor, scope)
        scope.set_attr(tensor, '__index__', lambda self: self.handle.data.item())

    patch_and_mend.mended = True
    interpreter._patch_lang_tensor = patch_and_mend


def _one_element_is_a_scalar() -> bool:
    try:
        return int(np.zeros(1, int)) == 0
    except TypeError:
        return False


def _mend_products(interpreter) -> None:
    import triton.language as tl

    builder = interpreter.InterpreterBuilder
    if getattr(builder.create_dot, 'mended', False):
        return
    multiply = builder.create_dot

    def widened(handle):
        if handle.dtype.scalar != tl.bfloat16 or handle.data.dtype != np.uint16:
            return handle
        data = (handle.data.astype(np.uint32) << 16).view(np.float32)
        return interpreter.TensorHandle(data, tl.float32)

    def create_dot(self, a, b, d, *options):
        return multiply(self, widened(a), widened(b), d, *options)

    create_dot.mended = True
    builder.create_dot = create_dot
