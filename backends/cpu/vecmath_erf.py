"""Error functions: erf, erfc."""

from __future__ import annotations

from . import vecmath_coefficients as C
from .vecmath_exp import magic, nearest, power_of_two
from .vecmath_registry import vector
from .vecmath_value import Value, copysign, fabs, fma, highest, polynomial, select


def _near(x: Value) -> Value:
    """erf(x) for |x| <= 1."""
    return fma(polynomial(x * x, C.ERF[x.kind.name]), x, x)


@vector("erf", ("f32",))
def erf_f32(x: Value) -> Value:
    """A polynomial in x**2 up to 1, beyond it 1 - 2**-p(|x|); 1 from 3.92 on."""
    a = fabs(x)
    q = polynomial(highest(a, 3.92), [-c for c in C.ERF_TAIL["f32"]])
    kf, k = nearest(q + magic(q))
    r = q - kf
    # 2**q is at most 0.16 here: a short polynomial is exact enough for the difference from 1.
    e = fma(polynomial(r, C.EXP2_SHORT["f32"]), r, 1.0) * power_of_two(k)
    return select(a < 1.0, _near(x), copysign(1.0 - e, x))
