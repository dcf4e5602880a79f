"""16-bit floats in LLVM IR: 16 bits in memory, float32 in registers. On single numbers and on vectors."""

from __future__ import annotations

from typing import Any

from llvmlite import ir

_F32, _HALF, _I16, _I32 = ir.FloatType(), ir.HalfType(), ir.IntType(16), ir.IntType(32)

#: name of the dtype -> type in memory
HALVES = {"f16": _I16, "bf16": _I16}


def _like(value: Any, element: Any) -> Any:
    """The type with as many lanes as `value`."""
    return ir.VectorType(element, value.type.count) if isinstance(value.type, ir.VectorType) else element


def _constant(value: Any, number: int) -> Any:
    if isinstance(value.type, ir.VectorType):
        return ir.Constant(value.type, [number] * value.type.count)
    return ir.Constant(value.type, number)


def widen(b: Any, name: str, bits: Any) -> Any:
    """The float32 of 16 bits."""
    if name == "f16":
        return b.fpext(b.bitcast(bits, _like(bits, _HALF)), _like(bits, _F32))
    wide = b.zext(bits, _like(bits, _I32))
    return b.bitcast(b.shl(wide, _constant(wide, 16)), _like(bits, _F32))


def narrow(b: Any, name: str, x: Any) -> Any:
    """The 16 bits of a float32, rounded to the nearest, halves to even; NaN stays NaN."""
    if name == "f16":
        return b.bitcast(b.fptrunc(x, _like(x, _HALF)), _like(x, _I16))
    bits = b.bitcast(x, _like(x, _I32))
    sixteen = _constant(bits, 16)
    odd = b.and_(b.lshr(bits, sixteen), _constant(bits, 1))
    up = b.add(bits, b.add(odd, _constant(bits, 0x7FFF)))
    nan = b.or_(bits, _constant(bits, 0x400000))
    chosen = b.select(b.fcmp_unordered("uno", x, x), nan, up)
    return b.trunc(b.lshr(chosen, sixteen), _like(x, _I16))
