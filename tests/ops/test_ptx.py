"""The machine that runs PTX, against NumPy and PyTorch; and that it finds what a GPU punishes."""

import re

import numpy as np
import pytest
import torch

pytest.importorskip('triton')
import triton
import triton.language as tl
from compiling import Compiler
from ptx import PTX, Unknown, WrongAddress, run_programs
from ptx.warps import PartOfAGroup
from running_ptx import CompiledKernels

CAPABILITIES = 80, 90, 120


def launch(kernel, programs, *arguments, capability=90):
    CompiledKernels(capability).run(kernel, arguments, {}, (programs,))


@triton.jit
def copy_kernel(to, source, count, BLOCK: tl.constexpr):
    at = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    tl.store(to + at, tl.load(source + at, at < count, 0), at < count)


@pytest.mark.parametrize('count', [3, 1000, 4096 + 16])
@pytest.mark.parametrize('dtype', [torch.int8, torch.float16, torch.float32, torch.int64])
def test_copies(count, dtype):
    source, to = torch.randint(-100, 100, (count,)).to(dtype), torch.empty(count, dtype=dtype)
    launch(copy_kernel, -(-count // 256), to, source, count, 256)
    assert torch.equal(to, source)


@pytest.mark.parametrize('which', ['to', 'source'])
def test_an_address_beyond_a_tensor(which):
    sizes = dict(to=64, source=64)
    sizes[which] = 60
    to, source = torch.zeros(96)[: sizes['to']], torch.zeros(96)[: sizes['source']]
    with pytest.raises(WrongAddress, match=r'is in no tensor: \d+ of \d+'):
        launch(copy_kernel, 1, to, source, 64, 64)


def test_an_address_that_was_taken_for_aligned():
    """A launch that repeats another one, but from an address that 16 bytes do not divide."""
    source, to = torch.randn(520), torch.empty(512)
    compiler = Compiler(90)
    kernel = compiler.ptx(compiler.bind(copy_kernel, (to, source[:512], 512, 512), {}))

    def repeat(first):
        addresses = [to.data_ptr(), source[first:].data_ptr()]
        run_programs(kernel, [to, source], [*addresses, 512, 0, 0], 1)

    for first in (0, 4):
        repeat(first)
        assert torch.equal(to, source[first : first + 512])
    with pytest.raises(WrongAddress, match='is not divisible by 16'):
        repeat(1)


@triton.jit
def product_kernel(
    out, a, b, M: tl.constexpr, N: tl.constexpr, K: tl.constexpr, DEEP: tl.constexpr,
    TURNED: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """a [M, K] · b [K, N], or bᵀ of [N, K], in steps of DEEP."""
    row, column, inner = tl.arange(0, M), tl.arange(0, N), tl.arange(0, DEEP)
    total = tl.zeros([M, N], tl.float32)
    for first in range(0, K, DEEP):
        x = tl.load(a + row[:, None] * K + first + inner[None, :])
        if TURNED:
            y = tl.trans(tl.load(b + column[:, None] * K + first + inner[None, :]))
        else:
            y = tl.load(b + (first + inner)[:, None] * N + column[None, :])
        total = tl.dot(x, y, total, input_precision=PRECISION)
    tl.store(out + row[:, None] * N + column[None, :], total)


@pytest.mark.parametrize('capability', CAPABILITIES)
@pytest.mark.parametrize('turned', [False, True])
@pytest.mark.parametrize('dtype', [torch.float16, torch.bfloat16, torch.float32])
@pytest.mark.parametrize('sizes', [(16, 16, 32), (64, 32, 64), (128, 128, 96)], ids=str)
def test_products_of_tensor_cores(sizes, dtype, turned, capability):
    """Exact for small integers, and so every element is where it should be."""
    rows, columns, depth = sizes
    a = torch.randint(-8, 9, (rows, depth)).to(dtype)
    b = torch.randint(-8, 9, (columns, depth) if turned else (depth, columns)).to(dtype)
    out = torch.empty(rows, columns)
    arguments = rows, columns, depth, 32, turned, 'tf32'
    launch(product_kernel, 1, out, a, b, *arguments, capability=capability)
    assert torch.equal(out, a.float() @ (b.T if turned else b).float())


def test_tensor_cores_read_19_bits_of_float32():
    a, b = torch.randn(64, 64), torch.eye(64)
    out = torch.empty(64, 64)
    launch(product_kernel, 1, out, a, b, 64, 64, 64, 64, False, 'tf32')
    assert 0 < (out - a).abs().max() < 2**-10 * a.abs().max()
    launch(product_kernel, 1, out, a, b, 64, 64, 64, 64, False, 'ieee')
    assert torch.equal(out, a)


@pytest.mark.parametrize('capability', CAPABILITIES)
def test_three_products_of_tf32_are_as_precise_as_float32(capability):
    """What products of vectors rely on."""
    a, b = torch.randn(64, 256), torch.randn(256, 64)
    expected, errors = a.double() @ b.double(), {}
    for precision in ('tf32', 'tf32x3', 'ieee'):
        out = torch.empty(64, 64)
        arguments = 64, 64, 256, 32, False, precision
        launch(product_kernel, 1, out, a, b, *arguments, capability=capability)
        errors[precision] = float((out - expected).norm() / expected.norm())
    assert errors['tf32x3'] < 2 * errors['ieee'] < 1e-6 < 1e-4 < errors['tf32']


@pytest.mark.parametrize('capability', CAPABILITIES)
@pytest.mark.parametrize('precision', ['tf32', 'tf32x3', 'ieee'])
def test_products_of_what_is_no_number(precision, capability):
    """Memory that nothing set holds NaN, which must not get lost."""
    a = torch.randn(64, 64)
    a[0] = torch.full((64,), -1, dtype=torch.int32).view(torch.float32)
    a[1], a[2] = torch.nan, torch.inf
    out, b = torch.empty(64, 64), torch.eye(64) / 2 + torch.ones(64, 64)
    a[3], b[:, 3] = 1e37, 0.5
    arguments = 64, 64, 64, 64, False, precision
    launch(product_kernel, 1, out, a, b, *arguments, capability=capability)
    assert out[:2].isnan().all()
    assert (out[2] == torch.inf).all()
    torch.testing.assert_close(out[3:], a[3:] @ b, rtol=1e-2, atol=1e-1)


@triton.jit
def integers_kernel(out, a, b, SIZE: tl.constexpr):
    at = tl.arange(0, SIZE)
    x, y = tl.load(a + at), tl.load(b + at)
    tl.store(out + at, x // y)
    tl.store(out + SIZE + at, x % y)
    tl.store(out + 2 * SIZE + at, x >> (y & 31))
    tl.store(out + 3 * SIZE + at, x << (y & 31))
    tl.store(out + 4 * SIZE + at, tl.umulhi(x, y))
    tl.store(out + 5 * SIZE + at, tl.cumsum(x, 0))
    tl.store(out + 6 * SIZE + at, tl.sum(x, 0) + tl.max(x, 0) + tl.min(y, 0) + 0 * x)


def test_integers():
    rng = np.random.default_rng(0)
    x, y = rng.integers(-(2**31), 2**31, (2, 256), dtype='i4')
    y[:100] = rng.integers(1, 9, 100)
    out = torch.empty(7, 256, dtype=torch.int32)
    launch(integers_kernel, 1, out, torch.from_numpy(x), torch.from_numpy(y), 256)
    quotient = np.trunc(x / y.astype('f8')).astype('i8')
    shift = y & 31
    unsigned = x.view('u4').astype('u8') * y.view('u4').astype('u8') >> np.uint64(32)
    total = np.int64(x.sum(dtype='i8')) + x.max() + y.min()
    expected = [
        quotient, x - quotient * y, x >> shift, x << shift, unsigned, x.cumsum(dtype='i4'),
        np.full(256, total),
    ]  # fmt: skip
    assert np.array_equal(out.numpy(), np.stack([v.astype('i4') for v in expected]))


@triton.jit
def floats_kernel(out, a, b, SIZE: tl.constexpr):
    at = tl.arange(0, SIZE)
    x, y = tl.load(a + at), tl.load(b + at)
    nan: tl.constexpr = tl.PropagateNan.ALL
    tl.store(out + at, tl.minimum(x, y))
    tl.store(out + SIZE + at, tl.maximum(x, y, nan))
    tl.store(out + 2 * SIZE + at, x * y + x)
    tl.store(out + 3 * SIZE + at, tl.where(x > y, x, -y))
    tl.store(out + 4 * SIZE + at, tl.floor(x.to(tl.float32)).to(out.dtype.element_ty))
    tl.store(out + 5 * SIZE + at, x.to(tl.float32).to(tl.int32).to(out.dtype.element_ty))


@pytest.mark.parametrize('capability', CAPABILITIES)
@pytest.mark.parametrize('dtype', [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_floats(dtype, capability):
    x, y = torch.randn(2, 256).mul(8).to(dtype)
    x[0], y[1] = torch.nan, torch.nan
    out = torch.empty(6, 256, dtype=dtype)
    launch(floats_kernel, 1, out, x, y, 256, capability=capability)
    expected = torch.stack(
        [
            torch.fmin(x, y), torch.maximum(x, y), (x.double() * y.double() + x.double()).to(dtype),
            torch.where(x > y, x, -y), x.floor(), x.trunc(),
        ]
    )  # fmt: skip
    expected[5, 0] = out[5, 0]  # NaN is no integer
    torch.testing.assert_close(out, expected, rtol=0, atol=0, equal_nan=True)


@triton.jit
def steps_kernel(out, counts, SIZE: tl.constexpr):
    """Programs that leave their loops after different numbers of steps."""
    program = tl.program_id(0)
    total = tl.zeros([SIZE], tl.int32)
    for step in range(tl.load(counts + program)):
        if step % 3 == program % 3:
            total += tl.cumsum(tl.arange(0, SIZE), 0)
    tl.store(out + program * SIZE + tl.arange(0, SIZE), total)


def test_programs_that_part():
    counts = torch.tensor([0, 5, 1, 9, 9, 2, 30], dtype=torch.int32)
    out = torch.empty(7, 64, dtype=torch.int32)
    launch(steps_kernel, 7, out, counts, 64)
    times = [len([s for s in range(n) if s % 3 == i % 3]) for i, n in enumerate(counts.tolist())]
    assert torch.equal(out, torch.tensor(times)[:, None] * torch.arange(64).cumsum(0))


def written(body):
    return PTX(
        '.visible .entry made_kernel(\n\t.param .u64 out\n)\n.reqntid 64\n{\n'
        '\t.reg .pred \t%p<4>;\n\t.reg .b32 \t%r<4>;\n'
        + ''.join(f'\t{line}\n' for line in body)
        + '}\n',
        shared=0,
    )  # fmt: skip


def test_a_barrier_that_some_threads_miss():
    body = [
        'mov.u32 \t%r1, %tid.x;', 'setp.lt.u32 \t%p1, %r1, 40;', '@%p1 bra \t$L__BB0_2;',
        'bar.sync \t0;', '$L__BB0_2:', 'ret;',
    ]  # fmt: skip
    with pytest.raises(PartOfAGroup, match=r'made_kernel: bar\.sync 0: not all of 64 threads'):
        run_programs(written(body), [], [0], 1)
    body[1] = 'setp.lt.u32 \t%p1, %r1, 64;'
    run_programs(written(body), [], [0], 1)


@pytest.mark.parametrize(
    'instruction',
    [
        'tanh.approx.f32 %r1, %r2', 'add.rz.f32 %r1, %r2, %r3', 'add.sat.f32 %r1, %r2, %r3',
        'cvt.rz.f16.f32 %rs1, %r2', 'bar.red.popc.u32 %r1, 0, %p1', 'ld.local.b32 %r1, [%r2]',
        'atom.global.add.u64 %rd1, [%rd2], %rd3', 'ld.volatile.global.b32 %r1, [%rd2]',
        'bfe.u64 %rd1, %rd2, 3, 5',
    ],
)  # fmt: skip
def test_an_instruction_that_is_not_known(instruction):
    with pytest.raises(Unknown, match=re.escape(f'made_kernel: {instruction}')):
        run_programs(written([f'{instruction};', 'ret;']), [], [0], 1)
