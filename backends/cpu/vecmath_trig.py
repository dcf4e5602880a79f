"""Trigonometry: sin, cos, tan with reduction right for every argument, and asin, acos, atan, atan2.

Reduction (Payne-Hanek, in floating point): x = y 2**s with y an integer below 2**50 (float64: 2**61), so only
2**s (2/pi) mod 4 matters of 2/pi; it is a constant per s, kept as an unevaluated sum of float64. Products
with it are split exactly by fma.
"""

from __future__ import annotations

import functools
import math
from fractions import Fraction
from typing import Any, NamedTuple

from llvmlite import ir

from . import vecmath_coefficients as C
from .vecmath_exp import magic
from .vecmath_registry import vector
from .vecmath_value import (
    FLOATS,
    KINDS,
    Value,
    by_kind,
    copysign,
    fabs,
    fma,
    polynomial,
    rint,
    select,
    sqrt,
)

PI_2 = (1.5707963267948966, 6.123233995736766e-17)  # pi / 2 as a sum
_STEP = 8  # exponents per row of the float64 table
_ROWS = (1023 - 52) // _STEP + 1


class Angle(NamedTuple):
    """x = k pi/2 + r + low, |r| <= pi/4; of k, an integer of the width of x, the low two bits are right."""

    k: Value
    r: Value
    low: Value | None


@functools.cache
def _two_over_pi(bits: int = 1400) -> int:
    """floor(2/pi * 2**bits), pi by Machin's formula in integers."""

    def atan_inverse(n: int) -> int:
        total = term = (1 << guarded) // n
        k = 1
        while term:
            term //= n * n
            k += 2
            total += -term // k if k % 4 == 3 else term // k
        return total

    guarded = bits + 64
    pi = 16 * atan_inverse(5) - 4 * atan_inverse(239)
    return (2 << (bits + guarded)) // pi


@functools.cache
def _window(shift: int, parts: int) -> tuple[float, ...]:
    """2**shift * 2/pi mod 4, in [-2, 2], as an unevaluated sum of floats."""
    bits = 1400
    rest = Fraction((_two_over_pi(bits) << shift) % (4 << bits), 1 << bits)
    if rest > 2:
        rest -= 4
    out = []
    for _ in range(parts):
        out.append(float(rest))
        rest -= Fraction(out[-1])
    return tuple(out)


_NEAR = 2.0**24  # arguments below it are reduced by two products with pi/2


def _reduce_f32(x: Value, precise: bool) -> Angle:
    """Near arguments in five operations of float64; a vector with a far one takes the long way too."""
    b, far = x.b, fabs(x) >= _NEAR
    y = x.to("f64")
    t = y * (2 / math.pi) + magic(y)
    whole = t - magic(y)
    near = fma(whole, -PI_2[1], fma(whole, -PI_2[0], y))
    near_k = t.bits().to("i32")
    before = b.block
    distant, joined = b.append_basic_block("far"), b.append_basic_block("reduced")
    b.cbranch(far.v, distant, joined)
    b.position_at_end(distant)
    far_k, far_r = _reduce_far(x, y)
    far_k, far_r = select(far, far_k, near_k), select(far, far_r, near)
    end = b.block
    b.branch(joined)
    b.position_at_end(joined)
    k, r64 = (Value(b, b.phi(v.kind.llvm), v.kind) for v in (near_k, near))
    for value, first, other in ((k, near_k, far_k), (r64, near, far_r)):
        value.v.add_incoming(first.v, before)
        value.v.add_incoming(other.v, end)
    r = r64.to("f32")
    return Angle(k, r, (r64 - r.to("f64")).to("f32") if precise else None)


def _reduce_far(x: Value, y: Value) -> tuple[Value, Value]:
    """k and r of arguments from 2**24 on, in integers and float64."""
    a = fabs(x)
    rows = [(2.0 ** (-26 * j), *_window(26 * j, 2)) for j in range(4)]
    columns: list[Value] = [y.const(c) for c in rows[0]]
    for j in (1, 2, 3):
        beyond = a >= 2.0 ** (24 + 26 * j)
        columns = [select(beyond, c, before) for c, before in zip(rows[j], columns)]
    scale, c, c_low = columns
    y = y * scale
    p = y * c
    t = p + magic(p)
    f = (p - (t - magic(p))) + fma(y, c_low, fma(y, c, -p))
    # A huge p is a multiple of 1/4 and the rest is not small: round once more.
    u = f + magic(p)
    f = (f - (u - magic(p))) * PI_2[0]
    return (t.bits() + u.bits()).to("i32"), f


def _look_up(row: Value, parts: int) -> list[Value]:
    """The numbers of a row of the float64 table, a constant of the module."""
    # A builder of its own: lanes are read one by one where `row` is a vector (see wide.py).
    block = row.b.block
    b = ir.IRBuilder(block)
    module, name, double, i32 = block.module, "duograd.two_over_pi", ir.DoubleType(), ir.IntType(32)
    table = module.globals.get(name)
    if table is None:
        numbers = [double(c) for k in range(_ROWS) for c in _window(_STEP * k, parts)]
        table = ir.GlobalVariable(module, ir.ArrayType(double, len(numbers)), name)
        table.global_constant, table.linkage = True, "internal"
        table.initializer = ir.Constant(table.value_type, numbers)

    def read(k: Any, part: int) -> Any:
        place = b.gep(table, [i32(0), b.add(b.mul(k, k.type(parts)), k.type(part))], inbounds=True)
        return b.load(place, typ=double)

    result = []
    for part in range(parts):
        if isinstance(row.v.type, ir.VectorType):
            value: Any = ir.Constant(ir.VectorType(double, row.v.type.count), ir.Undefined)
            for lane in range(row.v.type.count):
                number = read(b.extract_element(row.v, i32(lane)), part)
                value = b.insert_element(value, number, i32(lane))
        else:
            value = read(row.v, part)
        result.append(Value(row.b, value, KINDS["f64"]))
    row.b.position_at_end(block)
    return result


def _two_sum(a: Value, b: Value) -> tuple[Value, Value]:
    s = a + b
    t = s - a
    return s, (a - (s - t)) + (b - t)


def _reduce_f64(x: Value) -> Angle:
    exponent = ((x.bits() >> 52) & 2047) - (1023 + 52)
    row = select(exponent > 0, exponent, 0) >> 3
    row = select(row < _ROWS, row, 0)  # infinities and NaN stay what they are
    y = x * ((row.const(1023) - row * _STEP) << 52).as_float()
    c = _look_up(row, 4)
    p = y * c[0]
    q = y * c[1]
    f = p - 4.0 * rint(p * 0.25)
    f, low = _two_sum(f, fma(y, c[0], -p))
    f, low_2 = _two_sum(f, q)
    rest = fma(y, c[1], -q)
    t = f + magic(f)
    f = f - (t - magic(f))
    # What is left may cancel down to 2**-61: add it without loss.
    f, low = _two_sum(f, low + low_2)
    f, low_2 = _two_sum(f, rest)
    product = y * c[2]
    f, low_3 = _two_sum(f, product)
    low = low + low_2 + low_3 + fma(y, c[3], fma(y, c[2], -product))
    f, low = _two_sum(f, low)
    r = f * PI_2[0]
    return Angle(t.bits(), r, fma(f, PI_2[0], -r) + fma(f, PI_2[1], low * PI_2[0]))


def reduce(x: Value, precise: bool = False) -> Angle:
    """The angle; `low` is always there in float64, on request in float32."""
    return _reduce_f32(x, precise) if x.kind.bits == 32 else _reduce_f64(x)


def sine_cosine(angle: Angle) -> tuple[Value, Value]:
    """(sin, cos) of r + low, |r| <= pi/4."""
    _, r, low = angle
    z = r * r
    s = polynomial(z, C.SIN[r.kind.name]) * z
    c = polynomial(z, C.COS[r.kind.name]) * z
    half = z * 0.5
    one = 1.0 - half
    lost = (1.0 - one) - half
    c = fma(c, z, lost)
    if low is None:
        return fma(s, r, r), one + c
    return r + fma(s, r, low * one), one + fma(-r, low, c)


def _quadrant(k: Value, s: Value, c: Value) -> Value:
    """sin(k pi/2 + r) from sin(r), cos(r)."""
    y = select((k & 1).ne(0), c, s)
    sign = (k & 2) << (k.kind.bits - 2)
    return (y.bits() ^ sign).as_float()


@vector("sin", FLOATS)
def sin(x: Value) -> Value:
    angle = reduce(x)
    y = _quadrant(angle.k, *sine_cosine(angle))
    return select(fabs(x) < by_kind(x, 2.0**-13, 2.0**-28), x, y)


@vector("cos", FLOATS)
def cos(x: Value) -> Value:
    angle = reduce(x)
    return _quadrant(angle.k + 1, *sine_cosine(angle))


@vector("tan", FLOATS)
def tan(x: Value) -> Value:
    angle = reduce(x, precise=True)
    s, c = sine_cosine(angle)
    odd = (angle.k & 1).ne(0)
    y = select(odd, -c, s) / select(odd, s, c)
    return select(fabs(x) < by_kind(x, 2.0**-13, 2.0**-28), x, y)


# ---- inverse functions


def _arc(x: Value, table: dict[str, tuple[float, ...]]) -> Value:
    z = x * x
    return fma(polynomial(z, table[x.kind.name]) * z, x, x)


def _constant(x: Value, pair: tuple[float, float]) -> tuple[float, float]:
    """A constant as high + low in the precision of x."""
    if x.kind.bits == 64:
        return pair
    high = float(x.const(pair[0]).v.constant)
    return high, pair[0] - high


@vector("atan2", FLOATS, args=("T", "T"))
def atan2(y: Value, x: Value) -> Value:
    """The angle of (x, y), -pi to pi, with C99's values at zeros and infinities."""
    a, b = fabs(y), fabs(x)
    swap = a > b
    angle = _angle(y, *_ordered(a, b, swap), swap, x.bits() < 0)
    return select(x.ne(x) | y.ne(y), x + y, angle)


def _ordered(a: Value, b: Value, swap: Value) -> tuple[Value, Value]:
    """(smaller, larger) of two magnitudes, scaled so that their sum and quotient are safe."""
    low, high = select(swap, b, a), select(swap, a, b)
    both = low.eq(math.inf)
    low, high = select(both, 1.0, low), select(both, 1.0, high)
    large = high > by_kind(a, 2.0**120, 2.0**1000)
    scale = select(large, low.const(0.25), low.const(1.0))
    return low * scale, high * scale


def _angle(y: Value, low: Value, high: Value, swap: Value, left: Value) -> Value:
    """atan(low / high), turned to the right octant: swapped about pi/4, then to the left half plane."""
    middle = low > high * 0.41421356
    t = select(middle, low - high, low) / select(middle, low + high, high)
    t = select(high.eq(0.0), 0.0, t)
    t = _arc(t, C.ATAN)
    quarter, half, three, pi = (_constant(y, (n * PI_2[0] / 2, n * PI_2[1] / 2)) for n in (1, 2, 3, 4))

    def base(part: int) -> Value:
        right = select(middle, t.const(quarter[part]), select(swap, t.const(half[part]), 0.0))
        other = select(middle, t.const(three[part]), select(swap, t.const(half[part]), pi[part]))
        return select(left, other, right)

    t = select(swap ^ left, -t, t)
    return copysign(base(0) + (t + base(1)), y)


@vector("atan", FLOATS)
def atan(x: Value) -> Value:
    a = fabs(x)
    swap = a > 1.0
    low, high = select(swap, 1.0, a), select(swap, a, 1.0)
    return _angle(x, low, high, swap, swap & ~swap)


@vector("asin", FLOATS)
def asin(x: Value) -> Value:
    """x + x**3 p(x**2) up to 1/2, beyond it pi/2 - 2 asin(sqrt((1 - |x|) / 2))."""
    a = fabs(x)
    far = a > 0.5
    root = sqrt(fma(a, -0.5, 0.5))  # NaN beyond 1
    y = _arc(select(far, root, a), C.ASIN)
    high, low = _constant(x, PI_2)
    y = select(far, high - (y + y - low), y)
    return copysign(select(a <= 1.0, y, x.const(math.nan)), x)


@vector("acos", FLOATS)
def acos(x: Value) -> Value:
    """pi/2 - asin(x) up to 1/2; beyond it 2 asin(sqrt((1 - |x|) / 2)), for negative x taken from pi."""
    a = fabs(x)
    far = a > 0.5
    root = sqrt(fma(a, -0.5, 0.5))
    y = _arc(select(far, root, x), C.ASIN)
    high, low = _constant(x, PI_2)
    two = y + y
    turned = select(x < 0.0, (high * 2.0) - (two - low * 2.0), two)
    return select(far, turned, high - (y - low))
