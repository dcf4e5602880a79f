"""Error functions: erf, erfc, gelu."""

from __future__ import annotations

import math

from . import vecmath_coefficients as C
from . import vecmath_tables as tables
from .target import has_quarters, target
from .vecmath_avx512 import magnitude
from .vecmath_exp import add_exponent, exp_negative, magic, nearest
from .vecmath_lookup import look_up, piecewise, place
from .vecmath_quarters import gelu_quarters
from .vecmath_registry import vector
from .vecmath_value import (
    FLOATS,
    Value,
    by_kind,
    copysign,
    fabs,
    fma,
    highest,
    lowest,
    polynomial,
    select,
)


def erf_near(x: Value) -> Value:
    """erf(x) for |x| <= 1."""
    return fma(polynomial(x * x, C.ERF[x.kind.name]), x, x)


@vector("erf", ("f32",))
def erf_pieces(x: Value) -> Value:
    """Sixteen polynomials of degree 5 about multiples of 1/4; from 3.87 on it is 1."""
    a = highest(fabs(x), 3.8749)
    # Adding this rounds to a multiple of 1/4 and leaves its number in the low bits.
    index = (a + magic(a) * 0.25).bits()
    centre, value, *c = tables.ERF
    t = a - look_up(centre, index)
    p = look_up(c[-1], index)
    for column in reversed(c[:-1]):
        p = fma(p, t, look_up(column, index))
    base = select(a > 0.125, look_up(value, index), a)
    return copysign(fma(p, t, base), x)


@vector("erf", ("f64",))
def erf(x: Value) -> Value:
    """A polynomial in x**2 up to 1, beyond it 1 - 2**-p(|x|); from 5.93 on it is 1."""
    a = fabs(x)
    p = polynomial(highest(a, 5.93), [-c for c in C.ERF_TAIL["f64"]])
    k = nearest(p + magic(p))
    r = p - k.float
    e = fma(polynomial(r, C.EXP2["f64"]), r, 1.0)
    # A NaN takes the near branch, which keeps it.
    return select(a > 1.0, copysign(1.0 - add_exponent(e, k.int), x), erf_near(x))


@vector("gelu", ("f32",))
def gelu_pieces(x: Value) -> Value:
    """max(x, 0) - |x| Q(|x|), Q the normal distribution beyond: polynomials of degree 4 about multiples of 1/4.

    From 7.625 on Q, there 1e-14, is taken for 0.
    """
    if has_quarters():
        return gelu_quarters(x)
    a = magnitude(x, 7.75)
    return fma(-a, piecewise(tables.TAIL, place(a, 2)), lowest(x, -0.0))


@vector("gelu_short", ("f32",))
def gelu_short(x: Value) -> Value:
    """`gelu_pieces` from 16 polynomials of degree 5 for |x| Q(|x|), about multiples of 1/2, where that saves time.

    From 7.25 on Q is taken for 0.
    """
    if not target().short_forms:
        return gelu_pieces(x)
    where = place(magnitude(x, 7.5), 1)
    value, *c = tables.SHORT_TAIL
    return fma(piecewise(c, where), where.off, lowest(x, -0.0) - look_up(value, where.piece))


@vector("gelu", ("f64",))
def gelu(x: Value) -> Value:
    """x (1 + erf(x / sqrt(2))) / 2, 0 at minus infinity."""
    x = lowest(x, -10000.0)
    return x * 0.5 * (erf(x * math.sqrt(0.5)) + 1.0)


@vector("erfc", FLOATS)
def erfc(x: Value) -> Value:
    """1 - erf(x) up to 0.6, beyond it exp(-a*a) times a polynomial in (a - c) / (a + c), or 2 minus that."""
    a = highest(fabs(x), by_kind(x, 10.1, 27.3))
    centre = by_kind(x, 2.0, 3.0)
    t = (a - centre) / (a + centre)
    square = a * a
    e, up = exp_negative(-square)
    e = fma(-fma(a, a, -square), e, e)
    y = polynomial(t, C.ERFC[x.kind.name]) / fma(a, 2.0, 1.0) * e * (1.0 / up)
    return select(a < 0.6, 1.0 - erf_near(x), select(x < 0.0, 2.0 - y, y))
