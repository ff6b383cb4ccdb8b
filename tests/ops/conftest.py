"""Triton kernels on any machine: on a GPU where there is one, else in Triton's interpreter."""

import os
import sys

import pytest
import torch

import mmctx.ops.triton as kernels
from mmctx.compat.triton_interpreter import fix_interpreter

# Of each launch, as long as launches are cached, by type.
_first_pointers: dict = {}


@pytest.fixture(scope='module')
def interpreted_without_a_gpu():
    """For modules that run kernels."""
    if torch.cuda.is_available():
        yield
        return
    import triton.language as tl
    from triton.runtime.interpreter import InterpretedFunction, _patch_lang
    from triton.runtime.jit import JITFunction

    prepared = set()

    def call(function, *args, **kwargs):
        if function.fn.__module__ not in prepared:
            prepared.add(function.fn.__module__)
            _patch_lang(function.fn)
        return function.rewrite()(*args, **kwargs)

    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(os.environ, 'TRITON_INTERPRET', '1')
        fix_interpreter()
        # Functions become interpreted when they are defined. Triton's own were by now, and so are
        # our kernels if another test imported them.
        imported = [m for name, m in sys.modules.items() if name.startswith(kernels.__name__)]
        for module in (tl, tl.standard, *imported):
            for name, function in vars(module).copy().items():
                if isinstance(function, JITFunction):
                    patch.setattr(module, name, InterpretedFunction(function.fn))
        # The interpreter prepares Triton's language anew whenever a kernel calls a helper, four
        # fifths of the time, where once for each module is enough.
        patch.setattr(InterpretedFunction, '__call__', call)
        yield


@pytest.fixture(autouse=True)
def launches_repeat_alike(monkeypatch):
    """Fail where a launch gets other pointers than the first time.

    On a GPU it would run the kernel that was compiled for the first ones.
    """
    pytest.importorskip('triton')
    from mmctx.ops.triton.launching import Launch

    run = Launch.__call__

    def checked(launch, stream, *pointers):
        types = [None if p is None else p.dtype for p in pointers]
        assert types == _first_pointers.setdefault(launch, types), launch.kernel.__name__
        return run(launch, stream, *pointers)

    monkeypatch.setattr(Launch, '__call__', checked)


@pytest.fixture
def poisoned(monkeypatch):
    """Fill memory that is allocated but not set with NaN, for what the kernels fail to write."""

    def poison(owner, name):
        allocate = getattr(owner, name)

        def allocate_nan(*args, **kwargs):
            out = allocate(*args, **kwargs)
            return out.fill_(float('nan')) if out.is_floating_point() else out

        monkeypatch.setattr(owner, name, allocate_nan)

    poison(torch, 'empty')
    poison(torch, 'empty_like')
    poison(torch, 'empty_strided')
    poison(torch.Tensor, 'new_empty')
