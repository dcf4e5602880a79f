"""Errors and speed of the vector math functions: samples, exact references, and the table of docs/vecmath.md.

`python -m duograd.backends.cpu.vecmath_measure` prints the table (a few minutes; needs mpmath).
"""

from __future__ import annotations

import ctypes
import math
import sys
import time
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import mpmath as mp
import numpy as np

from .native import kernel_addresses
from .vecmath import VECMATH

NUMPY = {
    name: np.dtype({"i": "int", "u": "uint", "f": "float"}[name[0]] + name[1:])
    for name in ("i8", "i16", "i32", "i64", "u8", "u16", "u32", "u64", "f32", "f64")
} | {"b1": np.dtype(bool)}

# ---------------------------------------------------------------- running functions on arrays


def source(names: Iterable[str], letter: str = "w") -> str:
    """A kernel with a loop per function; slots for each: addresses of arguments and result, the size.

    letter: "w" for wide values, "p" and "f" for two and four of them (sizes are multiples of that), "v" for one
    element at a time.
    """
    lines, slot = ["def kernel(args, chunk, nchunks):"], 0
    wide = letter != "v"
    step, mask = {"w": (16, "w_mask(n, v)"), "p": (32, "w_pair()"), "f": (64, "w_four()"), "v": (1, "")}[
        letter
    ]
    letter = "w" if wide else "v"
    prefix, tail = ("w_", ", m") if wide else ("", "")
    for name in names:
        entry = VECMATH[name]
        count = len(entry.args)
        loads = ", ".join(f"{prefix}load_{k}(p{i}, v{tail})" for i, k in enumerate(entry.args))
        value = f"{letter}{name[1:]}({loads})"
        lines += [f"    p{i} = args[{slot + i}]" for i in range(count + 1)]
        lines += [f"    n = args[{slot + count + 1}]", f"    for v in range(0, n, {step}):"]
        lines += [f"        m = {mask}"] if wide else []
        lines += [f"        {prefix}store_{entry.result}(p{count}, v, {value}{tail})"]
        slot += count + 2
    return "\n".join(lines) + "\n"


def run(groups: Iterable[dict[str, tuple[np.ndarray, ...]]], letter: str = "w") -> dict[str, np.ndarray]:
    """Apply functions to arrays, a kernel per group: {name: arguments} -> {name: result}."""
    groups = list(groups)
    results: dict[str, np.ndarray] = {}
    for group, address in zip(groups, kernel_addresses([source(g, letter) for g in groups])):
        slots, keep = [], []
        for name, arrays in group.items():
            entry = VECMATH[name]
            arrays = tuple(np.ascontiguousarray(a, NUMPY[k]) for a, k in zip(arrays, entry.args))
            results[name] = np.empty(arrays[0].shape, NUMPY[entry.result])
            keep.append(arrays)
            slots += [*(a.ctypes.data for a in arrays), results[name].ctypes.data, arrays[0].size]
        _call(address, slots)
    return results


def _call(address: int, slots: list[int]) -> None:
    args = np.array(slots, np.int64)
    kernel = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_int64, ctypes.c_int64)(address)
    kernel(args.ctypes.data, 0, 1)


# ---------------------------------------------------------------- samples and references


class Case(NamedTuple):
    """What to measure: the exact function, the same in NumPy's float64, and where.

    f32, f64: ranges (how, low, high). Except for "uniform" and "pair", low and high are exponents of 10: of
    positive numbers, of both signs, of distances from 1 below it, of the bases of powers.
    """

    exact: Callable[..., Any]
    wide: Callable[..., Any]
    f32: tuple[tuple[str, float, float], ...]
    f64: tuple[tuple[str, float, float], ...]


def _math(f: Callable[[float], float]) -> Callable[[np.ndarray], np.ndarray]:
    return np.vectorize(f, otypes=[np.float64])


def _sigmoid(x: np.ndarray) -> np.ndarray:
    e = np.exp(-np.abs(x))
    return np.where(x < 0, e, 1) / (1 + e)


_SMALL, _POSITIVE = ("signed", -40, 0), ("uniform", 0, 20)
_UNIT, _MIDDLE = ("uniform", -1, 1), ("uniform", -10, 10)
_LOGS = (("near1", -8, 0), ("uniform", 0.3, 3.0))


def _case(exact: Any, wide: Any, *ranges: Any, f32: Any = (), f64: Any = ()) -> Case:
    return Case(exact, wide, (*ranges, *f32), (*ranges, *f64))


_EXP = {"f32": [("uniform", -103, 88.7)], "f64": [("uniform", -745, 709.7)]}
_LOG = {"f32": [("positive", -45, 38.5)], "f64": [("positive", -323, 308)]}
_TURN = {"f32": [("signed", 1, 38.5)], "f64": [("signed", 1, 308)]}
_ANGLES = (_UNIT, _MIDDLE, ("uniform", -1e5, 1e5), _SMALL)
_HYPERBOLA = {"f32": [("uniform", -89, 89)], "f64": [("uniform", -710, 710)]}


def _softplus(x: np.ndarray) -> np.ndarray:
    return np.maximum(x, 0) + np.log1p(np.exp(-np.abs(x)))


CASES: dict[str, Case] = {
    "exp": _case(mp.exp, np.exp, _MIDDLE, _SMALL, **_EXP),
    "exp2": _case(
        lambda x: mp.mpf(2) ** x,
        np.exp2,
        _MIDDLE,
        f32=[("uniform", -149, 128)],
        f64=[("uniform", -1074, 1024)],
    ),
    "expm1": _case(mp.expm1, np.expm1, _UNIT, _MIDDLE, _SMALL, **_EXP),
    "sigmoid": _case(lambda x: 1 / (1 + mp.exp(-x)), _sigmoid, _MIDDLE, _SMALL, **_EXP),
    "gelu": _case(
        lambda x: x * mp.erfc(-x / mp.sqrt(2)) / 2,
        lambda x: x * np.vectorize(math.erfc, otypes=[np.float64])(-x * math.sqrt(0.5)) / 2,
        _UNIT,
        _SMALL,
        ("uniform", -2, 20),
    ),
    "softplus": _case(
        lambda x: mp.log1p(mp.exp(x)),
        _softplus,
        _MIDDLE,
        f32=[("uniform", -103, 50)],
        f64=[("uniform", -745, 50)],
    ),
    "tanh": _case(mp.tanh, np.tanh, _UNIT, _MIDDLE, _SMALL, ("uniform", -20, 20)),
    "sinh": _case(mp.sinh, np.sinh, _UNIT, _MIDDLE, _SMALL, **_HYPERBOLA),
    "cosh": _case(mp.cosh, np.cosh, _UNIT, _MIDDLE, _SMALL, **_HYPERBOLA),
    "log": _case(mp.log, np.log, *_LOGS, **_LOG),
    "log2": _case(lambda x: mp.log(x) / mp.log(2), np.log2, *_LOGS, **_LOG),
    "log10": _case(mp.log10, np.log10, *_LOGS, **_LOG),
    "log1p": _case(mp.log1p, np.log1p, ("uniform", -0.99, 3), ("signed", -30, -0.01), ("positive", -3, 30)),
    "sqrt": _case(mp.sqrt, np.sqrt, ("uniform", 0, 4), **_LOG),
    "rsqrt": _case(lambda x: 1 / mp.sqrt(x), lambda x: 1 / np.sqrt(x), ("uniform", 0.1, 4), **_LOG),
    "cbrt": _case(
        lambda x: mp.sign(x) * mp.cbrt(abs(x)),
        np.cbrt,
        _MIDDLE,
        f32=[("signed", -45, 38)],
        f64=[("signed", -320, 308)],
    ),
    "erf": _case(mp.erf, _math(math.erf), _UNIT, ("uniform", -6, 6), _SMALL),
    "erfc": _case(mp.erfc, _math(math.erfc), _UNIT, ("uniform", -6, 9), _SMALL, f64=[("uniform", 9, 26)]),
    "sin": _case(mp.sin, np.sin, *_ANGLES, **_TURN),
    "cos": _case(mp.cos, np.cos, *_ANGLES, **_TURN),
    "tan": _case(mp.tan, np.tan, *_ANGLES, **_TURN),
    "asin": _case(mp.asin, np.arcsin, _UNIT, _SMALL, ("near1", -8, 0)),
    "acos": _case(mp.acos, np.arccos, _UNIT, _SMALL, ("near1", -8, 0)),
    "atan": _case(mp.atan, np.arctan, _UNIT, _MIDDLE, _SMALL, ("signed", 0, 30)),
    "asinh": _case(mp.asinh, np.arcsinh, _UNIT, _MIDDLE, _SMALL, ("signed", 0, 30)),
    "acosh": _case(mp.acosh, np.arccosh, ("uniform", 1, 2), ("uniform", 1, 20), ("positive", 0, 30)),
    "atanh": _case(mp.atanh, np.arctanh, _UNIT, _SMALL, ("near1", -8, 0)),
    "pow": _case(mp.power, np.power, ("power", 0, 10), f32=[("power", -30, 30)], f64=[("power", -300, 300)]),
    "atan2": _case(mp.atan2, np.arctan2, ("pair", -10, 10), ("pair", -1, 1)),
}


def _draw(rng: np.random.Generator, how: str, low: float, high: float, count: int) -> tuple[np.ndarray, ...]:
    if how == "uniform":
        return (rng.uniform(low, high, count),)
    if how == "near1":
        return (1 - 10.0 ** rng.uniform(low, high, count),)
    if how == "pair":
        return rng.uniform(low, high, count), rng.uniform(low, high, count)
    magnitude = 10.0 ** rng.uniform(low, high, count)
    if how == "positive":
        return (magnitude,)
    if how == "signed":
        return (np.where(rng.random(count) < 0.5, -magnitude, magnitude),)
    # power: bases over the range, exponents so that results cover all exponents
    base = rng.uniform(low, high, count) if low == 0 else magnitude
    limit = (87.0 if high <= 30 else 700.0) / np.maximum(np.abs(np.log(base)), 1e-3)
    return base, rng.uniform(-1, 1, count) * limit


def samples(op: str, kind: str, count: int, seed: int = 0) -> tuple[np.ndarray, ...]:
    """`count` arguments from each range of the case, rounded to the kind; only those with a finite value."""
    case, rng = CASES[op], np.random.default_rng(seed)
    with np.errstate(all="ignore"):
        parts = [_draw(rng, *r, count) for r in (case.f32 if kind == "f32" else case.f64)]
        args = tuple(np.concatenate(p).astype(NUMPY[kind]) for p in zip(*parts))
        fine = np.isfinite(case.wide(*(a.astype(np.float64) for a in args)).astype(NUMPY[kind]))
    return tuple(a[fine] for a in args)


def ulp_errors(op: str, kind: str, args: tuple[np.ndarray, ...], result: np.ndarray) -> np.ndarray:
    """|result - exact| in units in the last place of the exact value; inf where `result` is not finite."""
    case, mantissa, lowest = CASES[op], {"f32": 23, "f64": 52}[kind], {"f32": -126, "f64": -1022}[kind]
    if kind == "f32":
        with np.errstate(all="ignore"):
            exact = case.wide(*(a.astype(np.float64) for a in args))
        exponent = np.maximum(np.frexp(exact)[1] - 1, lowest)
        with np.errstate(invalid="ignore"):
            error = np.abs(result.astype(np.float64) - exact) / np.ldexp(1.0, exponent - mantissa)
    else:
        error = np.empty(result.shape)
        with mp.workprec(100):
            for i, values in enumerate(zip(result.tolist(), *(a.tolist() for a in args))):
                exact = case.exact(*(mp.mpf(v) for v in values[1:]))
                exponent = max(int(mp.floor(mp.log(abs(exact), 2))), lowest) if exact else lowest
                if math.isfinite(values[0]):
                    error[i] = float(abs(values[0] - exact) * mp.mpf(2) ** (mantissa - exponent))
    return np.where(np.isfinite(result), error, np.inf)


# ---------------------------------------------------------------- the table


def nanoseconds(function: Callable[[], Any], elements: int) -> float:
    """The least time of a call per element, over some tens of calls."""
    times = []
    for _ in range(40):
        start = time.perf_counter()
        function()
        times.append(time.perf_counter() - start)
    return min(times) / elements * 1e9


def _aligned(x: np.ndarray) -> np.ndarray:
    """A copy that starts at a cache line, as the allocator's buffers do."""
    raw = np.empty(x.nbytes + 64, np.uint8)
    start = -raw.ctypes.data % 64
    copy = raw[start : start + x.nbytes].view(x.dtype)
    copy[:] = x
    return copy


def _timing_arguments(op: str, kind: str, size: int) -> tuple[np.ndarray, ...]:
    low, high = (1.0, 5.0) if op == "acosh" else (0.1, 0.9)
    rng = np.random.default_rng(1)
    return tuple(rng.uniform(low, high, size).astype(NUMPY[kind]) for _ in VECMATH[f"v_{op}_{kind}"].args)


def measure(op: str, kind: str, count: int, size: int = 65536) -> tuple[float, float, float]:
    """(largest error in ulp, ns per element, NumPy's ns per element or NaN), one thread."""
    name = f"v_{op}_{kind}"
    args = samples(op, kind, count)
    worst = float(ulp_errors(op, kind, args, run([{name: args}])[name]).max())
    args = tuple(map(_aligned, _timing_arguments(op, kind, size)))
    out = _aligned(np.empty(size, NUMPY[kind]))
    (address,) = kernel_addresses([source([name])])
    slots = np.array([*(a.ctypes.data for a in args), out.ctypes.data, size], np.int64)
    kernel = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_int64, ctypes.c_int64)(address)
    ours = nanoseconds(lambda: kernel(slots.ctypes.data, 0, 1), size)
    wide: Any = CASES[op].wide
    theirs = nanoseconds(lambda: wide(*args, out=out), size) if isinstance(wide, np.ufunc) else math.nan
    return worst, ours, theirs


def main(ops: list[str]) -> None:
    """Print the table for `ops` or all."""
    print("| function | ulp f32 | ulp f64 | ns f32 | ns f64 | NumPy ns f32 | NumPy ns f64 |")
    print("|---|---|---|---|---|---|---|")
    for op in ops or CASES:
        (e32, t32, n32), (e64, t64, n64) = measure(op, "f32", 100_000), measure(op, "f64", 5_000)
        numpy = " | ".join("" if math.isnan(n) else f"{n:.2f}" for n in (n32, n64))
        print(f"| {op} | {e32:.2f} | {e64:.2f} | {t32:.2f} | {t64:.2f} | {numpy} |", flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
