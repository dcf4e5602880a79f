"""Distributions whose draws are accepted or refused: gamma, beta, Dirichlet, Poisson.

Each element has a random key of 64 bits; its proposals are the counters of Philox under that key, so that how many
one element needs says nothing about the next, and both modes and all devices draw the same. Kernels compute in float64.
"""

from __future__ import annotations

import math

import numpy as np

from .. import types as T
from ..errors import ArgumentError, ArgumentTypeError, DtypeError, ShapeError
from ..op import Ints, pointwise, primitive, public
from ..scalar import philox_numpy, s
from ..types import TensorType
from ..value import Tensor
from . import elementwise as E
from .activation import softmax
from .creation import _filled, full
from .random import _draw, _positive, _shared
from .special import digamma
from .views import broadcast_to

#: proposals for one element; each is refused with a probability below 0.3, so the last one is never reached
PROPOSALS = 128
#: the counter of the number that brings a draw below concentration 1
BELOW = 1 << 20
#: from this rate on, proposals; below, the distribution function is searched
SEARCHED = 12.0
#: from this concentration on, the slope of a draw is that of Wilson and Hilferty's approximation
LARGE = 20_000.0


def _bits_onnx(o, seed, offset, *, shape, device):
    half = lambda: o.Floor(o.Mul(o.random("RandomUniform", shape, T.float64), o.const(2.0**32, T.float64)))
    high = o.cast(o.Sub(half(), o.const(2.0**31, T.float64)), T.int64)
    return o.Add(o.Mul(high, o.const(1 << 32, T.int64)), o.cast(half(), T.int64))


@pointwise(counts=True, internal=True, no_gradient="random", onnx=_bits_onnx)
def random_bits(seed, offset, *, shape, device=None):
    """64 random bits for each element, as int64."""
    high = s.cast(s.philox(seed, offset, 0), T.uint64)
    return s.cast(high * (1 << 32) + s.cast(s.philox(seed, offset, 1), T.uint64), T.int64)


@random_bits.type
def _(seed, offset, *, shape, device=None):
    return _filled("random_bits", shape=shape, dtype=T.int64)


random_bits.sample(3, 7, shape=(4, 5), grad=False)


def _unit(key, at, word=0):
    """A number in (0, 1): 53 bits of two words."""
    high, low = (int(philox_numpy(key, 0, at, word + k)) for k in (0, 1))
    return ((high >> 5) * 67108864 + (low >> 6) + 0.5) * 2.0**-53


def _each(draw, keys, parameter, dtype):
    """draw(key, number) for every element."""
    pairs = zip(keys.ravel().view(np.uint64), parameter.ravel().astype(np.float64))
    return np.array([draw(int(k), float(a)) for k, a in pairs], np.float64).reshape(keys.shape).astype(dtype)


def _draw_type(op, name):
    def rule(keys, parameter):
        if keys.dtype is not T.int64 or keys.shape != parameter.shape:
            raise ShapeError(op, f"keys: {keys} do not fit {name}: {parameter}", "one int64 for each element")
        if not parameter.dtype.is_float:
            raise DtypeError(op, f"{name}: {parameter} is no float", "convert with .to(dg.float32)")
        return TensorType(parameter.dtype, parameter.shape)

    return rule


# ---------------------------------------------------------------- gamma


def _log_gamma_draw(key, a):
    if not a > 0 or math.isinf(a):
        return -math.inf if a == 0 else math.inf if a > 0 else math.nan
    d = (a if a >= 1 else a + 1) - 1 / 3
    c = 1 / math.sqrt(9 * d)
    found = math.log(d)
    for k in range(PROPOSALS):
        x = math.sqrt(-2 * math.log(_unit(key, 2 * k))) * math.cos(2 * math.pi * _unit(key, 2 * k, 2))
        t = 1 + c * x
        if t > 0:
            v = t * t * t
            if math.log(_unit(key, 2 * k + 1)) < 0.5 * x * x + d - d * v + d * math.log(v):
                found = math.log(d * v)
                break
    return found + math.log(_unit(key, BELOW)) / a if a < 1 else found


@primitive(internal=True, parts="log_gamma_draw")
def log_gamma_draw(keys, concentration):
    """The logarithm of a gamma variate of rate 1 for each key, so that tiny ones do not vanish.

    keys: int64[...], concentration: float[...] of that shape. Returns: concentration's dtype.
    Numerics: -inf for 0, NaN below. The gradient for the concentration is that of the draw at a fixed value of
    its distribution function (implicit reparameterisation); none of order two.
    Source: Marsaglia and Tsang, 2000; Figurnov, Mohamed and Mnih, 2018.
    """
    return _each(_log_gamma_draw, keys, concentration, concentration.dtype)


log_gamma_draw.type(_draw_type("log_gamma_draw", "concentration"))


@log_gamma_draw.grad
def concentration(g, concentration, out):
    wide = [v.to(T.float64) for v in (concentration, out)]
    return g * log_gamma_slope(*wide, digamma(wide[0])).to(g.dtype)


log_gamma_draw.sample(Ints((3, 4), -(2**60), 2**60), (3, 4), low=0.2, high=8.0, grad=False)
log_gamma_draw.sample(Ints((0,)), (0,), grad=False).sample(Ints((), 5, 6), np.array(0.3), grad=False)
log_gamma_draw.error_sample(Ints((3,)), (2,), match="do not fit concentration")


def _slope(a, log_z, psi):
    """d log(z) / da at a fixed P(a, z): by the series of P below its mean, by the continued fraction of 1 - P above."""
    z, gap = math.exp(log_z) if log_z < 700 else math.inf, log_z - psi
    if math.isnan(a + log_z) or math.isinf(log_z) or a <= 0:
        return math.nan
    if a > LARGE:
        root = math.exp((log_z - math.log(a)) / 3)
        w = 3 * math.sqrt(a) * (root - 1 + 1 / (9 * a))
        return 1 / a + 3 / root * (1 / (9 * a * a) - w / (6 * a * math.sqrt(a)))
    if z < a + 1:
        term, harmonic = 1 / a, 1 / a
        total, slope, n = term, -term / a, 0
        while term > 1e-18 * total and n < 100_000:
            n += 1
            term *= z / (a + n)
            harmonic += 1 / (a + n)
            total += term
            slope -= term * harmonic
        return -(total * gap + slope)
    b, c, cs = z + 1 - a, 1e300, 0.0
    d = 1 / b
    ds = d * d
    h, hs = d, ds
    for n in range(1, 100_000):
        an = -n * (n - a)
        b += 2
        ds, d = n * d + an * ds - 1, an * d + b
        cs, c = n / c - an * cs / c / c - 1, b + an / c
        d = 1 / d
        ds = -ds * d * d
        step, steps = d * c, ds * c + d * cs
        hs = hs * step + h * steps
        h *= step
        if abs(step - 1) < 1e-15 and abs(steps) < 1e-15 * (abs(hs / h) + 1e-3):
            break
    return h * gap + hs


@primitive(
    internal=True, parts="log_gamma_slope",
    no_gradient="the second derivative of a draw by its concentration is not written",
)  # fmt: skip
def log_gamma_slope(concentration, value, psi):
    """The derivative of log_gamma_draw's result by the concentration.

    concentration, value (the result), psi (digamma of the concentration): float[...] alike. Returns: the same.
    Numerics: computed in float64, to about 1e-9; from a concentration of 20,000 on, 1e-6.
    """
    rows = zip(concentration.ravel(), value.ravel(), psi.ravel())
    found = np.array([_slope(*map(float, r)) for r in rows], np.float64)
    return found.reshape(value.shape).astype(value.dtype)


@log_gamma_slope.type
def _(concentration, value, psi):
    for name, v in (("concentration", concentration), ("psi", psi)):
        if v != value or not v.dtype.is_float:
            raise ShapeError("log_gamma_slope", f"{name}: {v} is not as value: {value}", "give three alike")
    return value


log_gamma_slope.sample((3, 4), (3, 4), (3, 4), low=0.3, high=2.0, grad=False)
log_gamma_slope.error_sample((3,), (2,), (2,), match="is not as value")


def _log_gamma(op, shape, dtype, device, generator, a, *params):
    """Logarithms of gamma variates of rate 1 for a draw with these parameters, and (shape, dtype, device)."""
    size, kind, home = _shared(op, shape, dtype, device, a, *params)
    a = a.to(kind) if isinstance(a, Tensor) else full((), a, kind, home)
    keys = random_bits(*_draw(size, generator), shape=size, device=home)
    return log_gamma_draw(keys, a if a.shape == size else broadcast_to(a, shape=size))


@public
def gamma(concentration, rate=1.0, shape=None, dtype=None, device=None, generator=None):
    """Gamma floats, of mean `concentration / rate`. concentration, rate: positive numbers or tensors.

    Returns: the shape given, else that of the parameters; their dtype (else float32).
    Raises: ArgumentError for numbers not above 0. Numerics: drawn in float64; the gradient flows to both parameters
    (to the concentration by implicit reparameterisation, of order one).
    Source: Marsaglia and Tsang, 2000; Figurnov, Mohamed and Mnih, 2018.
    Example: `dg.gamma(2.0, shape=(3,)).shape` is `(3,)`.
    """
    _positive("gamma", "concentration", concentration)
    _positive("gamma", "rate", rate)
    return E.exp(_log_gamma("gamma", shape, dtype, device, generator, concentration, rate)) / rate


@public
def beta(a, b, shape=None, dtype=None, device=None, generator=None):
    """Beta floats in [0, 1], of mean `a / (a + b)`: the share of one gamma variate in two. a, b: positive.

    a, b: numbers or tensors. Returns: the shape given, else that of the parameters; their dtype (else float32).
    Raises: ArgumentError for numbers not above 0. Numerics: shares are computed from logarithms, so tiny parameters
    give 0 and 1, not NaN; gradients as of `dg.gamma`. Example: `dg.beta(2.0, 3.0, shape=(3,)).shape` is `(3,)`.
    """
    _positive("beta", "a", a)
    _positive("beta", "b", b)
    size, kind, home = _shared("beta", shape, dtype, device, a, b)
    one, two = (_log_gamma("beta", size, kind, home, generator, p) for p in (a, b))
    return E.sigmoid(one - two)


@public
def dirichlet(concentration, shape=(), dtype=None, device=None, generator=None):
    """Shares that add up to 1 along a last axis: gamma variates over their sum.

    concentration: float[..., K], positive; shape: leading axes of further draws. Returns: float[*shape, ..., K].
    Raises: ArgumentTypeError unless the concentration is a float tensor of one axis or more. Gradients as of
    `dg.gamma`. Example: `dg.dirichlet(dg.ones((3,)), shape=(2,)).shape` is `(2, 3)`.
    """
    if not isinstance(concentration, Tensor) or not concentration.ndim or not concentration.dtype.is_float:
        raise ArgumentTypeError(
            "dirichlet", "concentration is no float tensor of one axis or more", "pass [..., K]"
        )
    lead = (shape,) if isinstance(shape, int) else tuple(shape)
    drawn = _log_gamma("dirichlet", (*lead, *concentration.shape), dtype, device, generator, concentration)
    return softmax(drawn, axis=-1)


# ---------------------------------------------------------------- Poisson


def _log_factorial(k):
    """By Stirling's series, where it serves."""
    z, product = k + 1.0, 1.0
    while z < 9.0:
        product *= z
        z += 1.0
    r = 1 / z
    q = r * r
    rest = r * (1 / 12 - q * (1 / 360 - q * (1 / 1260 - q * (1 / 1680 - q * (1 / 1188)))))
    return (z - 0.5) * math.log(z) - z + 0.9189385332046727 + rest - math.log(product)


def _poisson_draw(key, rate):
    if not 0 < rate < math.inf:
        return 0.0 if rate == 0 else math.nan
    if rate < SEARCHED:
        u, k, p = _unit(key, 0), 0, math.exp(-rate)
        total = p
        while u > total and k < 1000:
            k += 1
            p *= rate / k
            total += p
        return float(k)
    b = 0.931 + 2.53 * math.sqrt(rate)
    a = -0.059 + 0.02483 * b
    inverse, sure = 1.1239 + 1.1328 / (b - 3.4), 0.9277 - 3.6224 / (b - 2)
    k = math.floor(rate)
    for n in range(PROPOSALS):
        u, v = _unit(key, n) - 0.5, _unit(key, n, 2)
        inner = 0.5 - abs(u)
        k = math.floor((2 * a / inner + b) * u + rate + 0.43)
        if inner >= 0.07 and v <= sure:
            break
        if k < 0 or (inner < 0.013 and v > inner):
            continue
        bound = k * math.log(rate) - rate - _log_factorial(k)
        if math.log(v * inverse / (a / (inner * inner) + b)) <= bound:
            break
    return float(max(k, 0))


@primitive(internal=True, no_gradient="counts are integers", parts="poisson_draw")
def poisson_draw(keys, rate):
    """A Poisson count for each key. keys: int64[...], rate: float[...] of that shape. Returns: rate's dtype.

    Below a rate of 12 by searching the distribution function, else by transformed rejection. Numerics: 0 for 0,
    NaN below it and for infinity. Source: Hoermann, 1993.
    """
    return _each(_poisson_draw, keys, rate, rate.dtype)


poisson_draw.type(_draw_type("poisson_draw", "rate"))
poisson_draw.sample(Ints((3, 4), -(2**60), 2**60), (3, 4), low=0.1, high=40.0, grad=False)
poisson_draw.sample(Ints((4,), 0, 2**60), np.array([0.0, 3.5, 100.0, 2000.0]), grad=False).sample(
    Ints((0,)), (0,), grad=False
)
poisson_draw.error_sample(Ints((3,)), (2,), match="do not fit rate")


@public
def poisson(rate=1.0, shape=None, dtype=None, device=None, generator=None):
    """Poisson counts, as floats. rate: the mean, a number or a tensor, from 0.

    Returns: the shape given, else the rate's; its dtype (else float32). Raises: ArgumentError for a number below 0.
    Numerics: drawn in float64; no gradient flows to the rate. Source: Hoermann, 1993.
    Example: `dg.poisson(3.0, shape=(2,)).shape` is `(2,)`.
    """
    if not isinstance(rate, Tensor) and not rate >= 0:
        raise ArgumentError("poisson", f"rate={rate} is below 0", "use a mean from 0 on")
    size, kind, home = _shared("poisson", shape, dtype, device, rate)
    rate = rate.detach().to(kind) if isinstance(rate, Tensor) else full((), rate, kind, home)
    keys = random_bits(*_draw(size, generator), shape=size, device=home)
    return poisson_draw(keys, rate if rate.shape == size else broadcast_to(rate, shape=size))
