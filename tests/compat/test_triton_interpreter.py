"""Remedies of Triton's interpreter, with stand-ins for its versions."""

from types import SimpleNamespace

import numpy as np
import pytest

from mmctx.compat.triton_interpreter import _fix_index


class Scope:
    """What Triton 3.6 notes its changes in."""

    def __init__(self):
        self.changed = []

    def set_attr(self, of, name, value):
        self.changed.append(name)
        setattr(of, name, value)


@pytest.mark.parametrize('scope', [[], [Scope()]], ids=['Triton 3.4', 'Triton 3.6'])
def test_a_tensor_of_one_element_is_an_index(scope):
    class Tensor:
        handle = SimpleNamespace(data=np.array([2]))

    patched = []
    interpreter = SimpleNamespace(_patch_lang_tensor=lambda *args: patched.append(args))
    _fix_index(interpreter)
    _fix_index(interpreter)
    interpreter._patch_lang_tensor(Tensor, *scope)
    assert patched == [(Tensor, *scope)]
    assert 'abc'[Tensor()] == 'c'
    assert all(noted.changed == ['__index__'] for noted in scope)
