"""Exponentials in float32 where look-up takes registers of eight lanes: AVX2 without AVX-512.

exp(x) = 2**k exp(r) with k in quarters and |r| <= ln2/8: a power of four in a table, which `vpermilps` reads for
eight lanes at the cost of a multiply-add, and a polynomial of degree 4. An entry's bits and the quarters, moved to
bit 21, add up to the power.
"""

from __future__ import annotations

import numpy as np

from . import vecmath_coefficients as C
from .vecmath_lookup import look_up
from .vecmath_value import Value, bits_of, fabs, fma, highest, lowest, polynomial, select

LOG2E = 1.4426950408889634
LN2 = 0.6931471805599453
LN2_F32 = float(np.float32(LN2))

#: Entries are 1 + QUARTER_SHIFT times the powers, off by 0.27 units at most (0.32 without), and that of 0 is 1.
QUARTER_SHIFT = -4.6e-9
_UP = 24  # a power of two from which no number above half of the least is a denormal
_LEAST, _MOST = -151, 129  # 2**_LEAST rounds to 0; 2**_MOST is infinite
_MAGIC = 1.5 * 2.0**21  # adding it rounds to quarters, which then stand in the sum's low bits


def powers(counted: Value, factor: float = 1 + QUARTER_SHIFT) -> Value:
    """The bits of factor * 2**k for a number of quarters k in the low bits of `counted`: a normal number, or 0."""
    entries = (2.0 ** (np.arange(4) / 4) * factor).astype(np.float32).view(np.int32)
    return look_up([int(bits) - (n << 21) for n, bits in enumerate(entries)], counted) + (counted << 21)


def exp_reduced(c: Value) -> tuple[Value, Value]:
    """x = k ln2 + r: k in quarters, in the low bits of an integer, and r."""
    t = fma(c, LOG2E, _MAGIC)
    k = t - _MAGIC
    return t.bits(), fma(k, LN2_F32 - LN2, fma(k, -LN2_F32, c))


def _scaled(power: Value, w: Value, factor: Value | float) -> Value:
    y = power.as_float()
    return fma(y, w, y) * factor


def _at_any(x: Value, counted: Value, w: Value) -> Value:
    """2**k (1 + w), k of the sign of x: made 2**24 nearer to 1, where it is normal, and then multiplied by that."""
    nearer = (x.bits() >> 31) & (2 * _UP << 23)
    power = powers(counted, (1 + QUARTER_SHIFT) * 2.0**-_UP) + nearer
    return _scaled(power, w, (nearer.const(bits_of(2.0**_UP, x.kind)) - nearer).as_float())


def exp_quarters(x: Value) -> Value:
    """exp(x), within 0.97 ulp."""
    counted, r = exp_reduced(highest(lowest(x, _LEAST * LN2), 89.0))
    return _at_any(x, counted, polynomial(r, C.EXP_QUARTER["f32"]))


def exp_below_quarters(x: Value) -> Value:
    """The same bits for x <= 0 and NaN."""
    counted, r = exp_reduced(lowest(x, _LEAST * LN2))
    power = powers(counted, (1 + QUARTER_SHIFT) * 2.0**_UP)
    return _scaled(power, polynomial(r, C.EXP_QUARTER["f32"]), 2.0**-_UP)


def exp2_quarters(x: Value) -> Value:
    c = highest(lowest(x, float(_LEAST)), float(_MOST))
    t = c + _MAGIC
    return _at_any(x, t.bits(), polynomial(c - (t - _MAGIC), C.EXP2_QUARTER["f32"]))


# What sigmoid's quotient has above, and what exp(-r) is multiplied by there, as in `vecmath_exp` (of three million
# pairs the one that sampled best, 1.64 ulp): exp(-r) stays below 1, where it is rounded by half as much.
_SIGMOID_ABOVE, _SIGMOID_NEAR = 0.7486062049865723, 0.8968418836593628


def sigmoid_quarters(x: Value) -> Value:
    """1 / (1 + exp(-x)), all over 2**24: the denominator is finite where the quotient is not 0."""
    c = highest(lowest(x, -105.0), 40.0)
    t = fma(c, -LOG2E, _MAGIC)
    k = t - _MAGIC
    r = fma(k, LN2 - LN2_F32, fma(k, LN2_F32, c))
    _, _, *rest = C.EXP_QUARTER["f32"]
    series = (1.0, 1.0, *rest)
    near = polynomial(r, [_SIGMOID_NEAR * a * (-1) ** n for n, a in enumerate(series)])
    power = powers(t.bits(), _SIGMOID_ABOVE / _SIGMOID_NEAR * 2.0**-_UP).as_float()
    above = x.const(_SIGMOID_ABOVE * 2.0**-_UP)
    return above / fma(power, near, above)


#: Q(NORMAL_CENTRE) is 2**-NORMAL_LOG to 4e-9, Q the normal distribution beyond; from NORMAL_END on it is taken for 0
NORMAL_CENTRE, NORMAL_LOG, NORMAL_END = 1.1503493785858154, 3.0, 7.625


def gelu_quarters(x: Value) -> Value:
    """max(x, 0) - |x| Q(|x|), Q as a power of two: log2 Q is a polynomial about where rounding would hurt most."""
    a = highest(fabs(x), NORMAL_END)
    u = a - NORMAL_CENTRE
    h = polynomial(u, C.NORMAL_TAIL["f32"])
    # Twice the last multiply-add: to find the quarters, and for what is left of them, which is not rounded before.
    t = fma(h, u, _MAGIC - NORMAL_LOG)
    r = fma(h, u, (_MAGIC - NORMAL_LOG) - t)
    power = select(a < NORMAL_END, powers(t.bits()), 0).as_float()
    tail = fma(power, polynomial(r, C.EXP2_QUARTER["f32"]), power)
    return fma(-a, tail, lowest(x, -0.0))


def softplus_quarters(x: Value) -> Value:
    """log(1 + exp(x)) = max(x, 0) + log1p(t), t = exp(-|x|) and log1p(t) = t + t**2 p(t) up to 1."""
    t = exp_below_quarters(-fabs(x))
    return lowest(x, 0.0) + fma(polynomial(t, C.LOG1P_UNIT["f32"]) * t, t, t)
