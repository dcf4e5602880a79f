"""Pointwise ops without an ONNX rule (or without one in this opset): their scalar body written as ONNX ops."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from ...core import types as T
from ...core.scalar import Expr, walk
from .builder import Handle, Inexpressible
from .dtypes import to_code
from .words import RuleBuilder

Rule = Callable[..., Handle]


def _scaled(name: str, factor: float) -> Rule:
    return lambda o, x: o.Mul(getattr(o, name)(x), o.const(factor, x))


def _plain(name: str) -> Rule:
    return lambda o, x: getattr(o, name)(x)  # type: ignore[no-any-return]


def _floor_divide(o: RuleBuilder, a: Handle, b: Handle) -> Handle:
    zero = o.const(0, b)
    if a.dtype is not None and a.dtype.is_float:
        # The floor of a rounded quotient may be one too high; without the rest it is whole, but for rounding.
        rest = _floored_rest(o, a, b)
        odd = o.Or(o.IsNaN(rest), o.Equal(o.Abs(b), o.const(math.inf, b)))
        return o.Where(odd, o.Div(a, b), o.Round(o.Div(o.Sub(a, rest), b)))  # type: ignore[no-any-return]
    # Div cuts towards 0; without the (floored) rest the division is exact. NumPy gives 0 for a divisor of 0.
    safe = o.Where(o.Equal(b, zero), o.const(1, b), b)
    found = o.Div(o.Sub(a, o.Mod(a, safe)), safe)
    return o.Where(o.Equal(b, zero), zero, found)  # type: ignore[no-any-return]


def _floored_rest(o: RuleBuilder, a: Handle, b: Handle) -> Handle:
    """The remainder with the sign of the divisor, exact; ONNX Mod has it for integers only."""
    if a.dtype is None or not a.dtype.is_float:
        return o.Mod(a, b)  # type: ignore[no-any-return]
    zero, rest = o.const(0, b), o.Mod(a, b, fmod=1)
    other = o.And(o.Xor(o.Less(rest, zero), o.Less(b, zero)), o.Not(o.Equal(rest, zero)))
    # Its sign is that of the divisor, also of a zero.
    return o.Mul(o.Abs(o.Where(other, o.Add(rest, b), rest)), o.Sign(b))  # type: ignore[no-any-return]


def _power(o: RuleBuilder, a: Handle, b: Handle) -> Handle:
    if a.dtype is None or a.dtype.is_float:
        return o.Pow(a, b)  # type: ignore[no-any-return]
    # Runtimes work Pow of integers out in float64; products of int64 are exact in the bits that any integer keeps.
    base, n = o.cast(a, T.int64), o.number(b)
    zero, one = o.const(0, T.int64), o.const(1, T.int64)
    if n is not None:
        return o.cast(_power_of_number(o, base, n), a.dtype)
    places = o.cast(b, T.int64)
    base = o.Add(base, o.Mul(places, zero))  # of the result's shape
    rest = o.cast(b if b.dtype is T.uint64 else o.Max(places, zero), T.uint64)

    def goes(rest: Handle) -> Handle:
        left = o.cast(o.cast(rest, T.bool_), T.int64)
        return o.Greater(o.ReduceSum(left, keepdims=0), zero)  # type: ignore[no-any-return]

    def turn(base: Handle, rest: Handle, out: Handle) -> list[Handle]:
        odd = o.cast(o.Mod(rest, o.const(2, rest)), T.bool_)
        halved = o.BitShift(rest, o.const(1, rest), direction="RIGHT")
        return [goes(halved), o.Mul(base, base), halved, o.Where(odd, o.Mul(out, base), out)]

    found = o.loop(goes(rest), [base, rest, o.Add(o.Mul(base, zero), one)], turn)[2]
    if b.dtype is not None and b.dtype.kind == "int":
        found = o.Where(o.Less(places, zero), _one_over(o, base, o.Mod(places, o.const(2, T.int64))), found)
    return o.cast(found, a.dtype)


def _power_of_number(o: RuleBuilder, base: Handle, n: int) -> Handle:
    if n < 0:
        return _one_over(o, base, o.const(n % 2, T.int64))
    out = None
    while n:
        if n % 2:
            out = base if out is None else o.Mul(out, base)
        n //= 2
        if n:
            base = o.Mul(base, base)
    return out or o.Add(o.Mul(base, o.const(0, base)), o.const(1, base))  # type: ignore[no-any-return]


def _one_over(o: RuleBuilder, base: Handle, odd: Handle) -> Handle:
    """What 1 over a power of integers is cut to: of 1 and of -1 it is 1 or -1, of others 0. odd: 1 for an odd power."""
    one = o.const(1, base)
    unit = o.Where(
        o.Equal(base, o.const(-1, base)), o.Sub(one, o.Mul(odd, o.const(2, base))), o.const(0, base)
    )
    return o.Where(o.Equal(base, one), one, unit)  # type: ignore[no-any-return]


def _other_than_nan(name: str) -> Rule:
    def rule(o: RuleBuilder, a: Handle, b: Handle) -> Handle:
        found = getattr(o, name)(a, b)
        if a.dtype is None or not a.dtype.is_float:
            return found  # type: ignore[no-any-return]
        return o.Where(o.IsNaN(a), b, o.Where(o.IsNaN(b), a, found))  # type: ignore[no-any-return]

    return rule


def _unsigned(o: RuleBuilder, x: Handle) -> Handle:
    """The same bits without a sign: ONNX shifts nothing else."""
    assert x.dtype is not None
    return o.cast(x, T.DTYPES[f"uint{8 * x.dtype.itemsize}"])


def _shift_left(o: RuleBuilder, a: Handle, b: Handle) -> Handle:
    assert a.dtype is not None
    return o.cast(o.BitShift(_unsigned(o, a), _unsigned(o, b), direction="LEFT"), a.dtype)


def _shift_right(o: RuleBuilder, a: Handle, b: Handle) -> Handle:
    assert a.dtype is not None
    if a.dtype.kind == "uint":
        return o.BitShift(a, b, direction="RIGHT")  # type: ignore[no-any-return]
    # A negative number keeps its sign: all bits are turned before and after.
    minus = o.Less(a, o.const(0, a))
    turned = o.Where(minus, o.Sub(o.const(-1, a), a), a)
    moved = o.cast(o.BitShift(_unsigned(o, turned), _unsigned(o, b), direction="RIGHT"), a.dtype)
    return o.Where(minus, o.Sub(o.const(-1, a), moved), moved)  # type: ignore[no-any-return]


def _bits(name: str) -> Rule:
    """A bitwise op; before opset 18 bit by bit, along one more axis."""

    def rule(o: RuleBuilder, a: Handle, b: Handle) -> Handle:
        if a.dtype is T.bool_:
            return getattr(o, name)(a, b)  # type: ignore[no-any-return]
        if o.opset >= 18:
            return getattr(o, f"Bitwise{name}")(a, b)  # type: ignore[no-any-return]
        assert a.dtype is not None
        count = 8 * a.dtype.itemsize
        places = o.literal(np.arange(count, dtype=np.uint64))
        x, y = (_bits_of(o, v, places) for v in (a, b))
        if name == "And":
            met = o.Mul(x, y)
        else:
            met = o.Max(x, y) if name == "Or" else o.Mod(o.Add(x, y), o.const(2, T.int64))
        last, found = o.ints((-1,)), None
        for start in range(0, count, 32):  # onnxruntime's sums of larger int64 are not exact
            part = o.Slice(met, o.ints((start,)), o.ints((start + 32,)), last)
            weights = o.literal(1 << np.arange(min(32, count - start), dtype=np.int64))
            total = o.ReduceSum(o.Mul(part, weights), last, keepdims=0)
            found = total if found is None else o.Add(found, o.Mul(total, o.const(1 << 32, T.int64)))
        assert found is not None
        return o.cast(found, a.dtype)

    return rule


def _bits_of(o: RuleBuilder, x: Handle, places: Handle) -> Handle:
    wide = o.Unsqueeze(o.cast(x, T.uint64), o.ints((-1,)))
    return o.cast(o.Mod(o.BitShift(wide, places, direction="RIGHT"), o.const(2, T.uint64)), T.int64)


def _invert(o: RuleBuilder, a: Handle) -> Handle:
    if a.dtype is T.bool_:
        return o.Not(a)  # type: ignore[no-any-return]
    if o.opset >= 18:
        return o.BitwiseNot(a)  # type: ignore[no-any-return]
    assert a.dtype is not None
    return o.Sub(o.const(-1 if a.dtype.kind == "int" else np.iinfo(a.dtype.np).max, a), a)  # type: ignore[no-any-return]


def _minus(o: RuleBuilder, x: Handle) -> Handle:
    """Whether the sign is set, that of a zero too."""
    zero = o.const(0, x)
    below = o.And(o.Equal(x, zero), o.Less(o.Reciprocal(x), zero))
    return o.Or(o.Less(x, zero), below)  # type: ignore[no-any-return]


def _atan2(o: RuleBuilder, y: Handle, x: Handle) -> Handle:
    height, width = o.Abs(y), o.Abs(x)
    both = o.And(o.IsInf(y), o.IsInf(x))
    none = o.And(o.Equal(height, o.const(0, y)), o.Equal(width, o.const(0, y)))
    ratio = o.Where(both, o.const(1, y), o.Where(none, o.const(0, y), o.Div(height, width)))
    angle = RULES["atan"](o, ratio)
    angle = o.Where(_minus(o, x), o.Sub(o.const(math.pi, y), angle), angle)
    return o.Where(_minus(o, y), o.Neg(angle), angle)  # type: ignore[no-any-return]


def _nextafter(o: RuleBuilder, x: Handle, y: Handle) -> Handle:
    assert x.dtype is not None
    whole = T.DTYPES[f"int{8 * x.dtype.itemsize}"]
    zero, one = o.const(0, x), o.const(1, whole)
    up = o.Greater(y, x)
    away = o.Equal(up, o.Greater(x, zero))  # the bits of a number grow with its magnitude
    bits = o.Add(o.BitCast(x, to=to_code(whole)), o.Where(away, one, o.Neg(one)))
    least = o.const(np.finfo(x.dtype.np).smallest_subnormal, x)
    moved = o.Where(o.Equal(x, zero), o.Where(up, least, o.Neg(least)), o.BitCast(bits, to=to_code(x.dtype)))
    moved = o.Where(o.Equal(x, y), y, moved)
    return o.Where(o.Or(o.IsNaN(x), o.IsNaN(y)), o.Add(x, y), moved)  # type: ignore[no-any-return]


def _polynomial(o: RuleBuilder, x: Handle, coefficients: Sequence[float]) -> Handle:
    """By Horner's rule; the highest coefficient first."""
    out = o.const(coefficients[0], x)
    for c in coefficients[1:]:
        out = o.Add(o.Mul(out, x), o.const(c, x))
    return out


def _half_sum(o: RuleBuilder, a: Handle, join: str) -> Handle:
    up, down = o.Exp(a), o.Exp(o.Neg(a))
    return o.Mul(getattr(o, join)(up, down), o.const(0.5, a))  # type: ignore[no-any-return]


def _sinh(o: RuleBuilder, a: Handle) -> Handle:
    series = o.Mul(a, _polynomial(o, o.Mul(a, a), [1 / math.factorial(k) for k in (13, 11, 9, 7, 5, 3, 1)]))
    near = o.Less(o.Abs(a), o.const(0.5, a))
    return o.Where(near, series, _half_sum(o, a, "Sub"))  # type: ignore[no-any-return]


def _atan(o: RuleBuilder, a: Handle) -> Handle:
    """In float32, and one step of Newton's method: what is left of the tangent, over 1 and its part."""
    guess = o.cast(o.Atan(o.cast(a, T.float32)), T.float64)
    sine, cosine = o.Sin(guess), o.Cos(guess)
    rest = o.Div(o.Sub(o.Mul(a, cosine), sine), o.Add(cosine, o.Mul(a, sine)))
    return o.Add(guess, o.Where(o.Or(o.IsInf(a), o.IsNaN(a)), o.const(0, a), rest))  # type: ignore[no-any-return]


def _log1p(o: RuleBuilder, a: Handle) -> Handle:
    """Of the rounded sum, times what the rounding has made of a. Source: Kahan, in HP 15C's handbook, 1982."""
    one = o.const(1, a)
    u = o.Add(a, one)
    even = o.Or(o.Equal(u, one), o.IsInf(u))
    part = o.Div(o.Log(u), o.Sub(u, one))
    return o.Where(even, a, o.Mul(a, part))  # type: ignore[no-any-return]


def _expm1(o: RuleBuilder, a: Handle) -> Handle:
    """The same for the exponential."""
    one = o.const(1, a)
    u = o.Exp(a)
    less = o.Sub(u, one)
    part = o.Div(a, o.Log(u))
    made = o.Where(o.Or(o.IsInf(u), o.Equal(less, o.const(-1, a))), less, o.Mul(less, part))
    return o.Where(o.Equal(u, one), a, made)  # type: ignore[no-any-return]


def _asinh(o: RuleBuilder, a: Handle) -> Handle:
    size, one = o.Abs(a), o.const(1, a)
    large = o.Greater(size, o.const(1e150, a))  # whose square is too large
    safe = o.Where(large, one, size)
    square = o.Mul(safe, safe)
    root = o.Sqrt(o.Add(square, one))
    near = _log1p(o, o.Add(safe, o.Div(square, o.Add(root, one))))
    far = o.Add(o.Log(size), o.const(math.log(2), a))
    return o.Mul(o.Sign(a), o.Where(large, far, near))  # type: ignore[no-any-return]


def _doubles(name: str, rule: Rule) -> Rule:
    """An op that onnxruntime has for float32 alone, with what it is made of for float64."""
    return lambda o, a: rule(o, a) if a.dtype is T.float64 else getattr(o, name)(a)  # type: ignore[no-any-return]


RULES: dict[str, Rule] = {
    "add": lambda o, a, b: o.Add(a, b),
    "sub": lambda o, a, b: o.Sub(a, b),
    "mul": lambda o, a, b: o.Mul(a, b),
    "div": lambda o, a, b: o.Div(a, b),
    "floordiv": _floor_divide,
    "mod": _floored_rest,
    "pow": _power,
    "maximum": lambda o, a, b: o.Max(a, b),
    "minimum": lambda o, a, b: o.Min(a, b),
    "fmax": _other_than_nan("Max"),
    "fmin": _other_than_nan("Min"),
    "fmod": lambda o, a, b: o.Mod(a, b, fmod=1),
    "neg": lambda o, a: o.Neg(a),
    "abs": lambda o, a: o.Abs(a),
    "sign": lambda o, a: o.Sign(a),
    "fma": lambda o, a, b, c: o.Add(o.Mul(a, b), c),
    "eq": lambda o, a, b: o.Equal(a, b),
    "ne": lambda o, a, b: o.Not(o.Equal(a, b)),
    "lt": lambda o, a, b: o.Less(a, b),
    "le": lambda o, a, b: o.LessOrEqual(a, b),
    "gt": lambda o, a, b: o.Greater(a, b),
    "ge": lambda o, a, b: o.GreaterOrEqual(a, b),
    "logical_and": lambda o, a, b: o.And(a, b),
    "logical_or": lambda o, a, b: o.Or(a, b),
    "logical_xor": lambda o, a, b: o.Xor(a, b),
    "logical_not": lambda o, a: o.Not(a),
    "isnan": lambda o, a: o.IsNaN(a),
    "isinf": lambda o, a: o.IsInf(a),
    "isfinite": lambda o, a: o.Not(o.Or(o.IsNaN(a), o.IsInf(a))),
    "and": _bits("And"),
    "or": _bits("Or"),
    "xor": _bits("Xor"),
    "invert": _invert,
    "atan2": _atan2,
    "nextafter": _nextafter,
    "shl": _shift_left,
    "shr": _shift_right,
    "where": lambda o, c, a, b: o.Where(c, a, b),
    "floor": lambda o, a: o.Floor(a),
    "ceil": lambda o, a: o.Ceil(a),
    "trunc": lambda o, a: o.Mul(o.Sign(a), o.Floor(o.Abs(a))),
    "rint": lambda o, a: o.Round(a),
    "rsqrt": lambda o, a: o.Reciprocal(o.Sqrt(a)),
    "exp2": lambda o, a: o.Pow(o.const(2, a), a),
    "expm1": _expm1,
    "log2": _scaled("Log", 1 / math.log(2)),
    "log10": _scaled("Log", 1 / math.log(10)),
    "log1p": _log1p,
    "gelu": lambda o, a: o.Mul(
        o.Mul(a, o.const(0.5, a)), o.Add(o.const(1, a), o.Erf(o.Mul(a, o.const(math.sqrt(0.5), a))))
    ),
    "softplus": lambda o, a: o.Softplus(a),
    "erfc": lambda o, a: o.Sub(o.const(1, a), o.Erf(a)),
    "cbrt": lambda o, a: o.Mul(o.Sign(a), o.Pow(o.Abs(a), o.const(1 / 3, a))),
    "copysign": lambda o, a, b: o.Where(_minus(o, b), o.Neg(o.Abs(a)), o.Abs(a)),
    **{
        name: _plain(onnx)
        for name, onnx in {
            "sqrt": "Sqrt", "exp": "Exp", "log": "Log", "sin": "Sin", "cos": "Cos", "tanh": "Tanh", "asin": "Asin",
            "acos": "Acos", "acosh": "Acosh", "atanh": "Atanh", "sigmoid": "Sigmoid", "erf": "Erf",
        }.items()
    },
    "tan": _doubles("Tan", lambda o, a: o.Div(o.Sin(a), o.Cos(a))),
    "sinh": _doubles("Sinh", _sinh),
    "cosh": _doubles("Cosh", lambda o, a: _half_sum(o, a, "Add")),
    "atan": _doubles("Atan", _atan),
    "asinh": _doubles("Asinh", _asinh),
}  # fmt: skip


def writable(roots: Sequence[Expr]) -> str:
    """The first instruction that ONNX has not, or an empty string."""
    return next(
        (e.op for e in walk(roots) if e.op not in RULES and e.op not in ("arg", "const", "cast", "index")), ""
    )


def write(
    o: RuleBuilder, roots: Sequence[Expr], args: Sequence[Handle], shape: Sequence[Any]
) -> list[Handle]:
    """Expressions over `args` (already of the dtypes that they expect) as ONNX ops; shape: of the result."""
    done: dict[int, Handle] = {}
    for node in walk(roots):
        row = [done[id(a)] for a in node.args]
        if node.op == "arg":
            out = args[node.value]
        elif node.op == "const":
            out = o.literal(node.dtype.array(node.value))
        elif node.op == "cast":
            out = o.cast(row[0], node.dtype)
        elif node.op == "index":
            size: Any = 1
            for n in shape:
                size = n * size
            flat = o.counted(0, 1, size, T.int64)
            flat.shape = (size,)
            out = o.reshape(flat, shape)
        elif node.op in RULES:
            out = RULES[node.op](o, *row)
            out.dtype = node.dtype
        else:
            raise Inexpressible(f"ONNX has no op for {node.op}")
        done[id(node)] = out
    return [done[id(r)] for r in roots]
