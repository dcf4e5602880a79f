"""Error functions, the logarithm of gamma and its derivatives, element by element.

Those without a scalar instruction are series and recurrences, written once for all backends; float32 is
computed in float64 where a step would lose digits. Errors are bounded in `tests/test_elementwise_peers.py`.
"""

# Gradient rules are named after the input they are for, so names repeat here.
# ruff: noqa: F811
from __future__ import annotations

import math

from .. import types as T
from ..op import pointwise
from ..scalar import s
from . import elementwise as E


@pointwise(to_float=True, onnx="Erf")
def erf(x):
    """The error function, `2/sqrt(pi)` times the integral of `exp(-t*t)` from 0 to x. Source: ONNX Erf."""
    return s.erf(x)


@erf.grad
def x(g, x):
    return g * (E.exp(E.negative(x * x)) * (2 / math.sqrt(math.pi)))


erf.sample((3, 4))


@pointwise(to_float=True)
def erfc(x):
    """`1 - erf(x)`, exact where that is small."""
    return s.erfc(x)


@erfc.grad
def x(g, x):
    return g * (E.exp(E.negative(x * x)) * (-2 / math.sqrt(math.pi)))


erfc.sample((3, 4))


@pointwise(to_float=True)
def erfinv(x):
    """The inverse of erf. Numerics: infinite at -1 and 1, NaN beyond.

    A start within 0.3% (Winitzki's formula; a series about 0), then Halley steps, each of which triples the
    digits. Source: Winitzki, 2008.
    """
    a = s.abs(x)
    tail = (1 - a) * (1 + a)
    lg = s.log(tail)
    t = lg * 0.5 + 2 / (math.pi * 0.147)
    far = s.sqrt(s.sqrt(t * t - lg * (1 / 0.147)) - t)
    z = a * a
    near = a * ((z * (7 * math.pi**2 / 480) + math.pi / 12) * z + 1) * (math.sqrt(math.pi) / 2)
    inner = s.lt(a, 0.5)
    y = s.where(inner, near, far)
    for _ in range(2 if x.dtype.itemsize == 8 else 1):
        # Near 1 the difference of complements keeps the digits.
        miss = s.where(inner, s.erf(y) - a, (1 - a) - s.erfc(y))
        u = miss * s.exp(y * y) * (math.sqrt(math.pi) / 2)
        y = y - u / (y * u + 1)
    return s.copysign(s.where(s.eq(a, 1), math.inf, y), x)


@erfinv.grad
def x(g, out):
    return g * (E.exp(out * out) * (math.sqrt(math.pi) / 2))


erfinv.sample((3, 4), low=-0.9, high=0.9)


# ---------------------------------------------------------------- gamma


def _zeta_minus_one(k):
    """zeta(k) - 1, by summation and the Euler-Maclaurin formula."""
    n = 20
    total = math.fsum(j**-k for j in range(2, n)) + n ** (1 - k) / (k - 1) + 0.5 * n**-k
    rising = float(k)
    for j, b in enumerate(_BERNOULLI[:6], 1):
        total += b / math.factorial(2 * j) * rising * n ** (1 - k - 2 * j)
        rising *= (k + 2 * j - 1) * (k + 2 * j)
    return total


#: B(2), B(4), ...
_BERNOULLI = (1 / 6, -1 / 30, 1 / 42, -1 / 30, 5 / 66, -691 / 2730, 7 / 6, -3617 / 510, 43867 / 798)
_EULER = 0.5772156649015329
#: lgamma(2 + t) / t by powers of t
_LGAMMA = (1 - _EULER, *((-1) ** k * _zeta_minus_one(k) / k for k in range(2, 28)))


def _polynomial(x, coefficients):
    out = x * 0 + coefficients[-1]
    for c in reversed(coefficients[:-1]):
        out = out * x + c
    return out


@pointwise(to_float=True)
def lgamma(x):
    """The logarithm of `|gamma(x)|`. Numerics: infinite at 0, -1, -2, ... and at both infinities.

    From 0 to 8.5 the argument is brought to [1.5, 2.5], where a series in zeta(k) serves; beyond, Stirling's
    series; below 0, reflection, which near the zeros between negative integers is exact in the absolute
    sense only.
    """
    kind, x = x.dtype, s.cast(x, T.float64)
    a = s.abs(x)
    y, product = s.minimum(a, 8.5), a * 0 + 1
    for _ in range(6):
        down = s.ge(y, 2.5)
        y = s.where(down, y - 1, y)
        product = s.where(down, product * y, product)
    low, one = s.lt(a, 0.5), s.lt(a, 1.5)
    t = s.where(low, a, s.where(one, a - 1, y - 2))
    divisor = s.where(low, a * (a + 1), a)
    small = s.lt(a, 8.5)
    z = s.maximum(a, 8.5)
    lg = s.log(s.where(one, divisor, s.where(small, product, z)))
    r = 1 / z
    rest = _polynomial(r * r, [b / (2 * j * (2 * j - 1)) for j, b in enumerate(_BERNOULLI[:8], 1)])
    stirling = (z - 0.5) * (lg - 1) + (0.5 * math.log(2 * math.pi) - 0.5) + r * rest
    out = s.where(small, t * _polynomial(t, _LGAMMA) + s.where(one, -lg, lg), stirling)
    out = s.where(s.eq(a, math.inf), math.inf, out)
    turn = s.sin(s.abs(a - s.rint(a)) * math.pi)
    reflected = s.log(math.pi / (a * turn)) - out
    out = s.where(s.logical_and(s.lt(x, 0), s.lt(a, math.inf)), reflected, out)
    return s.cast(out, kind)


@lgamma.grad
def x(g, x):
    return g * digamma(x)


lgamma.sample((3, 4), low=0.2, high=12.0).sample((5,), low=-2.9, high=-2.1)


@pointwise(to_float=True)
def digamma(x):
    """The derivative of `log(gamma(x))`.

    Numerics: -inf at 0 (inf at -0), NaN at -1, -2, ...; near its zeros exact in the absolute sense.
    """
    kind, x = x.dtype, s.cast(x, T.float64)
    below = s.lt(x, 0)
    z = s.where(below, 1 - x, x)
    # The sum of 1 / (z + k) as one fraction, until the asymptotic series serves.
    above, under = z * 0, z * 0 + 1
    for _ in range(9):
        up = s.lt(z, 9)
        above = s.where(up, above * z + under, above)
        under = s.where(up, under * z, under)
        z = s.where(up, z + 1, z)
    r = 1 / z
    series = _polynomial(r * r, [0, *(b / (2 * j) for j, b in enumerate(_BERNOULLI[:8], 1))])
    out = s.log(z) - r * 0.5 - series - above / under
    part = x - s.rint(x)
    cotangent = s.where(s.eq(part, 0), math.nan, s.cos(part * math.pi) / s.sin(part * math.pi) * math.pi)
    out = s.where(below, out - cotangent, out)
    out = s.where(s.eq(x, 0), s.copysign(x * 0 + math.inf, -x), out)
    return s.cast(s.where(s.eq(x, math.inf), x, out), kind)


@digamma.grad
def x(g, x):
    return g * polygamma_(x, n=1)


digamma.sample((3, 4), low=0.2, high=12.0).sample((5,), low=-2.9, high=-2.1)


def _cotangent_derivative(n):
    """Coefficients c with d^n/dt^n cot(t) = sum of c[k] cot(t)**k."""
    c = [0, 1]
    for _ in range(n):
        slope = [k * v for k, v in enumerate(c)][1:]
        c = [-v for v in slope] + [0, 0]
        for k, v in enumerate(slope):
            c[k + 2] -= v
    return c


@pointwise(internal=True, to_float=True)
def polygamma_(x, *, n):
    """The n-th derivative of digamma, n from 1: a Hurwitz zeta function, by the Euler-Maclaurin formula."""
    kind, x = x.dtype, s.cast(x, T.float64)
    below = s.lt(x, 0)
    a = s.where(below, 1 - x, x)

    def powers(z):
        """z ** -(n + 1)"""
        r = 1 / z
        out = r
        for _ in range(n):
            out = out * r
        return out

    total = powers(a)
    for k in range(1, 10):
        total = total + powers(a + k)
    z = a + 10
    last, r = powers(z), 1 / z
    coefficients, rising = [], float(n + 1)
    for j, b in enumerate(_BERNOULLI[:8], 1):
        coefficients.append(b / math.factorial(2 * j) * rising)
        rising *= (n + 2 * j) * (n + 2 * j + 1)
    total = total + last * (z * (1 / n) + 0.5 + r * _polynomial(r * r, coefficients))
    out = total * ((-1) ** (n + 1) * math.factorial(n))
    part = (x - s.rint(x)) * math.pi
    cot = s.cos(part) / s.sin(part)
    turned = out * (-1) ** n - _polynomial(cot, _cotangent_derivative(n)) * math.pi ** (n + 1)
    return s.cast(s.where(below, turned, out), kind)


@polygamma_.grad
def x(g, x, n):
    return g * polygamma_(x, n=n + 1)


polygamma_.sample((3, 4), low=0.3, high=12.0, n=1).sample((5,), low=-2.8, high=-2.2, n=2)
