"""Powers and roots: pow, sqrt, rsqrt, cbrt.

pow(x, y) = exp2(y * log2|x|), with the logarithm in more than working precision: float64 for float32, a
pair of float64 for float64. Special values are C99's (annex F.9.4.4).
"""

from __future__ import annotations

import math

import numpy as np

from . import vecmath_coefficients as C
from .vecmath_exp import LN2, LN2_LOW, LOG2E, magic, nearest, power_of_two, scale
from .vecmath_log import to_float
from .vecmath_registry import vector
from .vecmath_value import FLOATS, Value, by_kind, fabs, fma, highest, lowest, polynomial, rint, select, sqrt

_SQRT_HALF_BITS = 0x3FE6A09E667F3BCD
_LN2_42 = 0.6931471805598903  # the top 42 bits of ln 2: times an exponent it is exact
_LN2_REST = 5.497923018708371e-14


def _special(x: Value, y: Value, p: Value) -> Value:
    """p = |x|**y with the sign of an odd power and C99's special values."""
    whole = rint(y).eq(y)
    half = y * 0.5
    odd = whole & rint(half).ne(half)
    p = select((x.bits() < 0) & odd, -p, p)
    p = select((x < 0.0) & ~whole & (x > -math.inf), x.const(math.nan), p)
    p = select(x.eq(-1.0) & fabs(y).eq(math.inf), 1.0, p)
    p = select(x.ne(x) | y.ne(y), x + y, p)
    return select(x.eq(1.0) | y.eq(0.0), 1.0, p)


def _fraction(bits: Value) -> tuple[Value, Value]:
    """(k as a float, m) with x = 2**k m, m in [sqrt(1/2), sqrt(2)), from the bits of a normal float64."""
    k = (bits - _SQRT_HALF_BITS) >> 52
    return to_float(k), (bits - (k << 52)).as_float()


@vector("pow", ("f32",), args=("T", "T"))
def pow_f32(x: Value, y: Value) -> Value:
    a = fabs(x).to("f64")
    k, m = _fraction(a.bits())
    s = (m - 1.0) / (m + 1.0)
    log2 = fma(polynomial(s * s, C.LOG2_SHORT["f64"]), s, k)
    log2 = select(a.eq(0.0), a.const(-math.inf), select(a < math.inf, log2, a))
    w = highest(lowest(y.to("f64") * log2, -200.0), 200.0)
    n = nearest(w + magic(w))
    r = w - n.float
    p = fma(polynomial(r, C.EXP2_SHORT["f64"]), r, 1.0) * power_of_two(n.int)
    return _special(x, y, p.to("f32"))


def _log_pair(a: Value) -> tuple[Value, Value]:
    """log(a) for finite a > 0 as high + low, relative error near 2**-65."""
    small = a < 2.0**-1022
    k, m = _fraction(select(small, a * 2.0**54, a).bits())
    k = k - select(small, k.const(54.0), k.const(0.0))
    f = m - 1.0
    d = f + 2.0
    s = f / d
    s_low = fma(-s, f - (d - 2.0), fma(-s, d, f)) / d
    z = s * s
    z_low = fma(s, s, -z) + 2.0 * s * s_low
    # c = 2/3 + z Q(z), a pair.
    tail = fma(z, polynomial(z, C.LOG_LONG["f64"]), 3.700743415417188e-17)
    c = 0.6666666666666666 + tail
    c_low = tail - (c - 0.6666666666666666)
    p = z * c
    p_low = fma(z, c, -p) + fma(z, c_low, z_low * c)
    q = s * p
    q_low = fma(s, p, -q) + fma(s, p_low, s_low * p)
    two = s + s
    h = two + q
    low = (q - (h - two)) + (s_low + s_low + q_low)
    high = fma(k, _LN2_42, h)
    low = low + fma(k, _LN2_REST, h - (high - k * _LN2_42))
    total = high + low
    return total, low - (total - high)


@vector("pow", ("f64",), args=("T", "T"))
def pow_f64(x: Value, y: Value) -> Value:
    a = fabs(x)
    high, low = _log_pair(a)
    infinite = a.const(math.inf)
    exact = a.eq(0.0) | a.eq(math.inf)
    high = select(a.eq(0.0), -infinite, select(a.eq(math.inf), infinite, high))
    low = select(exact, 0.0, low)
    w = y * high
    w_low = fma(y, low, fma(y, high, -w))
    w_low = select(fabs(w) < 1000.0, w_low, 0.0)
    w = highest(lowest(w, -750.0), 711.0)
    k = nearest(fma(w, LOG2E, magic(w)))
    r = fma(k.float, -LN2, w)
    r = r + fma(k.float, -LN2_LOW, w_low)
    q = polynomial(r, C.EXPM1["f64"])
    return _special(x, y, scale(1.0 + fma(q * r, r, r), k))


@vector("sqrt", FLOATS)
def square_root(x: Value) -> Value:
    return sqrt(x)


@vector("rsqrt", FLOATS)
def rsqrt(x: Value) -> Value:
    """1 / sqrt(x), two roundings."""
    return 1.0 / sqrt(x)


@vector("cbrt", FLOATS)
def cbrt(x: Value) -> Value:
    """The exponent by 3 for a first guess, then Halley's iteration in float64."""
    a = fabs(x)
    tiny = a < by_kind(x, 0.0, 2.0**-1000)  # float32 denormals are normal in float64
    wide = a.to("f64")
    wide = select(tiny, wide * 2.0**300, wide)
    # bits / 3 by multiplication of the upper half, which holds exponent and leading digits.
    upper = (wide.bits() >> 32) * 0x55555556 >> 32
    t = ((upper + 715094163) << 32).as_float()
    for _ in range(by_kind(x, 2, 3)):
        quotient = wide / (t * t)
        t = t + t * ((quotient - t) / (t + t + quotient))
    t = select(tiny, t * 2.0**-100, t).to(x.kind.name)
    t = select((a > 0.0) & (a < math.inf), t, a)
    return select(x.bits() < 0, -t, t)


assert np.float64(_LN2_42).view(np.int64) & 0x7FF == 0
