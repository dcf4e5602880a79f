"""Logarithms: log, log2, log10, log1p, and softplus, asinh, acosh, atanh over the same core.

The core: x = 2**k m with m in [2/3, 4/3), f = m - 1, s = f / (2 + f), log(m) = 2 atanh(s) written as
f - (f*f/2 - s * (f*f/2 + R(s*s))), which keeps f as the leading, exact term (as fdlibm's log does).
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from . import vecmath_coefficients as C
from . import vecmath_tables as tables
from .target import has, has_quarters
from .vecmath_exp import LN2, LN2_F32, LN2_LOW, exp_negative
from .vecmath_lookup import piecewise, place
from .vecmath_quarters import softplus_quarters
from .vecmath_registry import vector
from .vecmath_value import (
    FLOATS,
    KINDS,
    Value,
    bits_of,
    by_kind,
    copysign,
    fabs,
    fma,
    highest,
    polynomial,
    select,
    sqrt,
    where_beyond,
)


class Split(NamedTuple):
    """x = 2**k (1 + f), |f| <= 1/3; `k` is a float Value, `ki` the same as an integer."""

    k: Value
    ki: Value
    f: Value


_TWO_THIRDS = {"f32": 0x3F2AAAAB, "f64": 0x3FE5555555555555}


def to_float(k: Value) -> Value:
    """A small integer as a float of its width, by bits: AVX2 has no conversion from 64-bit integers."""
    m = 1.5 * 2.0 ** by_kind(k, 23, 52)
    return (k + bits_of(m, KINDS[f"f{k.kind.bits}"])).as_float() - m


def split(x: Value) -> Split:
    """Exponent and fraction of x > 0; denormals are scaled up first. Garbage for 0, negative, inf and NaN."""
    up = by_kind(x, 24, 54)
    small = x < by_kind(x, 2.0**-126, 2.0**-1022)
    bits = select(small, x * 2.0**up, x).bits()
    ki = (bits - _TWO_THIRDS[x.kind.name]) >> by_kind(x, 23, 52)
    f = (bits - (ki << by_kind(x, 23, 52))).as_float() - 1.0
    ki = ki - select(small, ki.const(up), ki.const(0))
    return Split(to_float(ki), ki, f)


def log_rest(f: Value) -> Value:
    """log(1 + f) - f."""
    s = f / (f + 2.0)
    z = s * s
    half = f * f * 0.5
    return fma(s, fma(polynomial(z, C.LOG[f.kind.name]), z, half), -half)


def log_special(x: Value, y: Value) -> Value:
    """`y`, but log's values at 0, infinity, NaN and below 0."""
    y = select(x < math.inf, y, x)
    return select(x > 0.0, y, select(x.eq(0.0), x.const(-math.inf), x.const(math.nan)))


@vector("log", FLOATS)
def log(x: Value) -> Value:
    k, _, f = split(x)
    rest = fma(k, by_kind(x, LN2 - LN2_F32, LN2_LOW), log_rest(f))
    # k * ln2 is inside the fma, so only f + rest rounds before it.
    return log_special(x, fma(k, by_kind(x, LN2_F32, LN2), f + rest))


def _log_base(x: Value, factor: float, low: float, k_factor: float, k_low: float) -> Value:
    """log(x) * (factor + low), log(2) in that base being k_factor + k_low."""
    k, _, f = split(x)
    rest = fma(f, low, log_rest(f) * factor)
    if k_low:
        rest = fma(k, k_low, rest)
    return log_special(x, fma(k, k_factor, fma(f, factor, rest)))


_INV_LN2 = (1.4426950408889634, 2.0355273740931033e-17)  # 1 / ln 2 and what rounding left
_INV_LN10 = (0.4342944819032518, 1.098319650216765e-17)
_LOG10_2 = (0.3010299956639812, -2.8037281277851704e-18)


def _pair(x: Value, pair: tuple[float, float]) -> tuple[float, float]:
    """A constant as two floats of the kind of x."""
    high, low = pair
    return by_kind(x, (float(np.float32(high)), high - float(np.float32(high))), (high, low))


@vector("log2", FLOATS)
def log2(x: Value) -> Value:
    return _log_base(x, *_pair(x, _INV_LN2), 1.0, 0.0)


@vector("log10", FLOATS)
def log10(x: Value) -> Value:
    return _log_base(x, *_pair(x, _INV_LN10), *_pair(x, _LOG10_2))


def log1p_kernel(x: Value) -> Value:
    """log(1 + x) for -1 < x < inf; x = -1, inf, NaN give garbage."""
    u = x + 1.0
    # What the sum lost, relative to u: added to f it is at the scale of the fraction.
    lost = select(x < 1.0, x - (u - 1.0), 1.0 - (u - x))
    bits = u.bits()
    width = by_kind(x, 23, 52)
    ki = (bits - _TWO_THIRDS[x.kind.name]) >> width
    f = (bits - (ki << width)).as_float() - 1.0
    k = to_float(ki)
    rest = log_rest(f) + lost / u
    rest = fma(k, by_kind(x, LN2 - LN2_F32, LN2_LOW), rest)
    return fma(k, by_kind(x, LN2_F32, LN2), f + rest)


@vector("log1p", FLOATS)
def log1p(x: Value) -> Value:
    y = select(x < math.inf, log1p_kernel(x), x)
    y = select(x > -1.0, y, select(x.eq(-1.0), x.const(-math.inf), x.const(math.nan)))
    return select(fabs(x) < by_kind(x, 2.0**-25, 2.0**-54), x, y)  # keeps -0


@vector("softplus", ("f64",))
def softplus(x: Value) -> Value:
    """log(1 + exp(x)) = max(x, 0) + log1p(exp(-|x|))."""
    t, up = exp_negative(-fabs(x))
    t = t * (1.0 / up)
    y = log1p_kernel(t)
    y = select(t < by_kind(x, 2.0**-25, 2.0**-54), t, y)
    return select(x > 0.0, x, 0.0) + select(x.ne(x), x, y)


@vector("softplus", ("f32",))
def softplus_pieces(x: Value) -> Value:
    """With AVX-512 polynomials about multiples of 1/2 up to 7.75, beyond `softplus`; elsewhere that or quarters."""
    if has_quarters():
        return softplus_quarters(x)
    if not has("avx512f"):
        return softplus(x)
    near = piecewise(tables.SOFTPLUS, place(x, 1))
    return where_beyond(~(fabs(x) < 7.75), near, lambda: softplus(x))


@vector("asinh", FLOATS)
def asinh(x: Value) -> Value:
    """log1p(a + a*a / (1 + sqrt(a*a + 1))), a = |x|; for large a, log(a) + ln 2."""
    a = fabs(x)
    big = by_kind(x, 2.0**14, 2.0**30)
    c = highest(a, big)
    s = c * c
    y = log1p_kernel(c + s / (1.0 + sqrt(s + 1.0)))
    y = select(a > big, _log_double(a), y)
    y = select(a < by_kind(x, 2.0**-13, 2.0**-28), a, y)
    return copysign(select(a < math.inf, y, a), x)


def _log_double(a: Value) -> Value:
    """log(2 a) for large finite a."""
    k, _, f = split(a)
    k = k + 1.0
    rest = fma(k, by_kind(a, LN2 - LN2_F32, LN2_LOW), log_rest(f))
    return fma(k, by_kind(a, LN2_F32, LN2), f + rest)


@vector("acosh", FLOATS)
def acosh(x: Value) -> Value:
    """log1p(t + sqrt(2 t + t*t)), t = x - 1; for large x, log(x) + ln 2."""
    big = by_kind(x, 2.0**14, 2.0**30)
    t = highest(x, big) - 1.0
    y = log1p_kernel(t + sqrt(fma(t, t, t + t)))
    y = select(x > big, _log_double(x), y)
    y = select(x.eq(1.0), 0.0, y)
    return select(x >= 1.0, select(x < math.inf, y, x), x.const(math.nan))


@vector("atanh", FLOATS)
def atanh(x: Value) -> Value:
    """log1p(2 a / (1 - a)) / 2, a = |x|."""
    a = fabs(x)
    y = 0.5 * log1p_kernel((a + a) / (1.0 - a))
    y = select(a < by_kind(x, 2.0**-13, 2.0**-28), a, y)
    y = select(a.eq(1.0), x.const(math.inf), y)
    return copysign(select(a <= 1.0, y, x.const(math.nan)), x)
