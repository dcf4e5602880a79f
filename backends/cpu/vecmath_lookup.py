"""Piecewise polynomials: look-up of coefficients, lane by lane, in tables of four, sixteen or 32 float32 or int32.

A table of sixteen is one AVX-512 register and two of AVX2; a permutation of one or two registers by the lanes of
an index is one instruction of AVX-512. A table of four is half an AVX2 register, and `vpermilps`, which chooses among
four lanes, costs half of what `vpermps` does (Zen 3). Elsewhere, and for single elements, the table is read from
memory. The numbers are the same.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from llvmlite import ir

from . import vecmath_avx512 as avx512
from .vecmath_value import KINDS, Value, fma

_I32 = ir.IntType(32)


class Place(NamedTuple):
    """Where x lies: the number of its piece in the low bits of an int32, and what it lies off the centre."""

    piece: Value
    off: Value


def place(x: Value, places: int) -> Place:
    """The place of x among pieces about the multiples of 2**-places; numbers of negative ones end in ...11111."""
    magic = 1.5 * 2.0 ** (x.kind.mantissa - places)  # adding it rounds to a multiple and leaves its number
    shifted = x + magic
    return Place(shifted.bits(), avx512.off_multiple(x, places, shifted - magic))


def piecewise(table: Sequence[Sequence[float]], where: Place) -> Value:
    """sum of table[k][piece] * off**k by Horner's rule."""
    p = look_up(table[-1], where.piece)
    for column in reversed(table[:-1]):
        p = fma(p, where.off, look_up(column, where.piece))
    return p


def look_up(table: Sequence[float], index: Value) -> Value:
    """table[index mod its length] for an int32 index; Python integers in the table give int32, floats float32."""
    kind = KINDS["i32" if isinstance(table[0], int) else "f32"]
    assert len(table) in (4, 16, 32), len(table)
    assert index.kind.name == "i32", index.kind.name
    # A builder of its own: that of `index` may be one that turns scalar code into vector code (see wide.py).
    b = ir.IRBuilder(index.b.block)
    if not isinstance(index.v.type, ir.VectorType):
        v = _from_memory(b, kind.llvm, table, index.v)
    elif len(table) == 4 and index.v.type.count % 8 == 0 and avx512.has("avx2"):
        v = _by_registers(b, kind.llvm, table, index.v, 8, _permute_halves)
    elif len(table) > 4 and index.v.type.count % 16 == 0 and avx512.has("avx512f"):
        v = _by_registers(b, kind.llvm, table, index.v, 16, _permute_512)
    elif len(table) > 4 and index.v.type.count % 8 == 0 and avx512.has("avx2"):
        v = _by_registers(b, kind.llvm, table, index.v, 8, _permute_256)
    else:
        v = ir.Constant(ir.VectorType(kind.llvm, index.v.type.count), ir.Undefined)
        for lane in map(_I32, range(index.v.type.count)):
            found = _from_memory(b, kind.llvm, table, b.extract_element(index.v, lane))
            v = b.insert_element(v, found, lane)
    index.b.position_at_end(b.block)
    return Value(index.b, v, kind)


def _from_memory(b: ir.IRBuilder, element: Any, table: Sequence[float], index: Any) -> Any:
    constant = ir.Constant(ir.ArrayType(element, len(table)), list(table))
    name = f"duograd.table.{hash(tuple(table)) & (2**64 - 1):x}"
    known = b.module.globals.get(name)
    if known is None:
        known = ir.GlobalVariable(b.module, constant.type, name)
        known.global_constant, known.linkage, known.initializer = True, "internal", constant
    position = b.gep(known, [_I32(0), b.and_(index, _I32(len(table) - 1))], inbounds=True)
    return b.load(position, typ=element)


def _by_registers(b: Any, element: Any, table: Sequence[float], index: Any, lanes: int, permute: Any) -> Any:
    nothing = ir.Constant(index.type, ir.Undefined)
    parts = []
    for start in range(0, index.type.count, lanes):
        part = index
        if index.type.count > lanes:
            part = b.shuffle_vector(index, nothing, _numbers(range(start, start + lanes)))
        parts.append(permute(b, element, table, part))
    while len(parts) > 1:
        parts = [_join(b, *parts[n : n + 2]) for n in range(0, len(parts), 2)]
    return parts[0]


def _permute_512(b: Any, element: Any, table: Sequence[float], index: Any) -> Any:
    integer = isinstance(element, ir.IntType)
    low, high = (_vector(element, part) for part in (table[:16], table[-16:]))
    if len(table) == 16:
        return _call(b, f"llvm.x86.avx512.permvar.{'si' if integer else 'sf'}.512", low.type, [low, index])
    name = f"llvm.x86.avx512.vpermi2var.{'d' if integer else 'ps'}.512"
    return _call(b, name, low.type, [low, index, high])


def _permute_halves(b: Any, element: Any, table: Sequence[float], index: Any) -> Any:
    floats = ir.VectorType(ir.FloatType(), 8)
    entries = b.bitcast(_vector(element, [*table, *table]), floats)
    found = _call(b, "llvm.x86.avx.vpermilvar.ps.256", floats, [entries, index])
    return b.bitcast(found, ir.VectorType(element, 8))


def _permute_256(b: Any, element: Any, table: Sequence[float], index: Any) -> Any:
    """Of every two halves the one that a bit of the index says, from the lowest bit that a register leaves."""
    name = f"llvm.x86.avx2.perm{'d' if isinstance(element, ir.IntType) else 'ps'}"
    vectors = [_vector(element, table[n : n + 8]) for n in range(0, len(table), 8)]
    parts = [_call(b, name, v.type, [v, index]) for v in vectors]
    bit = 8
    while len(parts) > 1:
        masked = b.and_(index, ir.Constant(index.type, [bit] * 8))
        upper = b.icmp_signed("!=", masked, ir.Constant(index.type, [0] * 8))
        parts = [b.select(upper, parts[n + 1], parts[n]) for n in range(0, len(parts), 2)]
        bit *= 2
    return parts[0]


def _vector(element: Any, numbers: Sequence[float]) -> ir.Constant:
    return ir.Constant(ir.VectorType(element, len(numbers)), list(numbers))


def _call(b: Any, name: str, result: Any, operands: list[Any]) -> Any:
    function = b.module.globals.get(name)
    if function is None:
        function = ir.Function(b.module, ir.FunctionType(result, [o.type for o in operands]), name)
    return b.call(function, operands)


def _numbers(numbers: range) -> ir.Constant:
    return ir.Constant(ir.VectorType(_I32, len(numbers)), list(numbers))


def _join(b: Any, low: Any, high: Any) -> Any:
    return b.shuffle_vector(low, high, _numbers(range(2 * low.type.count)))
