"""Complex functions on pairs of real expressions; special values as C's Annex G and the array API standard.

complex64 functions that are not plain arithmetic are computed in float64 and rounded once: nothing there over-
or underflows on the way, and cancellation costs none of float32's digits. complex128 uses the same formulas,
scaled where an intermediate result could overflow.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Any, NamedTuple

from . import types as T
from .scalar import Expr, call, cast, const, s
from .types import DType


class Pair(NamedTuple):
    """A complex value: real and imaginary part, of one real dtype."""

    re: Expr
    im: Expr


_ZERO, _ONE = const(0, T.float64), const(1, T.float64)
COMPLEX_MATH: dict[str, Callable[..., Any]] = {"complex": Pair}


def _define(name: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    def declare(fn: Callable[..., Any]) -> Callable[..., Any]:
        COMPLEX_MATH[name] = fn
        return fn

    return declare


def _in_float64(name: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Declare a function that works on float64 parts."""

    def declare(fn: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(fn)
        def run(*args: Pair) -> Any:
            dtype = args[0].re.dtype
            made = fn(*(_cast(x, T.float64) for x in args))
            return _cast(made, dtype) if isinstance(made, Pair) else cast(made, dtype)

        COMPLEX_MATH[name] = run
        return fn

    return declare


def _cast(x: Pair, dtype: DType) -> Pair:
    return Pair(cast(x.re, dtype), cast(x.im, dtype))


def complex_cast(x: Any, target: DType) -> Any:
    """A complex (or real) value converted to a complex dtype; to bool; or its real part to a real dtype."""
    if target.is_complex:
        x = x if isinstance(x, Pair) else Pair(x, const(0, target.real))
        return _cast(x, target.real)
    if target is T.bool_:
        return call("logical_or", call("ne", x.re, 0), call("ne", x.im, 0))
    return x.re


# ---------------------------------------------------------------- arithmetic and parts


@_define("add")
def add(x: Pair, y: Pair) -> Pair:
    return Pair(x.re + y.re, x.im + y.im)


@_define("sub")
def sub(x: Pair, y: Pair) -> Pair:
    return Pair(x.re - y.re, x.im - y.im)


@_define("mul")
def mul(x: Pair, y: Pair) -> Pair:
    return Pair(x.re * y.re - x.im * y.im, x.re * y.im + x.im * y.re)


@_define("fma")
def fma(x: Pair, y: Pair, z: Pair) -> Pair:
    return add(mul(x, y), z)


@_define("div")
def div(x: Pair, y: Pair) -> Pair:
    """Smith's algorithm, as NumPy: the smaller part of y is divided by the larger one. Source: CACM 5 (1962)."""
    first = s.ge(s.abs(y.re), s.abs(y.im))
    large, small = s.where(first, y.re, y.im), s.where(first, y.im, y.re)
    ratio = small / large
    scale = 1.0 / (large + small * ratio)
    re = s.where(first, x.re + x.im * ratio, x.re * ratio + x.im) * scale
    im = s.where(first, x.im - x.re * ratio, x.im * ratio - x.re) * scale
    zero = s.logical_and(s.eq(y.re, 0), s.eq(y.im, 0))
    by_zero = s.abs(y.re)
    return Pair(s.where(zero, x.re / by_zero, re), s.where(zero, x.im / by_zero, im))


@_define("neg")
def neg(x: Pair) -> Pair:
    return Pair(-x.re, -x.im)


@_define("conj")
def conj(x: Pair) -> Pair:
    return Pair(x.re, -x.im)


@_define("real")
def real(x: Pair) -> Expr:
    return x.re


@_define("imag")
def imag(x: Pair) -> Expr:
    return x.im


@_define("rint")
def rint(x: Pair) -> Pair:
    return Pair(s.rint(x.re), s.rint(x.im))


@_define("where")
def where(condition: Expr, x: Pair, y: Pair) -> Pair:
    return Pair(s.where(condition, x.re, y.re), s.where(condition, x.im, y.im))


@_define("eq")
def eq(x: Pair, y: Pair) -> Expr:
    return s.logical_and(s.eq(x.re, y.re), s.eq(x.im, y.im))  # type: ignore[no-any-return]


@_define("ne")
def ne(x: Pair, y: Pair) -> Expr:
    return s.logical_or(s.ne(x.re, y.re), s.ne(x.im, y.im))  # type: ignore[no-any-return]


for _name, _join in (("isnan", "logical_or"), ("isinf", "logical_or"), ("isfinite", "logical_and")):
    COMPLEX_MATH[_name] = lambda x, n=_name, j=_join: call(j, call(n, x.re), call(n, x.im))


# ---------------------------------------------------------------- modulus, argument, sign


def _hypot(a: Expr, b: Expr) -> Expr:
    """sqrt(a*a + b*b) of float64, scaled by a power of two; infinite where a part is, also beside NaN."""
    a, b = s.abs(a), s.abs(b)
    large = s.maximum(a, b)
    high, low = s.gt(large, 2.0**500), s.lt(large, 2.0**-500)
    scale = s.where(high, 2.0**-600, s.where(low, 2.0**600, _ONE))
    back = s.where(high, 2.0**600, s.where(low, 2.0**-600, _ONE))
    p, q = a * scale, b * scale
    root = s.sqrt(p * p + q * q) * back
    return s.where(s.logical_or(s.isinf(a), s.isinf(b)), math.inf, root)  # type: ignore[no-any-return]


@_in_float64("abs")
def abs_(x: Pair) -> Expr:
    return _hypot(x.re, x.im)


@_in_float64("angle")
def angle(x: Pair) -> Expr:
    return s.atan2(x.im, x.re)  # type: ignore[no-any-return]


@_in_float64("sign")
def sign(x: Pair) -> Pair:
    """x / |x|, and 0 of 0; of infinite parts the direction."""
    far = s.logical_or(s.isinf(x.re), s.isinf(x.im))
    a, b = (
        s.where(
            s.logical_or(s.isnan(p), s.logical_not(far)), p, s.copysign(s.where(s.isinf(p), _ONE, 0.0), p)
        )
        for p in x
    )
    size = _hypot(a, b)
    zero = s.eq(size, 0)
    return Pair(s.where(zero, 0.0, a / size), s.where(zero, 0.0, b / size))


# ---------------------------------------------------------------- exponentials and logarithms


def _exp(x: Pair) -> Pair:
    # exp(x.re) alone may overflow where its product with a small cosine does not.
    half = s.exp(x.re * 0.5)
    large = s.gt(x.re, 700.0)
    first, second = s.where(large, half, s.exp(x.re)), s.where(large, half, 1.0)
    re, im = s.cos(x.im) * first * second, s.sin(x.im) * first * second
    low, high = s.eq(x.re, -math.inf), s.eq(x.re, math.inf)
    wild = s.logical_not(s.isfinite(x.im))
    re = s.where(s.logical_and(low, wild), 0.0, s.where(s.logical_and(high, wild), math.inf, re))
    im = s.where(s.logical_and(low, wild), 0.0, im)
    plain = s.eq(x.im, 0)
    return Pair(s.where(plain, s.exp(x.re), re), s.where(plain, x.im, im))


_in_float64("exp")(_exp)


def _scaled(x: Pair, factor: float) -> Pair:
    return Pair(x.re * factor, x.im * factor)


@_in_float64("exp2")
def exp2(x: Pair) -> Pair:
    return _exp(_scaled(x, math.log(2)))


@_in_float64("expm1")
def expm1(x: Pair) -> Pair:
    whole = _exp(x)
    half = s.sin(x.im * 0.5)
    re = s.expm1(x.re) * s.cos(x.im) - 2.0 * (half * half)
    re = s.where(s.lt(s.abs(x.re), 1.0), re, whole.re - 1.0)
    real = s.where(s.eq(x.re, 0), _ZERO, s.expm1(x.re))  # exp(-0 + 0j) - 1 is 0, not -0
    return Pair(s.where(s.eq(x.im, 0), real, re), whole.im)


def _log_modulus(a: Expr, b: Expr) -> Expr:
    """log|a + bi|, exact also where the modulus is near 1."""
    p, q = s.abs(a), s.abs(b)
    large, small = s.where(s.lt(p, q), q, p), s.where(s.lt(p, q), p, q)
    near = s.logical_and(s.gt(large, 0.5), s.lt(large, 2.0))
    close = 0.5 * s.log1p((large - 1.0) * (large + 1.0) + small * small)
    scale = s.where(s.gt(large, 2.0**1000), 0.5, _ONE)
    far = s.log(_hypot(a * scale, b * scale)) + s.where(s.lt(scale, 1.0), math.log(2), _ZERO)
    return s.where(near, close, far)  # type: ignore[no-any-return]


def _log(x: Pair) -> Pair:
    return Pair(_log_modulus(x.re, x.im), s.atan2(x.im, x.re))


_in_float64("log")(_log)


@_in_float64("log2")
def log2(x: Pair) -> Pair:
    return _scaled(_log(x), 1 / math.log(2))


@_in_float64("log10")
def log10(x: Pair) -> Pair:
    return _scaled(_log(x), 1 / math.log(10))


@_in_float64("log1p")
def log1p(x: Pair) -> Pair:
    inner = s.logical_and(s.lt(s.abs(x.re), 0.5), s.lt(s.abs(x.im), 0.5))
    close = 0.5 * s.log1p(x.re * (x.re + 2.0) + x.im * x.im)
    shifted = x.re + 1.0
    re = s.where(inner, close, _log_modulus(shifted, x.im))
    return Pair(re, s.atan2(x.im, shifted))


@_in_float64("pow")
def power(x: Pair, y: Pair) -> Pair:
    """exp(y log x); x ** 0 is 1, and 0 ** y is 0 where y's real part is positive."""
    made = _exp(mul(y, _log(x)))
    zero = s.logical_and(s.eq(x.re, 0), s.eq(x.im, 0))
    base = s.where(s.gt(y.re, 0), 0.0, const(math.nan, T.float64))
    re, im = s.where(zero, base, made.re), s.where(zero, base, made.im)
    one = s.logical_and(s.eq(y.re, 0), s.eq(y.im, 0))
    return Pair(s.where(one, 1.0, re), s.where(one, 0.0, im))


@_in_float64("sigmoid")
def sigmoid(x: Pair) -> Pair:
    e = _exp(neg(x))
    one = Pair(_ONE, _ZERO)
    return div(one, Pair(e.re + 1.0, e.im))


# ---------------------------------------------------------------- roots


def _sqrt(x: Pair) -> Pair:
    a, b = x
    large = s.maximum(s.abs(a), s.abs(b))
    big, tiny = s.gt(large, 2.0**1000), s.lt(large, 2.0**-900)
    scale = s.where(big, 2.0**-4, s.where(tiny, 2.0**200, _ONE))
    back = s.where(big, 2.0**2, s.where(tiny, 2.0**-100, _ONE))
    p, q = a * scale, b * scale
    root = s.sqrt((s.abs(p) + _hypot(p, q)) * 0.5)
    other = s.abs(q) / (root * 2.0)
    right = s.ge(p, 0)
    re = s.where(right, root, other) * back
    im = s.copysign(s.where(right, other, root) * back, b)
    zero = s.logical_and(s.eq(a, 0), s.eq(b, 0))
    re, im = s.where(zero, 0.0, re), s.where(zero, b, im)
    # An infinite part decides.
    up = s.isinf(b)
    right, left = s.eq(a, math.inf), s.eq(a, -math.inf)
    level = s.where(s.isnan(b), b, 0.0)
    re = s.where(up, math.inf, s.where(right, math.inf, s.where(left, level, re)))
    im = s.where(up, b, s.where(right, s.copysign(level, b), s.where(left, s.copysign(s.abs(a), b), im)))
    return Pair(re, im)


_in_float64("sqrt")(_sqrt)


@_in_float64("rsqrt")
def rsqrt(x: Pair) -> Pair:
    return div(Pair(_ONE, _ZERO), _sqrt(x))


# ---------------------------------------------------------------- trigonometry


def _turned(x: Pair) -> Pair:
    """i x."""
    return Pair(-x.im, x.re)


def _turned_back(x: Pair) -> Pair:
    """x / i."""
    return Pair(x.im, -x.re)


def _sinh(x: Pair) -> Pair:
    a, b = x
    wild = s.logical_and(s.isinf(a), s.logical_not(s.isfinite(b)))
    re = s.where(wild, a, s.where(s.eq(a, 0), a, s.sinh(a) * s.cos(b)))
    return Pair(re, s.where(s.eq(b, 0), b, s.cosh(a) * s.sin(b)))


def _cosh(x: Pair) -> Pair:
    a, b = x
    wild = s.logical_and(s.isinf(a), s.logical_not(s.isfinite(b)))
    re = s.where(wild, math.inf, s.cosh(a) * s.cos(b))
    flat = s.where(s.isfinite(b), a * s.sin(b), s.abs(a))
    im = s.where(s.eq(b, 0), b * s.copysign(_ONE, a), s.where(s.eq(a, 0), flat, s.sinh(a) * s.sin(b)))
    return Pair(re, im)


def _tanh(x: Pair) -> Pair:
    """Source: Kahan, Branch cuts for complex elementary functions, 1987."""
    a, b = x
    t = s.tan(b)
    beta, h = t * t + 1.0, s.sinh(a)
    below = beta * (h * h) + 1.0
    re, im = beta * s.sqrt(h * h + 1.0) * h / below, t / below
    far = s.gt(s.abs(a), 22.0)
    fade = 4.0 * s.sin(b) * s.cos(b) * s.exp(-2.0 * s.abs(a))
    fade = s.where(s.isinf(a), s.copysign(_ZERO, b), fade)  # the array API's zero; C has the sign of sin(2 b)
    re = s.where(far, s.copysign(_ONE, a), re)
    im = s.where(far, fade, im)
    lost = s.logical_and(s.logical_not(s.isinf(a)), s.logical_not(s.isfinite(b)))
    re, im = s.where(lost, math.nan, re), s.where(lost, math.nan, im)
    return Pair(s.where(s.eq(a, 0), a, re), s.where(s.eq(b, 0), b, im))


def _roots(x: Pair) -> tuple[Pair, Pair]:
    """The square roots of 1 - x and 1 + x."""
    return _sqrt(Pair(1.0 - x.re, -x.im)), _sqrt(Pair(x.re + 1.0, x.im))


def _asin(x: Pair) -> Pair:
    """Source: Kahan, 1987, through the roots of 1 - x and 1 + x."""
    minus, plus = _roots(x)
    re = s.atan2(x.re, mul(minus, plus).re)
    im = s.copysign(s.asinh(mul(conj(minus), plus).im), x.im)
    return _asin_at_infinity(x, re, im, _ZERO, x.im)


def _asin_at_infinity(x: Pair, re: Expr, im: Expr, turn: Expr, sign: Expr) -> Pair:
    """re and im, but at infinities and NaN |turn - asin(x).re| and an infinite imaginary part with a sign."""
    a, b = x
    far_a, far_b = s.isinf(a), s.isinf(b)
    either = s.logical_or(far_a, far_b)
    lost = s.logical_or(s.isnan(a), s.isnan(b))
    size = s.where(far_a, s.where(far_b, math.pi / 4, const(math.pi / 2, T.float64)), 0.0)
    angle = s.where(lost, math.nan, s.copysign(size, a))
    angle = s.where(s.eq(turn, 0), angle, turn - angle)
    flat = s.logical_and(s.eq(a, 0), s.isnan(b))
    at_zero = s.where(s.eq(turn, 0), a, turn)
    re = s.where(either, angle, s.where(flat, at_zero, re))
    return Pair(re, s.where(either, s.copysign(const(math.inf, T.float64), sign), im))


def _atanh(x: Pair) -> Pair:
    """Source: Kahan, 1987."""
    a, b = x
    size = s.abs(a)
    left = 1.0 - size
    re = s.copysign(0.25 * s.log1p(4.0 * size / (left * left + b * b)), a)
    # Where squares overflow the result is 1 / x.
    modulus = _hypot(a, b)
    huge = s.gt(modulus, 2.0**500)
    re = s.where(huge, s.where(s.isinf(modulus), s.copysign(_ZERO, a), (a / modulus) / modulus), re)
    im = 0.5 * s.atan2(2.0 * b, left * (size + 1.0) - b * b)
    im = s.where(huge, s.where(s.isnan(b), b, s.copysign(const(math.pi / 2, T.float64), b)), im)
    return Pair(s.where(s.eq(a, 0), a, re), im)


_in_float64("sinh")(_sinh)
_in_float64("cosh")(_cosh)
_in_float64("tanh")(_tanh)
_in_float64("asin")(_asin)
_in_float64("atanh")(_atanh)
for _name, _body in (("sin", _sinh), ("tan", _tanh), ("atan", _atanh)):
    _in_float64(_name)(lambda x, f=_body: _turned_back(f(_turned(x))))
_in_float64("cos")(lambda x: _cosh(_turned(x)))
_in_float64("asinh")(lambda x: _turned_back(_asin(_turned(x))))


def _acos(x: Pair) -> Pair:
    minus, plus = _roots(x)
    im = s.copysign(s.asinh(mul(conj(plus), minus).im), -x.im)
    re = 2.0 * s.atan2(minus.re, plus.re)
    return _asin_at_infinity(x, re, im, const(math.pi / 2, T.float64), -x.im)


_in_float64("acos")(_acos)


@_in_float64("acosh")
def acosh(x: Pair) -> Pair:
    """i acos(x) or its negative, whichever has a real part from 0."""
    turned = _acos(x)
    return Pair(s.abs(turned.im), s.copysign(turned.re, x.im))
