"""What instructions compute from numbers, whatever their type."""

import numpy as np


def divide(a, b):
    """Quotient; of integers it is cut off towards zero."""
    if a.dtype.kind == 'f':
        return a / b
    a, b = a.astype('i8'), np.where(b == 0, 1, b).astype('i8')
    quotient = np.abs(a) // np.abs(b)
    return np.where((a < 0) != (b < 0), -quotient, quotient)


def remainder(a, b):
    return a.astype('i8') - divide(a, b) * b.astype('i8')


def fuse(a, b, c):
    """a·b + c, in float64, where the product of two float32 is exact, and then rounded."""
    return (a.astype('f8') * b + c).astype(c.dtype)


def wide(a):
    """Integers in the type of twice their size."""
    return a.astype(f'{a.dtype.kind}{2 * a.dtype.itemsize}')


def high(a, b):
    return (wide(a) * wide(b)) >> (8 * a.dtype.itemsize)


def shift_left(a, n):
    return np.where(n < 8 * a.dtype.itemsize, a << np.minimum(n, 63).astype(a.dtype), 0)


def shift_right(a, n):
    last = a >> np.minimum(n, 8 * a.dtype.itemsize - 1).astype(a.dtype)
    return np.where((n < 8 * a.dtype.itemsize) | (a.dtype.kind == 'i'), last, 0)


def extract_bits(a, first, length):
    """`length` bits from `first` on, signed as `a` is."""
    left = (32 - first - length).astype('u4')
    return (a << left.astype(a.dtype)) >> (32 - length).astype(a.dtype)


def permute_bytes(a, b, selectors):
    """Four bytes of the eight of b and a, each chosen by four bits; the fourth repeats the sign."""
    both = a.astype('u8') | (b.astype('u8') << np.uint64(32))
    out = np.zeros(a.shape, 'u8')
    for i in range(4):
        selector = selectors.astype('u8') >> np.uint64(4 * i)
        byte = (both >> ((selector & np.uint64(7)) * np.uint64(8))) & np.uint64(255)
        sign = np.where(byte & np.uint64(128), np.uint64(255), np.uint64(0))
        out |= np.where(selector & np.uint64(8), sign, byte) << np.uint64(8 * i)
    return out


def flush(a):
    """Numbers of float32 with zero for those too small to be normal (.ftz)."""
    tiny = np.abs(a) < np.finfo(a.dtype).tiny
    return np.where(tiny, np.copysign(a.dtype.type(0), a), a)


def to_tf32(bits, half=0x1000):
    """Bits of float32 rounded to the nearest number of 19, in a tie away from zero; NaN stays."""
    is_nan = (bits & np.uint32(0x7FFFFFFF)) > 0x7F800000
    rounded = (bits + np.uint32(half)) & np.uint32(0xFFFFE000)
    return np.where(is_nan, np.uint32(0x7FFFFFFF), rounded)


def choose(kind):
    """The smaller or larger number; the other one if one is NaN."""
    of_floats, of_integers = getattr(np, f'f{kind}'), getattr(np, f'{kind}imum')
    return lambda a, b: (of_floats if a.dtype.kind == 'f' else of_integers)(a, b)


def unordered(a, b):
    """Whether either is NaN."""
    return (a != a) | (b != b)


ROUND = dict(rzi=np.trunc, rmi=np.floor, rni=np.rint, rpi=np.ceil)
FUNCTIONS = {
    'add': np.add,
    'sub': np.subtract,
    'mul': np.multiply,
    'mul.lo': np.multiply,
    'mul.hi': high,
    'mul.wide': lambda a, b: wide(a) * wide(b),
    'mad.lo': lambda a, b, c: a * b + c,
    'mad.wide': lambda a, b, c: wide(a) * wide(b) + c,
    'fma': fuse,
    'div': divide,
    'div.full': divide,
    'rem': remainder,
    'neg': np.negative,
    'abs': np.abs,
    'sqrt': np.sqrt,
    'rsqrt': lambda a: 1 / np.sqrt(a),
    'rcp': lambda a: 1 / a,
    'ex2': np.exp2,
    'lg2': np.log2,
    'min': choose('min'),
    'max': choose('max'),
    'min.NaN': np.minimum,
    'max.NaN': np.maximum,
    'and': np.bitwise_and,
    'or': np.bitwise_or,
    'xor': np.bitwise_xor,
    'not': np.invert,
    'shl': shift_left,
    'shr': shift_right,
    'bfe': extract_bits,
    'prmt': permute_bytes,
    'popc': np.bitwise_count,
    'selp': lambda a, b, condition: np.where(condition, a, b),
}
COMPARISONS = {
    'lt': np.less, 'le': np.less_equal, 'gt': np.greater, 'ge': np.greater_equal, 'eq': np.equal,
    'ne': lambda a, b: (a != b) & ~unordered(a, b),
    'nan': unordered,
    'num': lambda a, b: ~unordered(a, b),
}  # fmt: skip
# With a u at its end a comparison is true for NaN too.
COMPARISONS |= {
    f'{name}u': lambda a, b, compare=COMPARISONS[name]: compare(a, b) | unordered(a, b)
    for name in ('lt', 'le', 'gt', 'ge', 'eq', 'ne')
}
