"""Kernels that the interpreter runs without complaint and a GPU does not."""

import pytest
import torch

pytest.importorskip('triton')
import triton.language as tl
from triton.runtime.interpreter import InterpretedFunction

pytestmark = pytest.mark.skipif(torch.cuda.is_available(), reason='checks the interpreter')


@pytest.fixture
def run(monkeypatch, interpreted):
    def run(kernel, programs, *arguments):
        InterpretedFunction(kernel)[(programs,)](*arguments)

    return run


def copy(to, source, count, BLOCK: tl.constexpr):
    at = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    tl.store(to + at, tl.load(source + at, at < count, 0), at < count)


def test_kernels_without_faults_pass(run):
    source, to = torch.randn(10), torch.empty(10)
    run(copy, 3, to, source, 10, 4)
    assert torch.equal(to, source)


@pytest.mark.parametrize('which', ['to', 'source'])
def test_address_beyond_a_tensor(run, which):
    """Though there is memory: the tensor is part of a larger one."""
    sizes = dict(to=12, source=12)
    sizes[which] = 10
    to, source = torch.zeros(16)[: sizes['to']], torch.zeros(16)[: sizes['source']]
    with pytest.raises(AssertionError, match=r'copy: .*2 of 4 addresses are in no tensor'):
        run(copy, 3, to, source, 12, 4)


def test_value_that_a_mask_leaves_out(run):
    """It is undefined; zero only in the interpreter."""

    def total(to, source, BLOCK: tl.constexpr):
        at = tl.arange(0, BLOCK)
        tl.store(to, tl.sum(tl.load(source + at, at < 3), 0))

    to = torch.zeros(1)
    run(total, 1, to, torch.ones(3), 4)
    assert to.isnan()


def shift(to, source, BLOCK: tl.constexpr):
    at = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    tl.store(to + at, tl.load(source + at))


@pytest.mark.parametrize(
    'start, fault', [(4, 'reads what another program writes'), (-4, 'writes what another program')]
)
def test_programs_in_no_order(run, start, fault):
    """A program reads what another one writes, before or after it."""
    memory = torch.zeros(20)
    with pytest.raises(AssertionError, match=fault):
        run(shift, 3, memory[4 + start :][:12], memory[4:16], 4)


def test_programs_that_write_the_same(run):
    def write(to):
        tl.store(to, tl.program_id(0))

    with pytest.raises(AssertionError, match='writes what another program writes'):
        run(write, 2, torch.zeros(1))


def test_threads_that_write_different_values(run):
    def write(to, BLOCK: tl.constexpr):
        at = tl.arange(0, BLOCK)
        tl.store(to + at // 2, at)

    def write_the_same(to, BLOCK: tl.constexpr):
        at = tl.arange(0, BLOCK)
        tl.store(to + at // 2, at // 2)

    run(write_the_same, 1, torch.zeros(2), 4)
    with pytest.raises(AssertionError, match='writes different values to one element'):
        run(write, 1, torch.zeros(2), 4)


@pytest.mark.parametrize('barrier', [False, True])
def test_threads_that_read_what_others_wrote(run, barrier):
    def turn(memory, to, BARRIER: tl.constexpr, BLOCK: tl.constexpr):
        at = tl.arange(0, BLOCK)
        tl.store(memory + at, at)
        if BARRIER:
            tl.debug_barrier()
        tl.store(to + at, tl.load(memory + BLOCK - 1 - at))

    memory, to = torch.zeros(4), torch.zeros(4)
    if barrier:
        run(turn, 1, memory, to, True, 4)
        assert to.tolist() == [3, 2, 1, 0]
    else:
        with pytest.raises(AssertionError, match='since the last barrier'):
            run(turn, 1, memory, to, False, 4)


@pytest.mark.parametrize('barrier', [False, True])
def test_threads_that_write_what_others_read(run, barrier):
    def move(memory, BARRIER: tl.constexpr, BLOCK: tl.constexpr):
        at = tl.arange(0, BLOCK)
        x = tl.load(memory + at)
        if BARRIER:
            tl.debug_barrier()
        tl.store(memory + BLOCK - 1 - at, x)

    memory = torch.arange(4.0)
    if barrier:
        run(move, 1, memory, True, 4)
        assert memory.tolist() == [3, 2, 1, 0]
    else:
        with pytest.raises(AssertionError, match='no barrier between'):
            run(move, 1, memory, False, 4)


def test_sums_that_are_read_without_a_barrier(run):
    def add(total, to):
        tl.atomic_add(total, 1)
        tl.store(to, tl.load(total))

    with pytest.raises(AssertionError, match='since the last barrier'):
        run(add, 1, torch.zeros(1), torch.zeros(1))


@pytest.mark.parametrize('read', [False, True])
def test_sums_that_are_read_too_early(run, read):
    def add(total, to, READ: tl.constexpr):
        tl.atomic_add(total, 1)
        if READ:
            tl.debug_barrier()
            tl.store(to + tl.program_id(0), tl.load(total))

    total, to = torch.zeros(1), torch.zeros(3)
    if read:
        with pytest.raises(AssertionError, match='another program'):
            run(add, 3, total, to, True)
    else:
        run(add, 3, total, to, False)
        assert total.item() == 3
