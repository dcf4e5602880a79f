"""AVX-512's instruction for y * 2**k on wide values: the bits of the portable code in fewer operations.

Nothing else of the vector math depends on the CPU, and no result does.
"""

from __future__ import annotations

import functools
from typing import Any

import llvmlite.binding as llvm
from llvmlite import ir

from .vecmath_value import Value

_REGISTER_BITS = 512
_NAMES = {"f32": ("ps", ir.IntType(16)), "f64": ("pd", ir.IntType(8))}


@functools.cache
def _available() -> bool:
    return bool(llvm.get_host_cpu_features().get("avx512f"))


def scales(y: Value) -> bool:
    """Whether `scale_float` has the instruction for values like y."""
    vector = y.v.type
    return (
        isinstance(vector, ir.VectorType)
        and _available()
        and vector.count * y.kind.bits % _REGISTER_BITS == 0
    )


def scale_float(y: Value, k: Value) -> Value | None:
    """y * 2**floor(k) for floats k, rounded once; None where the instruction does not fit."""
    if not scales(k):
        return None
    if not isinstance(y.v.type, ir.VectorType):  # a constant
        y = Value(y.b, ir.Constant(k.v.type, [y.v] * k.v.type.count), y.kind)
    # A builder of its own: that of `y` may be one that turns scalar code into vector code (see wide.py).
    b = ir.IRBuilder(y.b.block)
    parts = [_one_register(b, y, *halves) for halves in zip(_split(b, y, y.v), _split(b, y, k.v))]
    while len(parts) > 1:
        parts = [_join(b, *parts[n : n + 2]) for n in range(0, len(parts), 2)]
    y.b.position_at_end(b.block)
    return Value(y.b, parts[0], y.kind)


def _lanes(numbers: range) -> ir.Constant:
    return ir.Constant(ir.VectorType(ir.IntType(32), len(numbers)), list(numbers))


def _split(b: ir.IRBuilder, y: Value, v: Any) -> list[Any]:
    lanes = _REGISTER_BITS // y.kind.bits
    starts = range(0, v.type.count, lanes)
    nothing = ir.Constant(v.type, ir.Undefined)
    return [b.shuffle_vector(v, nothing, _lanes(range(s, s + lanes))) for s in starts]


def _join(b: ir.IRBuilder, low: Any, high: Any) -> Any:
    return b.shuffle_vector(low, high, _lanes(range(2 * low.type.count)))


def _one_register(b: ir.IRBuilder, y: Value, v: Any, k: Any) -> Any:
    suffix, mask = _NAMES[y.kind.name]
    name, rounding = f"llvm.x86.avx512.mask.scalef.{suffix}.512", ir.IntType(32)
    function = b.module.globals.get(name)
    if function is None:
        kind = ir.FunctionType(v.type, [v.type, v.type, v.type, mask, rounding])
        function = ir.Function(b.module, kind, name)
    current_rounding = 4
    return b.call(function, [v, k, v, mask(-1), rounding(current_rounding)])
