"""Triton kernels on any machine: on a GPU where there is one, else in Triton's interpreter."""

import zlib

import pytest
import torch
from interpreting import interpret, unaligned_parameters
from memory_checks import check_memory

from mmctx.ops.contextual_conv import BACKEND_VARIABLE

# Of each launch, as long as launches are cached, by type.
_first_pointers: dict = {}


@pytest.fixture(scope='module')
def interpreted_without_a_gpu():
    """For modules that run kernels."""
    if torch.cuda.is_available():
        yield
        return
    with pytest.MonkeyPatch.context() as patch:
        interpret(patch)
        check_memory(patch)
        yield


@pytest.fixture
def through_kernels(monkeypatch):
    """Layers, stages and losses run in kernels wherever these compute them."""
    monkeypatch.setenv(BACKEND_VARIABLE, 'triton')


@pytest.fixture(autouse=True)
def same_numbers_on_every_device(request, monkeypatch):
    """Draw each test's numbers on the CPU, from a seed of its own.

    Rounding decides near a tie, or where a sample is close to a pixel. A GPU would draw other
    numbers from the same seed, some of which are.
    """
    torch.manual_seed(zlib.crc32(request.node.name.encode()))

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
