"""Draws that are accepted or refused, from uniform and normal draws, for exporters to formats that have no such op.

Keys are not looked at: the runtime draws from a generator of its own. Each element has so many proposals that the
chance of none being accepted is below 1e-16. They are drawn at once and not in a loop, because onnxruntime seeds a
random node by its place in its own subgraph: two loops would draw the same numbers. Kernels never run these.
"""

from __future__ import annotations

import math
from typing import Any

from .. import types as T
from ..op import REGISTRY as ops
from . import elementwise as E
from .creation import full
from .picking import take_elements
from .random import _open, randn
from .reduction import argmax
from .sampling import LARGE, SEARCHED
from .shape import reshape
from .special import lgamma

#: proposals for one element: each is refused with a probability below 0.05, and below 0.3
GAMMA, POISSON = 13, 32


def _filled(like: Any, value: Any, dtype: Any = None, shape: Any = None) -> Any:
    return full(like.shape if shape is None else shape, value, dtype=dtype or like.dtype, device=like.device)


def _unit(like: Any, count: int = 0) -> Any:
    """Numbers in (0, 1), so many of them for each element along a new first axis."""
    shape = (count, *like.shape) if count else like.shape
    return _open("rand", shape, T.float64, like.device, None)


def _first(accepted: Any, values: Any) -> Any:
    """The first value that is accepted along the first axis."""
    place = argmax(accepted.to(T.int32), axis=0, keepdims=True)
    return reshape(take_elements(values, place, axis=0), shape=values.shape[1:])


def log_gamma_draw(keys: Any, concentration: Any) -> Any:
    """Marsaglia and Tsang's proposals for all elements at once."""
    a = concentration.to(T.float64)
    drawn = E.logical_and(E.greater(a, 0), E.isfinite(a))
    safe = E.where(drawn, a, 1.0)
    d = E.where(E.less(safe, 1), safe + 1, safe) - 1 / 3
    c = 1 / E.sqrt(9 * d)

    x = randn((GAMMA, *a.shape), dtype=T.float64, device=a.device)
    t = 1 + c * x
    inside = E.greater(t, 0)
    v = E.where(inside, t * t * t, 1.0)
    bound = 0.5 * x * x + d - d * v + d * E.log(v)
    found = _first(E.logical_and(inside, E.less(E.log(_unit(a, GAMMA)), bound)), E.log(d * v))
    found = E.where(E.less(safe, 1), found + E.log(_unit(a)) / safe, found)
    limits = E.where(E.equal(a, 0), -math.inf, E.where(E.greater(a, 0), math.inf, math.nan))
    return E.where(drawn, found, limits).to(concentration.dtype)


def poisson_draw(keys: Any, rate: Any) -> Any:
    """A search of the distribution function below a rate, transformed rejection above."""
    r = rate.to(T.float64)
    drawn = E.logical_and(E.greater(r, 0), E.isfinite(r))
    large = E.logical_and(drawn, E.greater_equal(r, SEARCHED))
    small = E.logical_and(drawn, E.less(r, SEARCHED))
    few, many = E.where(small, r, 0.0), E.where(large, r, 100.0)
    return E.where(large, _rejected(many), E.where(drawn, _searched(few), E.where(
        E.equal(r, 0), 0.0, math.nan))).to(rate.dtype)  # fmt: skip


def _searched(rate: Any) -> Any:
    """The first count whose distribution function reaches a uniform number."""
    from ..control import while_loop

    u, p = _unit(rate), E.exp(-rate)

    def again(carry: Any) -> Any:
        k, p, total, count = carry
        more = E.greater(u, total)
        p = p * (rate / k)
        return k + 1, p, total + p, E.where(more, k, count)

    goes = lambda carry: E.logical_and(E.less(carry[0], 1000.0), ops["any"](E.greater(u, carry[2])))
    start = _filled(rate, 1.0, shape=()), p, p, _filled(rate, 0.0)
    return while_loop(goes, again, start)[3]


def _rejected(rate: Any) -> Any:
    """Hoermann's proposals for all elements at once."""
    b = 0.931 + 2.53 * E.sqrt(rate)
    a = -0.059 + 0.02483 * b
    inverse, sure = 1.1239 + 1.1328 / (b - 3.4), 0.9277 - 3.6224 / (b - 2)
    u, v = _unit(rate, POISSON) - 0.5, _unit(rate, POISSON)
    inner = 0.5 - E.abs_(u)
    count = E.floor((2 * a / inner + b) * u + rate + 0.43)
    quick = E.logical_and(E.greater_equal(inner, 0.07), E.less_equal(v, sure))
    tail = E.logical_and(E.less(inner, 0.013), E.greater(v, inner))
    never = E.logical_or(E.less(count, 0), tail)
    count = E.maximum(count, 0.0)
    bound = count * E.log(rate) - rate - lgamma(count + 1)
    under = E.less_equal(E.log(v * inverse / (a / (inner * inner) + b)), bound)
    return _first(E.logical_or(quick, E.logical_and(under, E.logical_not(never))), count)


# ---------------------------------------------------------------- the slope of a gamma draw


def log_gamma_slope(concentration: Any, value: Any, psi: Any) -> Any:
    """The series below the mean, the continued fraction above it, Wilson and Hilferty's form for large numbers."""
    a, log_z, gap = (v.to(T.float64) for v in (concentration, value, value - psi))
    z = E.exp(log_z)
    none = E.logical_or(E.logical_not(E.isfinite(a + log_z)), E.less_equal(a, 0))
    beyond = E.greater(a, LARGE)
    below = E.less(z, a + 1)
    usual = E.logical_not(E.logical_or(none, beyond))
    low, high = E.logical_and(usual, below), E.logical_and(usual, E.logical_not(below))
    # Elements of the other kind take numbers that are done at once.
    found = E.where(
        below,
        _by_series(E.where(low, a, 1.0), E.where(low, z, 0.0), gap),
        _by_fraction(E.where(high, a, 1.0), E.where(high, z, 2.0), gap),
    )
    far = E.where(beyond, a, 1.0)
    root = E.exp((log_z - E.log(far)) / 3)
    w = 3 * E.sqrt(far) * (root - 1 + 1 / (9 * far))
    wide = 1 / far + 3 / root * (1 / (9 * far * far) - w / (6 * far * E.sqrt(far)))
    return E.where(none, math.nan, E.where(beyond, wide, found)).to(value.dtype)


def _turns(step: Any, open_: Any, start: tuple[Any, ...]) -> Any:
    """`step(n, values) -> (which go on, values)` from n = 1 until all have ended, each with its last values."""
    from ..control import while_loop

    def again(carry: Any) -> Any:
        n, live, values = carry
        goes, new = step(n, values)
        kept = tuple(E.where(live, x, old) for x, old in zip(new, values))
        return n + 1, E.logical_and(live, goes), kept

    goes = lambda carry: E.logical_and(E.less(carry[0], 100_000.0), ops["any"](carry[1]))
    return while_loop(goes, again, (_filled(open_, 1.0, T.float64, ()), open_, start))[2]


def _by_series(a: Any, z: Any, gap: Any) -> Any:
    def step(n: Any, values: Any) -> Any:
        term, harmonic, total, slope = values
        term, harmonic = term * (z / (a + n)), harmonic + 1 / (a + n)
        total = total + term
        return E.greater(term, 1e-18 * total), (term, harmonic, total, slope - term * harmonic)

    first = 1 / a
    *_, total, slope = _turns(step, E.greater(z, 0), (first, first, first, -first * first))
    return -(total * gap + slope)


def _by_fraction(a: Any, z: Any, gap: Any) -> Any:
    def step(n: Any, values: Any) -> Any:
        b, c, cs, d, ds, h, hs = values
        an = -n * (n - a)
        b = b + 2
        ds, d = n * d + an * ds - 1, an * d + b
        cs, c = n / c - an * cs / c / c - 1, b + an / c
        d = 1 / d
        ds = -ds * d * d
        turn, turns = d * c, ds * c + d * cs
        hs, h = hs * turn + h * turns, h * turn
        small = E.logical_and(
            E.less(E.abs_(turn - 1), 1e-15), E.less(E.abs_(turns), 1e-15 * (E.abs_(hs / h) + 1e-3))
        )
        return E.logical_not(small), (b, c, cs, d, ds, h, hs)

    b = z + 1 - a
    d = 1 / b
    start = b, _filled(a, 1e300), _filled(a, 0.0), d, d * d, d, d * d
    *_, h, hs = _turns(step, E.greater(z, 0), start)
    return h * gap + hs
