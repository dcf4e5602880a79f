"""Error functions: erf, erfc."""

from __future__ import annotations

from . import vecmath_coefficients as C
from .vecmath_exp import exp_negative, magic, nearest, power_of_two
from .vecmath_registry import vector
from .vecmath_value import FLOATS, Value, by_kind, copysign, fabs, fma, highest, polynomial, select


def erf_near(x: Value) -> Value:
    """erf(x) for |x| <= 1."""
    return fma(polynomial(x * x, C.ERF[x.kind.name]), x, x)


@vector("erf", FLOATS)
def erf(x: Value) -> Value:
    """A polynomial in x**2 up to 1, beyond it 1 - 2**-p(|x|); from 3.92 (5.93) on it is 1."""
    a = fabs(x)
    tail = [-c for c in C.ERF_TAIL[x.kind.name]]
    q = polynomial(highest(a, by_kind(x, 3.92, 5.93)), tail)
    kf, k = nearest(q + magic(q))
    r = q - kf
    # 2**q is at most 0.16: in float32 a shorter polynomial is exact enough for the difference from 1.
    e = fma(polynomial(r, by_kind(x, C.EXP2_SHORT, C.EXP2)[x.kind.name]), r, 1.0) * power_of_two(k)
    return select(a < 1.0, erf_near(x), copysign(1.0 - e, x))


@vector("erfc", FLOATS)
def erfc(x: Value) -> Value:
    """1 - erf(x) up to 0.6, beyond it exp(-a*a) times a polynomial in (a - c) / (a + c), or 2 minus that."""
    a = highest(fabs(x), by_kind(x, 10.1, 27.3))
    centre = by_kind(x, 2.0, 3.0)
    t = (a - centre) / (a + centre)
    square = a * a
    e = exp_negative(-square)
    e = fma(-fma(a, a, -square), e, e)
    y = polynomial(t, C.ERFC[x.kind.name]) / fma(a, 2.0, 1.0) * e
    return select(a < 0.6, 1.0 - erf_near(x), select(x < 0.0, 2.0 - y, y))
