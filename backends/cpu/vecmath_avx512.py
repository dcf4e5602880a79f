"""AVX-512's instructions for what other CPUs take several operations to do, on wide values: the same bits.

y * 2**k; the magnitude of x up to a limit; what x lies off the nearest multiple of a power of two.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from llvmlite import ir

from .target import has
from .vecmath_value import Value, fabs, highest

_REGISTER_BITS = 512
_NAMES = {"f32": ("ps", ir.IntType(16)), "f64": ("pd", ir.IntType(8))}
_I32 = ir.IntType(32)
_ROUNDING = _I32(4)  # the current one


def _fits(x: Value, feature: str) -> bool:
    vector = x.v.type
    return (
        isinstance(vector, ir.VectorType)
        and has(feature)
        and vector.count * x.kind.bits % _REGISTER_BITS == 0
    )


def scales(y: Value) -> bool:
    """Whether `scale_float` has the instruction for values like y."""
    return _fits(y, "avx512f")


def scale_float(y: Value, k: Value) -> Value | None:
    """y * 2**floor(k) for floats k, rounded once; None where the instruction does not fit."""
    if not scales(k):
        return None
    if not isinstance(y.v.type, ir.VectorType):  # a constant
        y = Value(y.b, ir.Constant(k.v.type, [y.v] * k.v.type.count), y.kind)
    return _by_register("scalef", lambda v, k, whole: [v, k, v, whole, _ROUNDING], y, k)


def magnitude(x: Value, limit: float) -> Value:
    """|x|, lowered to `limit`; of a NaN the limit or a NaN."""
    if not _fits(x, "avx512dq"):
        return highest(fabs(x), limit)
    smaller_magnitude_without_sign = _I32(0b1010)
    top = Value(x.b, ir.Constant(x.v.type, [x.const(limit).v] * x.v.type.count), x.kind)
    return _by_register(
        "range", lambda v, top, whole: [v, top, smaller_magnitude_without_sign, v, whole, _ROUNDING], x, top
    )


def off_multiple(x: Value, places: int, rounded: Value) -> Value:
    """x less the multiple of 2**-places that it is nearest to, halves to even; rounded: that multiple.

    Exact. Of an infinity 0 or NaN; the sign of a 0 is left open.
    """
    if not _fits(x, "avx512dq"):
        return x - rounded
    to_nearest = _I32(places << 4 | 0b1000)
    return _by_register("reduce", lambda v, whole: [v, to_nearest, v, whole, _ROUNDING], x)


def _by_register(name: str, arguments: Callable[..., list[Any]], *values: Value) -> Value:
    """The masked instruction `name`, register by register. arguments: its operands for the values and a full mask."""
    first = values[0]
    suffix, mask = _NAMES[first.kind.name]
    # A builder of its own: that of a value may be one that turns scalar code into vector code (see wide.py).
    b = ir.IRBuilder(first.b.block)
    parts = []
    for pieces in zip(*(_split(b, v) for v in values)):
        operands = arguments(*pieces, mask(-1))
        parts.append(b.call(_declared(b, f"llvm.x86.avx512.mask.{name}.{suffix}.512", operands), operands))
    while len(parts) > 1:
        parts = [_join(b, *parts[n : n + 2]) for n in range(0, len(parts), 2)]
    first.b.position_at_end(b.block)
    return Value(first.b, parts[0], first.kind)


def _declared(b: ir.IRBuilder, name: str, operands: list[Any]) -> Any:
    known = b.module.globals.get(name)
    if known is None:
        known = ir.Function(b.module, ir.FunctionType(operands[0].type, [o.type for o in operands]), name)
    return known


def _lanes(numbers: range) -> ir.Constant:
    return ir.Constant(ir.VectorType(_I32, len(numbers)), list(numbers))


def _split(b: ir.IRBuilder, x: Value) -> list[Any]:
    lanes = _REGISTER_BITS // x.kind.bits
    if x.v.type.count == lanes:
        return [x.v]
    starts = range(0, x.v.type.count, lanes)
    nothing = ir.Constant(x.v.type, ir.Undefined)
    return [b.shuffle_vector(x.v, nothing, _lanes(range(s, s + lanes))) for s in starts]


def _join(b: ir.IRBuilder, low: Any, high: Any) -> Any:
    return b.shuffle_vector(low, high, _lanes(range(2 * low.type.count)))
