"""Minimax coefficients of the vector math functions (offline; needs mpmath).

`python -m duograd.backends.cpu.vecmath_fit` prints `vecmath_coefficients.py` anew. Method: Remez exchange in
50-digit arithmetic for the weighted (mostly relative) error; coefficients are rounded to the working type
from the lowest power up, the remaining ones being fitted again after each rounding.
"""

from __future__ import annotations

import contextlib
import functools
import sys
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import mpmath as mp

from .vecmath_quarters import NORMAL_CENTRE, NORMAL_LOG, QUARTER_SHIFT

mp.mp.dps = 50


class Fit(NamedTuple):
    """g(x) ~ sum c[k] x**powers[k] on [lo, hi], minimising max |weight(x) * error|; c rounded to `bits`."""

    g: Callable[[Any], Any]
    powers: Sequence[int]
    lo: float
    hi: float
    weight: Callable[[Any], Any]
    bits: int


def _round(value: Any, bits: int) -> Any:
    with mp.workprec(bits):
        return +value


def _worst(c: list[Any], basis: list[list[Any]], target: list[Any], weight: list[Any]) -> Any:
    return max(w * abs(mp.fdot(zip(c, row)) - t) for w, row, t in zip(weight, basis, target))


def _solve(basis: list[list[Any]], target: list[Any], weight: list[Any]) -> tuple[list[Any], Any]:
    """Remez exchange over grid points; returns coefficients and the largest weighted error."""
    count, terms = len(target), len(basis[0])
    chosen = [round((count - 1) * (1 - mp.cos(mp.pi * i / terms)) / 2) for i in range(terms + 1)]
    c: list[Any] = []
    for _ in range(30):
        rows = [[*(weight[i] * v for v in basis[i]), (-1) ** n] for n, i in enumerate(chosen)]
        solution = mp.lu_solve(mp.matrix(rows), mp.matrix([weight[i] * target[i] for i in chosen]))
        c, level = list(solution)[:terms], abs(solution[terms])
        error = [weight[i] * (mp.fdot(zip(c, basis[i])) - target[i]) for i in range(count)]
        worst = max(abs(e) for e in error)
        if worst <= level * mp.mpf("1.002"):
            break
        peaks: list[int] = []  # alternating extrema: the largest of each run of one sign
        for i in range(count):
            if peaks and (error[i] > 0) == (error[peaks[-1]] > 0):
                if abs(error[i]) > abs(error[peaks[-1]]):
                    peaks[-1] = i
            else:
                peaks.append(i)
        while len(peaks) > terms + 1:
            peaks.pop(0 if abs(error[peaks[0]]) < abs(error[peaks[-1]]) else -1)
        if len(peaks) < terms + 1:
            break
        chosen = peaks
    return c, _worst(c, basis, target, weight)


def fit(f: Fit) -> tuple[list[float], float]:
    """Rounded coefficients and the largest weighted error they reach."""
    count = 24 * (len(f.powers) + 2)
    lo, hi = mp.mpf(f.lo), mp.mpf(f.hi)
    xs = [(lo + hi) / 2 - (hi - lo) / 2 * mp.cos(mp.pi * (i + mp.mpf(1) / 2) / count) for i in range(count)]
    target, weight = [f.g(x) for x in xs], [abs(f.weight(x)) for x in xs]
    done: list[Any] = []
    c: list[Any] = []
    for k in range(len(f.powers)):
        basis = [[x**p for p in f.powers[k:]] for x in xs]
        old, c = c[1:], []
        with contextlib.suppress(ZeroDivisionError):  # an odd rest on a symmetric reference is singular
            c, worst = _solve(basis, target, weight)
        if old and (not c or worst > _worst(old, basis, target, weight)):
            c = old
        done.append(_round(c[0], f.bits))
        target = [t - done[-1] * row[0] for t, row in zip(target, basis)]
    return [float(c) for c in done], float(max(abs(w * t) for t, w in zip(target, weight)))


# ---------------------------------------------------------------- what is fitted


def _series(first: int, g: Callable[[int], Any]) -> Callable[[Any], Any]:
    """sum over k of g(k) * x**(k - first): a smooth quotient whose closed form cancels near 0."""
    c = [g(k) for k in range(first, first + 60)]
    return lambda x: functools.reduce(lambda total, a: total * x + a, reversed(c))


def _odd(f: Callable[[Any], Any], power: int = 1) -> Callable[[Any], Any]:
    """For an odd f(x): z = x*x -> (f(x) - x) / x**3, or f(x)/x for power 0."""

    def g(z: Any) -> Any:
        x = mp.sqrt(z)
        return f(x) / x if power == 0 else (f(x) - x) / x**3

    return g


def _odd_weight(f: Callable[[Any], Any], power: int = 1) -> Callable[[Any], Any]:
    """Relative error of f for `_odd`'s quotient."""
    return lambda z: mp.sqrt(z) ** (1 if power == 0 else 3) / f(mp.sqrt(z))


_HALF_LN2 = 0.34675  # a little beyond ln(2) / 2: rounding may choose the other neighbour

TABLES: dict[str, tuple[str, dict[str, Fit]]] = {}


def _table(name: str, what: str, **fits: tuple[Any, ...]) -> None:
    bits = {"f32": 24, "f64": 53}
    TABLES[name] = (what, {k: Fit(f[0], range(f[1]), *f[2:], bits[k]) for k, f in fits.items()})  # type: ignore[arg-type]


_expm1 = _series(2, lambda k: 1 / mp.factorial(k))
_table(
    "EXPM1",
    "exp(r) = 1 + r + r**2 * sum c[k] r**k, |r| <= ln(2)/2",
    f32=(_expm1, 5, -_HALF_LN2, _HALF_LN2, lambda r: r),
    f64=(_expm1, 11, -_HALF_LN2, _HALF_LN2, lambda r: r),
)
_table(
    "EXP_NEAR",
    "exp(r) = 1 + r + r**2 * (c[0] + c[1] r), |r| <= ln(2)/32",
    f32=(_expm1, 2, -_HALF_LN2 / 16, _HALF_LN2 / 16, lambda r: r**2),
)
_table(
    "EXP_SHORT",
    "exp(r) = sum c[k] r**k, |r| <= ln(2)/32",
    f32=(mp.exp, 3, -_HALF_LN2 / 16, _HALF_LN2 / 16, lambda r: mp.exp(-r)),
)
_at_quarter = lambda base: lambda r: base**r / (1 + mp.mpf(QUARTER_SHIFT)) - 1
_table(
    "EXP_QUARTER",
    "exp(r) / (1 + QUARTER_SHIFT) = 1 + sum c[k] r**k, |r| <= ln(2)/8",
    f32=(_at_quarter(mp.e), 5, -_HALF_LN2 / 4, _HALF_LN2 / 4, lambda r: 1),
)
_table(
    "EXP2_QUARTER",
    "2**r / (1 + QUARTER_SHIFT) = 1 + sum c[k] r**k, |r| <= 1/8",
    f32=(_at_quarter(mp.mpf(2)), 5, -0.1251, 0.1251, lambda r: 1),
)


def _log2_tail(u: Any) -> Any:
    tail = lambda a: mp.log(mp.erfc(a / mp.sqrt(2)) / 2, 2)
    return (tail(NORMAL_CENTRE + u) + NORMAL_LOG) / u if u else mp.diff(tail, NORMAL_CENTRE)


_table(
    "NORMAL_TAIL",
    "log2 of the normal distribution beyond NORMAL_CENTRE + u = u * sum c[k] u**k - NORMAL_LOG; far out less exact",
    f32=(
        _log2_tail,
        11,
        -NORMAL_CENTRE,
        7.65 - NORMAL_CENTRE,
        lambda u: u / (1 + ((NORMAL_CENTRE + u) / 2) ** 7),
    ),
)
_table(
    "LOG1P_UNIT",
    "log(1 + t) = t + t**2 * sum c[k] t**k, 0 <= t <= 1",
    f32=(
        lambda t: (mp.log1p(t) - t) / t**2,
        9,
        1e-9,
        1.00001,
        lambda t: t**2 / mp.log1p(t),
    ),
)
_exp2 = _series(1, lambda k: mp.log(2) ** k / mp.factorial(k))
_table(
    "EXP2_SHORT",
    "2**r = 1 + r * sum c[k] r**k, |r| <= 1/2; short: for results that are rounded or damped afterwards",
    f32=(_exp2, 5, -0.5, 0.5, lambda r: r),
    f64=(_exp2, 7, -0.5, 0.5, lambda r: r),
)
_atanh = _series(0, lambda k: mp.mpf(2) / (2 * k + 3))
_table(
    "LOG",
    "log((1+s)/(1-s)) = 2 s + s * z * sum c[k] z**k, z = s*s <= 0.04",
    f32=(_atanh, 3, 0, 0.0401, lambda z: z),
    f64=(_atanh, 7, 0, 0.0401, lambda z: z),
)
_table(
    "LOG_LONG",
    "log((1+s)/(1-s)) = 2 s + s * z * (2/3 + z * sum c[k] z**k), z = s*s <= 0.0295; for pow",
    f64=(_series(0, lambda k: mp.mpf(2) / (2 * k + 5)), 8, 0, 0.0295, lambda z: z**2),
)
_table(
    "LOG2_SHORT",
    "log2((1+s)/(1-s)) = s * sum c[k] z**k, z = s*s <= 0.0295; for float32 results",
    f64=(_series(0, lambda k: 2 / mp.log(2) / (2 * k + 1)), 5, 0, 0.0295, lambda z: 1),
)
_table(
    "TANH",
    "tanh(x) = x + x * z * sum c[k] z**k, z = x*x, |x| <= 0.625",
    f32=(_odd(mp.tanh), 5, 0, 0.625**2, _odd_weight(mp.tanh)),
    f64=(_odd(mp.tanh), 11, 0, 0.625**2, _odd_weight(mp.tanh)),
)
_table(
    "SINH",
    "sinh(x) = x + x * z * sum c[k] z**k, z = x*x, |x| <= 1",
    f32=(_odd(mp.sinh), 3, 0, 1, _odd_weight(mp.sinh)),
    f64=(_odd(mp.sinh), 7, 0, 1, _odd_weight(mp.sinh)),
)
_erf_minus = lambda x: mp.erf(x) - x
_table(
    "ERF",
    "erf(x) = x + x * sum c[k] z**k, z = x*x, |x| <= 1",
    f32=(_odd(_erf_minus, 0), 7, 0, 1, _odd_weight(mp.erf, 0)),
    f64=(_odd(_erf_minus, 0), 12, 0, 1, _odd_weight(mp.erf, 0)),
)
_log2_erfc = lambda x: -mp.log(mp.erfc(x), 2)
_damping = lambda x: mp.erfc(x) / mp.erf(x)
_table(
    "ERF_TAIL",
    "erf(x) = 1 - 2**-(sum c[k] x**k), x from 1 to where erf is 1 (3.92, 5.93)",
    f32=(_log2_erfc, 7, 1, 3.92, _damping),
    f64=(_log2_erfc, 18, 1, 5.93, _damping),
)
_table(
    "EXP2",
    "2**r = 1 + r * sum c[k] r**k, |r| <= 1/2",
    f32=(_exp2, 6, -0.5, 0.5, lambda r: r),
    f64=(_exp2, 11, -0.5, 0.5, lambda r: r),
)


def _scaled_erfc(centre: int) -> Callable[[Any], Any]:
    def g(t: Any) -> Any:
        x = centre * (1 + t) / (1 - t)
        return (1 + 2 * x) * mp.exp(x * x) * mp.erfc(x)

    return g


_table(
    "ERFC",
    "erfc(x) = exp(-x*x) / (1 + 2 x) * sum c[k] t**k, t = (x-a)/(x+a), a = 2 for float32, 3 for float64",
    f32=(_scaled_erfc(2), 10, -1, 8.1 / 12.1, lambda t: 1),
    f64=(_scaled_erfc(3), 23, -1, 24.3 / 30.3, lambda t: 1),
)


_QUARTER = 0.7855  # a little beyond pi / 4
_cos = _series(0, lambda k: (-1) ** k / mp.factorial(2 * k + 4))
_table(
    "SIN",
    "sin(r) = r + r * z * sum c[k] z**k, z = r*r, |r| <= pi/4",
    f32=(_odd(mp.sin), 3, 0, _QUARTER**2, _odd_weight(mp.sin)),
    f64=(_odd(mp.sin), 6, 0, _QUARTER**2, _odd_weight(mp.sin)),
)
_table(
    "COS",
    "cos(r) = 1 - z/2 + z**2 * sum c[k] z**k, z = r*r, |r| <= pi/4",
    f32=(_cos, 3, 0, _QUARTER**2, lambda z: z**2 / mp.cos(mp.sqrt(z))),
    f64=(_cos, 6, 0, _QUARTER**2, lambda z: z**2 / mp.cos(mp.sqrt(z))),
)
_table(
    "ATAN",
    "atan(t) = t + t * z * sum c[k] z**k, z = t*t, |t| <= tan(pi/8)",
    f32=(_odd(mp.atan), 5, 0, 0.4143**2, _odd_weight(mp.atan)),
    f64=(_odd(mp.atan), 11, 0, 0.4143**2, _odd_weight(mp.atan)),
)
_table(
    "ASIN",
    "asin(x) = x + x * z * sum c[k] z**k, z = x*x <= 1/4",
    f32=(_odd(mp.asin), 5, 0, 0.25, _odd_weight(mp.asin)),
    f64=(_odd(mp.asin), 12, 0, 0.25, _odd_weight(mp.asin)),
)


_HEAD = '''"""Minimax coefficients of vector math, lowest power first; printed by `vecmath_fit.py`.

The method (Remez exchange, coefficients rounded one by one) stands there; errors are the weighted ones.
"""
'''


def write(names: Sequence[str]) -> None:
    """Print the tables, their intervals and the errors reached: the text of `vecmath_coefficients.py`."""
    print(_HEAD, end="")
    for name in names or TABLES:
        what, fits = TABLES[name]
        print(f"\n# {what}\n{name} = {{")
        for kind, f in fits.items():
            c, error = fit(f)
            print(f'    "{kind}": (  # error 2**{float(mp.log(error, 2)):.1f}')
            for k in range(0, len(c), 4):
                print("        " + " ".join(f"{value!r}," for value in c[k : k + 4]))
            print("    ),")
        print("}", flush=True)


if __name__ == "__main__":
    write(sys.argv[1:])
