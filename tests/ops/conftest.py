"""Triton kernels on any machine: on a GPU where there is one, else in two ways on the CPU.

Triton's interpreter runs them as they are written, with every access to memory checked; what Triton
compiles of them for a GPU is run by `ptx`.
"""

import contextlib
import sys
import zlib

import pytest
import torch
from interpreting import interpreting, unaligned_parameters
from memory_checks import check_memory

from mmctx.ops import triton as kernels
from mmctx.ops.contextual_conv import BACKEND_VARIABLE

# Of each launch, as long as launches are cached, by type.
_first_pointers: dict = {}
# An H100, and with more time an A100 and an RTX 5090.
LATER = [pytest.param(way, marks=pytest.mark.slow) for way in ('sm_80', 'sm_120')]
WAYS = ['gpu'] if torch.cuda.is_available() else ['interpreter', 'sm_90', *LATER]


def forget_launches():
    """Forget launches of the kernels as they have run so far."""
    for name, module in list(sys.modules.items()):
        if name.startswith(kernels.__name__):
            for function in vars(module).values():
                if hasattr(function, 'cache_clear'):
                    function.cache_clear()
    _first_pointers.clear()


@contextlib.contextmanager
def launched_in(way):
    """Let launches run the kernels in one of the ways."""
    if way == 'interpreter':
        with interpreting() as patch:
            check_memory(patch)
            forget_launches()
            yield
    elif way != 'gpu':
        from running_ptx import run_compiled

        with pytest.MonkeyPatch.context() as patch:
            run_compiled(patch, int(way.removeprefix('sm_')))
            forget_launches()
            yield
    else:
        yield
    forget_launches()


@pytest.fixture(scope='module')
def interpreted():
    """For modules that test what the interpreter does."""
    with launched_in('interpreter'):
        yield


@pytest.fixture(scope='module', params=WAYS)
def way(request):
    """For modules that run kernels, each test in every way, which this returns."""
    with launched_in(request.param):
        yield request.param


@pytest.fixture
def through_kernels(monkeypatch):
    """Layers, stages and losses run in kernels wherever these compute them."""
    monkeypatch.setenv(BACKEND_VARIABLE, 'triton')


@pytest.fixture(autouse=True)
def same_numbers_on_every_device(request, monkeypatch):
    """Draw each test's numbers on the CPU, from a seed of its own, in each way the same.

    Rounding decides near a tie, or where a sample is close to a pixel. A GPU would draw other
    numbers from the same seed, some of which are.
    """
    name = request.node.name
    if 'way' in request.fixturenames:
        name = name.replace(f'[{request.getfixturevalue("way")}', '[', 1)
    torch.manual_seed(zlib.crc32(name.encode()))

    def draw_on_cpu(draw):
        def drawn(*args, device=None, requires_grad=False, **kwargs):
            return draw(*args, **kwargs).to(device).requires_grad_(requires_grad)

        return drawn

    for name in ('rand', 'randn', 'randint', 'randperm'):
        monkeypatch.setattr(torch, name, draw_on_cpu(getattr(torch, name)))
    monkeypatch.setattr(torch, 'randn_like', lambda x: torch.randn(x.shape, dtype=x.dtype).to(x))


@pytest.fixture(autouse=True)
def launches_repeat_alike(monkeypatch):
    """Fail where a launch gets other pointers than the first time, or could get unaligned ones.

    On a GPU it would run the kernel that was compiled for the first ones.
    """
    pytest.importorskip('triton')
    from mmctx.ops.triton.launching import Launch

    run = Launch.__call__

    def checked(launch, stream, *pointers):
        types = [None if p is None else p.dtype for p in pointers]
        kernel = launch.kernel
        assert types == _first_pointers.setdefault(launch, types), kernel.fn.__name__
        unaligned = {
            name
            for name, p in zip(kernel.arg_names, pointers, strict=False)
            if p is not None and p.data_ptr() % 16
        }
        wrong = unaligned - unaligned_parameters(kernel)
        assert not wrong, f'{kernel.fn.__name__} reads 16 bytes at a time from {wrong}'
        return run(launch, stream, *pointers)

    monkeypatch.setattr(Launch, '__call__', checked)


@pytest.fixture(autouse=True)
def poisoned(monkeypatch):
    """Fill memory that is allocated but not set, for what kernels fail to write before it is read.

    Its numbers are NaN, its integers -1.
    """
    from mmctx.ops.triton.operator import needs_operators

    def poison(owner, name):
        allocate = getattr(owner, name)

        def allocate_poison(*args, **kwargs):
            out = allocate(*args, **kwargs)
            if not (needs_operators(out) or out.is_meta) and out.numel():
                out.untyped_storage().fill_(255)
            return out

        monkeypatch.setattr(owner, name, allocate_poison)

    poison(torch, 'empty')
    poison(torch, 'empty_like')
    poison(torch, 'empty_strided')
    poison(torch.Tensor, 'new_empty')
