"""Exponentials: exp, exp2, expm1, sigmoid, tanh, sinh, cosh over one core.

The core: x = k ln2 + r with |r| <= ln2/2 (Cody-Waite, two parts, fma), exp(r) - 1 = r + r**2 q(r), q minimax.
Source of the scheme: Muller et al., Handbook of Floating-Point Arithmetic, ch. 11; coefficients are our own.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from . import vecmath_coefficients as C
from . import vecmath_tables as tables
from .target import has, has_quarters, target
from .vecmath_avx512 import scale_float, scales
from .vecmath_lookup import Place, look_up, piecewise, place
from .vecmath_quarters import (
    LN2,
    LN2_F32,
    LOG2E,
    exp2_quarters,
    exp_below_quarters,
    exp_quarters,
    sigmoid_quarters,
)
from .vecmath_registry import vector
from .vecmath_value import (
    FLOATS,
    Value,
    bits_of,
    by_kind,
    copysign,
    fabs,
    fma,
    highest,
    lowest,
    polynomial,
    select,
    where_beyond,
)

LN2_LOW = 2.3190468138462996e-17  # ln 2 - LN2
EXP_SHIFT = -6.9675e-8  # see vecmath_fit_tables


class Whole(NamedTuple):
    """A whole number as a float and as an integer of the float's width."""

    float: Value
    int: Value


class Reduced(NamedTuple):
    """x = k ln2 + r."""

    k: Whole
    r: Value


def magic(x: Value) -> float:
    """1.5 * 2**mantissa: adding it rounds to an integer, which then stands in the sum's low bits."""
    return 1.5 * 2.0**x.kind.mantissa


def nearest(t: Value) -> Whole:
    """For t = y + magic: y rounded. A NaN gives NaN and some integer."""
    m = magic(t)
    return Whole(t - m, t.bits() - bits_of(m, t.kind))


def power_of_two(k: Value) -> Value:
    """2**k for integer k within the normal exponents."""
    kind = by_kind(k, 23, 52)
    return ((k << kind) + (by_kind(k, 127, 1023) << kind)).as_float()


def scale(y: Value, k: Whole) -> Value:
    """y * 2**k for y near 1, |k| <= 252 (float64: 2044); overflows and denormals round once."""
    scaled = scale_float(y, k.float)
    if scaled is not None:
        return scaled
    half = k.int >> 1
    return y * power_of_two(half) * power_of_two(k.int - half)


def reduce(x: Value) -> Reduced:
    k = nearest(fma(x, LOG2E, magic(x)))
    r = fma(k.float, by_kind(x, -LN2_F32, -LN2), x)
    return Reduced(k, fma(k.float, by_kind(x, LN2_F32 - LN2, -LN2_LOW), r))


def exp_kernel(r: Value) -> Value:
    """exp(r) for |r| <= ln2/2, within 0.9 ulp."""
    q = polynomial(r, C.EXPM1[r.kind.name])
    return fma(fma(q, r, 1.0), r, 1.0)


def clamp(x: Value) -> Value:
    """Bring x to where exp is neither 0 nor infinite, and a little beyond; NaN stays."""
    return highest(lowest(x, by_kind(x, -105.0, -746.0)), by_kind(x, 89.0, 710.0))


def nothing_below(x: Value, bound: float, y: Value) -> Value:
    """y, but 0 where x is below the bound: a number that rounds to 0 when it is scaled costs hundreds of cycles."""
    return select(x < bound, x.const(0.0), y)


def exp_negative(x: Value) -> tuple[Value, float]:
    """exp(x) for x <= 0 as y and the power of two by which y is too large; y is a normal number."""
    k, r = reduce(lowest(x, by_kind(x, -105.0, -746.0)))
    up = by_kind(x, 64, 512)
    return exp_kernel(r) * power_of_two(k.int + up), 2.0**up


def add_exponent(y: Value, k: Value) -> Value:
    """y * 2**k where that is a normal number; a NaN may become anything."""
    return (y.bits() + (k << y.kind.mantissa)).as_float()


def sixteenths(t: Value) -> Whole:
    """For t = y + magic / 16: y rounded to sixteenths; as an integer the bits of t, whose low ones count them."""
    return Whole(t - magic(t) / 16, t.bits())


def power_near(k: Whole, r: Value) -> tuple[Value, Whole]:
    """y and n: y * 2**n is 2**k exp(r) in float32 for k of `sixteenths`, |r| <= ln2/32, within 0.93 ulp."""
    c2, c3 = C.EXP_NEAR["f32"]
    power = look_up(tables.POWERS[0], k.int)
    # The entries are 1 + EXP_SHIFT times the powers: 1 + w is as much less than exp(r).
    w = fma(fma(r, c3, c2), fma(r, r, -EXP_SHIFT / c2), r)
    return fma(power, w, power), Whole(k.float, (k.int - bits_of(magic(r) / 16, r.kind)) >> 4)


def has_tables() -> bool:
    """Whether look-up in a table of sixteen is cheaper than two multiply-adds; else exp takes those, or quarters."""
    return has("avx512f")


def _exp_within(x: Value, c: Value) -> Value:
    """exp(x); c: x, brought to where exp is finite and, where scaling 0 by any power is not 0, is not 0."""
    # Where nothing is left, what is reduced may be anything, if scaling 0 by any k is 0.
    if x.kind.bits == 32 and has_tables():
        # 2**k exp(r) with k in sixteenths: a polynomial of degree 3 instead of 6, and a look-up.
        k = sixteenths(fma(c, LOG2E, magic(x) / 16))
        y, n = power_near(k, fma(k.float, LN2_F32 - LN2, fma(k.float, -LN2_F32, c)))
    else:
        n, r = reduce(c)
        y = exp_kernel(r)
    return scale(nothing_below(x, by_kind(x, -104.0, -745.2), y), n)


@vector("exp", FLOATS)
def exp(x: Value) -> Value:
    if x.kind.bits == 32 and has_quarters():
        return exp_quarters(x)
    return _exp_within(x, highest(x, by_kind(x, 89.0, 710.0)) if scales(x) else clamp(x))


@vector("exp_below", FLOATS)
def exp_below(x: Value) -> Value:
    """The bits of exp(x) for x <= 0 and NaN: nothing bounds x from above."""
    if x.kind.bits == 32 and has_quarters():
        return exp_below_quarters(x)
    return _exp_within(x, x if scales(x) else lowest(x, by_kind(x, -105.0, -746.0)))


@vector("exp2", ("f32",))
def exp2_pieces(x: Value) -> Value:
    """The same in base 2, where k is taken off without an error."""
    if has_quarters():
        return exp2_quarters(x)
    if not has_tables():
        return exp2(x)
    c = highest(lowest(x, -151.0), 129.0)
    k = sixteenths(c + magic(x) / 16)
    y, n = power_near(k, (c - k.float) * LN2)
    return scale(nothing_below(c, -150.5, y), n)


@vector("exp2", ("f64",))
def exp2(x: Value) -> Value:
    x = highest(lowest(x, by_kind(x, -151.0, -1076.0)), by_kind(x, 129.0, 1025.0))
    k = nearest(x + magic(x))
    return scale(nothing_below(x, by_kind(x, -150.5, -1075.5), exp_kernel((x - k.float) * LN2)), k)


@vector("expm1", FLOATS)
def expm1(x: Value) -> Value:
    """2**k (exp(r) - 1) + (2**k - 1): the second term is exact wherever the first matters."""
    # Below the lower bound the result is -1; above, 2**k must stay finite: k = 128 is taken in two steps.
    c = highest(lowest(x, by_kind(x, -20.0, -40.0)), by_kind(x, 89.0, 710.0))
    k, r = reduce(c)
    p = fma(polynomial(r, C.EXPM1[r.kind.name]) * r, r, r)
    half = power_of_two(k.int - 1)
    y = fma(half, p, half - 0.5) * 2.0
    # -0 and denormals come out as they went in.
    return select(fabs(x) < by_kind(x, 2.0**-25, 2.0**-54), x, y)


def sigmoid_fine(x: Value) -> Value:
    """1 / (1 + exp(-x)) in float32; with x = k ln2 + r: 2**k / (1 + (2**k + (exp(-r) - 1)))."""
    k, r = reduce(highest(lowest(x, -105.0), 40.0))
    power = scale(x.const(1.0), k)
    slope = fma(polynomial(r, [c * (-1) ** n for n, c in enumerate(C.EXPM1["f32"])]), r, -1.0)
    # The small numbers come together first: an error of the denominator counts twice just below a power of two.
    return power / (fma(slope, r, power) + 1.0)


# What sigmoid's quotient has above, and what exp(-r) is multiplied by there: of six million pairs the one with
# the least bound. Below 1, exp(-r) is rounded by half as much; about 0.7 the denominator is rounded by most where the
# quotient's unit is not at its smallest, and one over the other makes entries of the table nearly exact.
SIGMOID_ABOVE, SIGMOID_NEAR = 0.7567809820175171, 0.9681817889213562
SIGMOID_SCALE = 24  # both are over 2**24: the denominator is finite where the quotient is not 0


def _sigmoid_powers() -> list[int]:
    """The bits of 2**(n/16), scaled, less n << 19, for n of 0 to 15.

    A number of sixteenths added at bit 19 then scales the entry that its low bits have looked up.
    """
    powers = 2.0 ** (np.arange(16) / 16 - SIGMOID_SCALE) * SIGMOID_ABOVE / SIGMOID_NEAR
    return [int(bits) - (n << 19) for n, bits in enumerate(powers.astype(np.float32).view(np.int32))]


def sigmoid_quotient(x: Value, short: bool = False) -> Value:
    """1 / (1 + exp(-x)) in float32; exp(-x) = 2**k exp(-r) with k in sixteenths, the power looked up.

    short: by a polynomial of degree 2, and ln 2 of one constant.
    """
    c = highest(lowest(x, -105.0), 40.0)
    k = sixteenths(fma(c, -LOG2E, magic(x) / 16))
    r = fma(k.float, LN2_F32, c)
    if not short:
        r = fma(k.float, LN2 - LN2_F32, r)
    exp = C.EXP_SHORT["f32"] if short else (1.0, 1.0, *C.EXP_NEAR["f32"])
    near = polynomial(r, [SIGMOID_NEAR * coefficient * (-1) ** n for n, coefficient in enumerate(exp)])
    power = (look_up(_sigmoid_powers(), k.int) + (k.int << 19)).as_float()
    above = x.const(SIGMOID_ABOVE * 2.0**-SIGMOID_SCALE)
    return above / fma(power, near, above)


@vector("sigmoid_short", ("f32",))
def sigmoid_short(x: Value) -> Value:
    """The short quotient where that saves time: 9.5 ulp, below -20 13."""
    return sigmoid_quotient(x, short=True) if target().short_forms else sigmoid_pieces(x)


@vector("sigmoid", ("f32",))
def sigmoid_pieces(x: Value) -> Value:
    """With whole AVX-512 polynomials of degree 5 about multiples of 1/2 up to 7.75; beyond, and elsewhere, a quotient.

    A vector with a lane beyond computes both.
    """
    if has_quarters():
        return sigmoid_quarters(x)
    if not has_tables():
        return sigmoid_fine(x)
    if target().halves:
        return sigmoid_quotient(x)
    near = piecewise(tables.SIGMOID, place(x, 1))
    return where_beyond(~(fabs(x) < 7.75), near, lambda: sigmoid_quotient(x))


@vector("sigmoid", ("f64",))
def sigmoid(x: Value) -> Value:
    """1 / (1 + exp(-x)); with t = exp(-|x|): 1 / (1 + t) or t / (1 + t)."""
    t, one = exp_negative(-fabs(x))
    negative = x.bits() >> (x.kind.bits - 1)  # a mask: choosing by bits is cheaper than a comparison
    numerator = ((t.bits() & negative) | (t.const(one).bits() & ~negative)).as_float()
    return numerator / (t + one)


@vector("tanh", ("f32",))
def tanh_pieces(x: Value) -> Value:
    """With AVX-512 polynomials of degree 6 about multiples of 0.3 (0 included: x - x**3 ...); elsewhere `tanh`."""
    if not has("avx512f"):
        return tanh(x)
    a = highest(fabs(x), 9.3)
    piece = fma(a, 1 / 0.3, magic(a)).bits()
    centre, *c = tables.TANH
    return copysign(piecewise(c, Place(piece, a - look_up(centre, piece))), x)


@vector("tanh", ("f64",))
def tanh(x: Value) -> Value:
    """x + x**3 p(x**2) up to 0.625, beyond it 1 - 2 / (exp(2 |x|) + 1)."""
    a = fabs(x)
    far = a > 0.625
    z = x * x
    c = highest(a, by_kind(x, 10.0, 20.0))
    # Errors of the exponential are damped, so a reduction in base 2 with one rounded constant will do.
    k = nearest(fma(c, 2.0 * LOG2E, magic(x)))
    r = fma(c, 2.0 * LOG2E, -k.float)
    e = add_exponent(fma(polynomial(r, C.EXP2[x.kind.name]), r, 1.0), k.int)
    near = fma(polynomial(z, C.TANH[x.kind.name]) * z, x, x)
    # A NaN takes the near branch, which keeps it.
    return copysign(select(far, 1.0 - 2.0 / (e + 1.0), near), x)


def half_exp(a: Value) -> Value:
    """exp(a) / 2 for a >= 0, finite as long as the result is."""
    k, r = reduce(highest(a, by_kind(a, 90.0, 711.0)))
    return scale(exp_kernel(r), Whole(k.float - 1.0, k.int - 1))


@vector("sinh", FLOATS)
def sinh(x: Value) -> Value:
    a = fabs(x)
    z = highest(x * x, 1.0)
    near = fma(polynomial(z, C.SINH[x.kind.name]) * z, x, x)
    h = half_exp(a)
    return select(a < 1.0, near, copysign(h - 0.25 / h, x))


@vector("cosh", FLOATS)
def cosh(x: Value) -> Value:
    h = half_exp(fabs(x))
    return h + 0.25 / h


assert math.isclose(LOG2E, 1 / LN2)
