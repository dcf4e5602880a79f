"""Scalar instructions of generated loops that are not mathematics: selection, integer arithmetic, conversion.

`v_<op>_<kind>` works like the functions of vecmath: straight-line LLVM code that loops vectorise around.
`to_<kind>(x)` converts from any kind. No instruction traps:

- integer division by zero gives 0 and the smallest integer divided by -1 wraps, as in NumPy;
- shifts by the width or more give 0 (-1 for a negative number shifted right), as in NumPy;
- a float becomes an integer by truncation; NaN becomes 0. int32 and int64 saturate, narrower integers keep
  the low bits of the int32 (unsigned: of the int64), which is what NumPy gives on x86 wherever C defines it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from numba import types
from numba.extending import intrinsic

from . import vecmath
from .vecmath_registry import VECMATH
from .vecmath_registry import vector as _vector
from .vecmath_value import (
    ALL,
    B1,
    FLOATS,
    INTS,
    KINDS,
    NUMBERS,
    Value,
    ceil,
    copysign,
    fabs,
    floor,
    fma,
    rint,
    select,
    sqrt,
    trunc,
)

__all__: list[str] = []
_before = set(vecmath.VECMATH)


def vector(op: str, kinds: Sequence[str], args: Sequence[str] = ("T",), result: str = "T") -> Any:
    """Register a body for the kinds at which vecmath has no function of that name."""
    return _vector(op, [k for k in kinds if f"v_{op}_{k}" not in VECMATH], args, result)


@vector("where", ALL, ("b1", "T", "T"))
def _where(c: Value, a: Value, b: Value) -> Value:
    return select(c, a, b)


# ---- order


@vector("maximum", NUMBERS, ("T", "T"))
def _maximum(a: Value, b: Value) -> Value:
    larger = select(a > b, a, b)  # b when one is NaN
    return select(a.ne(a), a, larger) if a.kind.is_float else larger


@vector("minimum", NUMBERS, ("T", "T"))
def _minimum(a: Value, b: Value) -> Value:
    smaller = select(a < b, a, b)
    return select(a.ne(a), a, smaller) if a.kind.is_float else smaller


@vector("sign", NUMBERS)
def _sign(x: Value) -> Value:
    one = select(x > 0, x.const(1), x.const(0))
    if not x.kind.is_signed:
        return one
    result = select(x < 0, x.const(-1), one)
    return select(x.ne(x), x, result) if x.kind.is_float else result


@vector("abs", NUMBERS)
def _abs(x: Value) -> Value:
    if x.kind.is_float:
        return fabs(x)
    return select(x < 0, -x, x) if x.kind.is_signed else x


# ---- integer arithmetic, wrapping


@vector("add", INTS, ("T", "T"))
def _add(a: Value, b: Value) -> Value:
    return a + b


@vector("sub", INTS, ("T", "T"))
def _sub(a: Value, b: Value) -> Value:
    return a - b


@vector("mul", INTS, ("T", "T"))
def _mul(a: Value, b: Value) -> Value:
    return a * b


@vector("neg", NUMBERS)
def _neg(x: Value) -> Value:
    return -x


@vector("fma", NUMBERS, ("T", "T", "T"))
def _fma(a: Value, b: Value, c: Value) -> Value:
    return fma(a, b, c) if a.kind.is_float else a * b + c


@vector("invert", INTS)
def _invert(x: Value) -> Value:
    return ~x


@vector("and", INTS, ("T", "T"))
def _and(a: Value, b: Value) -> Value:
    return a & b


@vector("or", INTS, ("T", "T"))
def _or(a: Value, b: Value) -> Value:
    return a | b


@vector("xor", INTS, ("T", "T"))
def _xor(a: Value, b: Value) -> Value:
    return a ^ b


def _too_far(count: Value) -> Value:
    unsigned = count.viewed(count.kind.name.replace("i", "u"))
    return unsigned >= count.kind.bits


@vector("shl", INTS, ("T", "T"))
def _shl(a: Value, b: Value) -> Value:
    far = _too_far(b)
    return select(far, a.const(0), a << select(far, b.const(0), b))


@vector("shr", INTS, ("T", "T"))
def _shr(a: Value, b: Value) -> Value:
    far = _too_far(b)
    # A signed number shifted by its width less one is all sign.
    last = a.kind.bits - 1 if a.kind.is_signed else 0
    shifted = a >> select(far, b.const(last), b)
    return shifted if a.kind.is_signed else select(far, a.const(0), shifted)


def _safe_divisor(a: Value, b: Value) -> Value:
    """`b`, or 1 where dividing by it would trap."""
    bad = b.eq(0)
    if b.kind.is_signed:
        bad = bad | (b.eq(-1) & a.eq(-(1 << (a.kind.bits - 1))))
    return select(bad, b.const(1), b)


def _remainder(a: Value, b: Value) -> Value:
    emit = a.b.srem if a.kind.is_signed else a.b.urem
    return Value(a.b, emit(a.v, b.v), a.kind)


def _quotient(a: Value, b: Value) -> Value:
    emit = a.b.sdiv if a.kind.is_signed else a.b.udiv
    return Value(a.b, emit(a.v, b.v), a.kind)


@vector("floordiv", INTS, ("T", "T"))
def _floordiv(a: Value, b: Value) -> Value:
    divisor = _safe_divisor(a, b)
    result = _quotient(a, divisor)
    if a.kind.is_signed:
        rest = a - result * divisor
        result = select(rest.ne(0) & ((rest ^ b) < 0), result - 1, result)
    return select(b.eq(0), b.const(0), result)


@vector("mod", INTS, ("T", "T"))
def _mod(a: Value, b: Value) -> Value:
    rest = _remainder(a, _safe_divisor(a, b))
    if a.kind.is_signed:
        rest = select(rest.ne(0) & ((rest ^ b) < 0), rest + b, rest)
    return select(b.eq(0), b.const(0), rest)


# ---- the same for floats: Python's floor division, with NumPy's signs and rounding


def _float_divmod(a: Value, b: Value) -> tuple[Value, Value]:
    rest = Value(a.b, a.b.frem(a.v, b.v), a.kind)
    quotient = (a - rest) / b
    wrong = rest.ne(0) & ((rest < 0) ^ (b < 0))
    mod = select(rest.eq(0), copysign(a.const(0), b), select(wrong, rest + b, rest))
    quotient = select(wrong, quotient - 1, quotient)
    down = floor(quotient)
    down = select((quotient - down) > 0.5, down + 1, down)
    return select(quotient.eq(0), copysign(a.const(0), a / b), down), mod


@vector("floordiv", FLOATS, ("T", "T"))
def _float_floordiv(a: Value, b: Value) -> Value:
    return select(b.eq(0), a / b, _float_divmod(a, b)[0])


@vector("mod", FLOATS, ("T", "T"))
def _float_mod(a: Value, b: Value) -> Value:
    return _float_divmod(a, b)[1]


# ---- rounding and classes; integers are whole and finite


@vector("floor", NUMBERS)
def _floor(x: Value) -> Value:
    return floor(x) if x.kind.is_float else x


@vector("ceil", NUMBERS)
def _ceil(x: Value) -> Value:
    return ceil(x) if x.kind.is_float else x


@vector("trunc", NUMBERS)
def _trunc(x: Value) -> Value:
    return trunc(x) if x.kind.is_float else x


@vector("rint", NUMBERS)
def _rint(x: Value) -> Value:
    return rint(x) if x.kind.is_float else x


@vector("isnan", NUMBERS, result="b1")
def _isnan(x: Value) -> Value:
    return x.ne(x)


@vector("isinf", NUMBERS, result="b1")
def _isinf(x: Value) -> Value:
    return fabs(x).eq(float("inf")) if x.kind.is_float else x.ne(x)


@vector("isfinite", NUMBERS, result="b1")
def _isfinite(x: Value) -> Value:
    return fabs(x) < float("inf") if x.kind.is_float else x.eq(x)


@vector("copysign", FLOATS, ("T", "T"))
def _copysign(a: Value, b: Value) -> Value:
    return copysign(a, b)


@vector("sqrt", FLOATS)
def _sqrt(x: Value) -> Value:
    return sqrt(x)


@vector("rsqrt", FLOATS)
def _rsqrt(x: Value) -> Value:
    return x.const(1) / sqrt(x)


for _name in sorted(set(VECMATH) - _before):
    globals()[_name] = VECMATH[_name].function
    __all__.append(_name)  # noqa: PYI056


# ---- conversion from any kind


def _convert(x: Value, target: str) -> Value:
    if not x.kind.is_float or target[0] not in "iu":
        return x.to(target)
    if target == "u64":
        high = x >= float(1 << 63)
        return select(high, x.to("u64"), x.to("i64").viewed("u64"))
    if target in ("i32", "i64"):
        return x.to(target)
    return x.to("i64" if target == "u32" else "i32").to(target)


def _make_conversion(target: str) -> Any:
    def convert(typingctx: Any, x: Any) -> Any:
        source = _kind_of(x)
        if source is None:
            return None

        def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            return _convert(Value(builder, args[0], source), target).v

        return KINDS[target].numba(source.numba), codegen

    convert.__name__ = convert.__qualname__ = f"to_{target}"
    return intrinsic(convert)


def _kind_of(numba_type: Any) -> Any:
    numba_type = types.unliteral(numba_type)
    return next((k for k in KINDS.values() if k.numba == numba_type), None)


for _target in KINDS:
    globals()[f"to_{_target}"] = _make_conversion(_target)
    __all__.append(f"to_{_target}")  # noqa: PYI056

assert B1.numba == types.boolean
