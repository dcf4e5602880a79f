"""Draws that are accepted or refused, each element under its own key, in float64: see `core/ops/sampling.py`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ...core.backend import Kernel, Operand, Program
from ...core.ops.sampling import BELOW, LARGE, PROPOSALS, SEARCHED
from .indexing import _dense

_UNIT = """@inline
def unit(key, at, word):
    # 53 bits of two words, as the middle of their interval.
    high = types.int64(v_philox(key, 0, at, word)) >> 5
    low = types.int64(v_philox(key, 0, at, word + 1)) >> 6
    return (types.float64(high * 67108864 + low) + 0.5) * 1.1102230246251565e-16

"""

_GAMMA = """@function
def log_gamma(key, a):
    if not a > 0.0:
        return -1e999 if a == 0.0 else a * 0.0 / 0.0
    if a == 1e999:
        return a
    d = (a if a >= 1.0 else a + 1.0) - 1.0 / 3.0
    c = 1.0 / v_sqrt_f64(9.0 * d)
    found = v_log_f64(d)
    for k in range($PROPOSALS):
        u = unit(key, 2 * k, 0)
        x = v_sqrt_f64(-2.0 * v_log_f64(u)) * v_cos_f64(6.283185307179586 * unit(key, 2 * k, 2))
        t = 1.0 + c * x
        if t > 0.0:
            v = t * t * t
            if v_log_f64(unit(key, 2 * k + 1, 0)) < 0.5 * x * x + d - d * v + d * v_log_f64(v):
                found = v_log_f64(d * v)
                break
    if a < 1.0:
        found += v_log_f64(unit(key, $BELOW, 0)) / a
    return found

def kernel(args, chunk, nchunks):
    keys, a, out, n = args[0], args[1], args[2], args[3]
    for i in range(share(n, chunk, nchunks), share(n, chunk + 1, nchunks)):
        found = log_gamma(types.uint64(load_i64(keys, i)), types.float64(load_{c}(a, i)))
        store_{c}(out, i, types.{dtype}(found))
"""

_SLOPE = """@function
def slope_of(a, log_z, psi):
    gap = log_z - psi
    if not (a > 0.0 and log_z > -1e999 and log_z < 1e999):
        return (log_z - log_z) * 0.0 / 0.0
    if a > $LARGE:
        root = v_exp_f64((log_z - v_log_f64(a)) / 3.0)
        w = 3.0 * v_sqrt_f64(a) * (root - 1.0 + 1.0 / (9.0 * a))
        return 1.0 / a + 3.0 / root * (1.0 / (9.0 * a * a) - w / (6.0 * a * v_sqrt_f64(a)))
    z = v_exp_f64(log_z)
    if z < a + 1.0:
        # P's series and its derivative
        term = 1.0 / a
        harmonic, total, slope, n = term, term, -term / a, types.int64(0)
        while term > 1e-18 * total and n < 100000:
            n += 1
            at = a + types.float64(n)
            term *= z / at
            harmonic += 1.0 / at
            total += term
            slope -= term * harmonic
        return -(total * gap + slope)
    # The continued fraction of 1 - P by Lentz's recurrence, each number with its derivative (s)
    b, c, cs = z + 1.0 - a, 1e300, 0.0
    d = 1.0 / b
    ds = d * d
    h, hs = d, ds
    for k in range(1, 100000):
        n = types.float64(k)
        an = -n * (n - a)
        b += 2.0
        ds = n * d + an * ds - 1.0
        d = 1.0 / (an * d + b)
        cs = n / c - an * cs / c / c - 1.0
        c = b + an / c
        ds = -ds * d * d
        step, steps = d * c, ds * c + d * cs
        hs = hs * step + h * steps
        h *= step
        if abs(step - 1.0) < 1e-15 and abs(steps) < 1e-15 * (abs(hs / h) + 1e-3):
            break
    return h * gap + hs

def kernel(args, chunk, nchunks):
    a, value, psi, out, n = args[0], args[1], args[2], args[3], args[4]
    for i in range(share(n, chunk, nchunks), share(n, chunk + 1, nchunks)):
        at, log_z = types.float64(load_{c}(a, i)), types.float64(load_{c}(value, i))
        store_{c}(out, i, types.{dtype}(slope_of(at, log_z, types.float64(load_{c}(psi, i)))))
"""

_POISSON = """@inline
def log_factorial(k):
    z, product = k + 1.0, 1.0
    while z < 9.0:
        product *= z
        z += 1.0
    r = 1.0 / z
    q = r * r
    rest = r * (1.0 / 12.0 - q * (1.0 / 360.0 - q * (1.0 / 1260.0 - q * (1.0 / 1680.0 - q * (1.0 / 1188.0)))))
    return (z - 0.5) * v_log_f64(z) - z + 0.9189385332046727 + rest - v_log_f64(product)

@function
def poisson(key, rate):
    if not (rate > 0.0 and rate < 1e999):
        return 0.0 if rate == 0.0 else (rate - rate) * 0.0 / 0.0
    if rate < $SEARCHED:
        u, k, p = unit(key, 0, 0), 0.0, v_exp_f64(-rate)
        total = p
        while u > total and k < 1000.0:
            k += 1.0
            p *= rate / k
            total += p
        return k
    b = 0.931 + 2.53 * v_sqrt_f64(rate)
    a = -0.059 + 0.02483 * b
    inverse, sure = 1.1239 + 1.1328 / (b - 3.4), 0.9277 - 3.6224 / (b - 2.0)
    k = v_floor_f64(rate)
    for n in range($PROPOSALS):
        u, v = unit(key, n, 0) - 0.5, unit(key, n, 2)
        inner = 0.5 - abs(u)
        k = v_floor_f64((2.0 * a / inner + b) * u + rate + 0.43)
        if inner >= 0.07 and v <= sure:
            break
        if k < 0.0 or (inner < 0.013 and v > inner):
            continue
        bound = k * v_log_f64(rate) - rate - log_factorial(k)
        if v_log_f64(v * inverse / (a / (inner * inner) + b)) <= bound:
            break
    return max(k, 0.0)

def kernel(args, chunk, nchunks):
    keys, rate, out, n = args[0], args[1], args[2], args[3]
    for i in range(share(n, chunk, nchunks), share(n, chunk + 1, nchunks)):
        found = poisson(types.uint64(load_i64(keys, i)), types.float64(load_{c}(rate, i)))
        store_{c}(out, i, types.{dtype}(found))
"""


def _launch(program: Program, name: str, body: str, inputs: Sequence[Any], out: Operand, cost: float) -> None:
    if not out.size:
        return
    operands = [_dense(program, x) for x in inputs]
    body = body.replace("{c}", out.dtype.char).replace("{dtype}", out.dtype.name)
    for word, value in (("PROPOSALS", PROPOSALS), ("BELOW", BELOW), ("LARGE", LARGE), ("SEARCHED", SEARCHED)):
        body = body.replace(f"${word}", str(value))
    source = f"# {name}: {out.dtype}\n{_UNIT if 'unit(' in body else ''}{body}"
    program.launch(
        source, [*(x.slot for x in operands), out.slot, out.size], program.chunks(out.size, out.size * cost)
    )


def log_gamma_draw(program: Program, inputs: Sequence[Any], outputs: Sequence[Operand]) -> None:
    """Marsaglia and Tsang's method."""
    _launch(program, "log_gamma_draw", _GAMMA, inputs, outputs[0], 400.0)


def log_gamma_slope(program: Program, inputs: Sequence[Any], outputs: Sequence[Operand]) -> None:
    """The derivative of a draw by its concentration."""
    _launch(program, "log_gamma_slope", _SLOPE, inputs, outputs[0], 1000.0)


def poisson_draw(program: Program, inputs: Sequence[Any], outputs: Sequence[Operand]) -> None:
    """A search below SEARCHED, transformed rejection from there on."""
    _launch(program, "poisson_draw", _POISSON, inputs, outputs[0], 400.0)


KERNELS: dict[str, Kernel] = {
    "log_gamma_draw": log_gamma_draw, "log_gamma_slope": log_gamma_slope, "poisson_draw": poisson_draw,
}  # fmt: skip
