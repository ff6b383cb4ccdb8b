"""Faults of Triton's interpreter (TRITON_INTERPRET=1, Triton 3.6 and before).

* It holds scalars as arrays of one element and asks for an int wherever a kernel loops over a range
  that is not constant; from numpy 2.4 on these do not turn into one: `TypeError: only 0-dimensional
  arrays can be converted to Python scalars`.
* It holds bfloat16 as 16-bit integers, and adds and multiplies these, in `tl.dot` too.

Nothing is changed without TRITON_INTERPRET=1 or if Triton has mended it.
"""

import numpy as np


def fix_interpreter() -> None:
    """Let tensors of the interpreter serve as an index again, and compute with bfloat16."""
    import triton

    if not triton.knobs.runtime.interpret:
        return
    from triton.runtime import interpreter

    if not _one_element_is_a_scalar():
        _fix_index(interpreter)
    _fix_bfloat16(interpreter)


def _fix_index(interpreter) -> None:
    if getattr(interpreter._patch_lang_tensor, 'mended', False):
        return
    patch = interpreter._patch_lang_tensor

    def patch_and_fix(tensor, *scope):
        patch(tensor, *scope)
        # Triton 3.4 leaves its changes in place, and knows no scope that undoes them.
        set_attr = scope[0].set_attr if scope else setattr
        set_attr(tensor, '__index__', lambda self: self.handle.data.item())

    patch_and_fix.mended = True  # type: ignore[attr-defined]
    interpreter._patch_lang_tensor = patch_and_fix


def _one_element_is_a_scalar() -> bool:
    try:
        return int(np.zeros(1, int)) == 0
    except TypeError:
        return False


def _fix_bfloat16(interpreter) -> None:
    import triton.language as tl

    builder = interpreter.InterpreterBuilder
    if getattr(builder.create_dot, 'mended', False):
        return
    multiply, compute = builder.create_dot, builder.binary_op
    arithmetic = np.add, np.subtract, np.multiply, np.divide

    def is_bfloat16(handle):
        return handle.dtype.scalar == tl.bfloat16 and handle.data.dtype == np.uint16

    def widened(handle):
        if not is_bfloat16(handle):
            return handle
        data = (handle.data.astype(np.uint32) << 16).view(np.float32)
        return interpreter.TensorHandle(data, tl.float32)

    def narrowed(handle):
        # Rounds to the nearest value, and in a tie to the even one.
        bits = handle.data.view(np.uint32)
        data = ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype(np.uint16)
        data = np.where(np.isnan(handle.data), np.uint16(0x7FC0), data)
        return interpreter.TensorHandle(data, tl.bfloat16)

    def create_dot(self, a, b, d, *options):
        return multiply(self, widened(a), widened(b), d, *options)

    def binary_op(self, lhs, rhs, op):
        if op in arithmetic and is_bfloat16(lhs) and is_bfloat16(rhs):
            return narrowed(compute(self, widened(lhs), widened(rhs), op))
        return compute(self, lhs, rhs, op)

    create_dot.mended = True  # type: ignore[attr-defined]
    builder.create_dot, builder.binary_op = create_dot, binary_op
