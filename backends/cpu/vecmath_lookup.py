"""Look-up in tables of sixteen float32 or int32: coefficients of piecewise polynomials, chosen lane by lane.

A table is one AVX-512 register and two of AVX2, and a permutation of it by the lanes of an index is one
instruction; elsewhere, and for single elements, the table is read from memory. The numbers are the same.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

import llvmlite.binding as llvm
from llvmlite import ir

from .vecmath_value import KINDS, Value

ENTRIES = 16
_I32 = ir.IntType(32)


@functools.cache
def _has(feature: str) -> bool:
    return bool(llvm.get_host_cpu_features().get(feature))


def look_up(table: Sequence[float], index: Value) -> Value:
    """table[index & 15] for an int32 index; a table of Python integers gives int32, one of floats float32."""
    kind = KINDS["i32" if isinstance(table[0], int) else "f32"]
    assert (len(table), index.kind.name) == (ENTRIES, "i32")
    # A builder of its own: that of `index` may be one that turns scalar code into vector code (see wide.py).
    b = ir.IRBuilder(index.b.block)
    if not isinstance(index.v.type, ir.VectorType):
        v = _from_memory(b, kind.llvm, table, index.v)
    elif index.v.type.count % ENTRIES == 0 and _has("avx512f"):
        v = _by_registers(b, kind.llvm, table, index.v, 16, _permute_16)
    elif index.v.type.count % 8 == 0 and _has("avx2"):
        v = _by_registers(b, kind.llvm, table, index.v, 8, _permute_8)
    else:
        v = ir.Constant(ir.VectorType(kind.llvm, index.v.type.count), ir.Undefined)
        for lane in map(_I32, range(index.v.type.count)):
            found = _from_memory(b, kind.llvm, table, b.extract_element(index.v, lane))
            v = b.insert_element(v, found, lane)
    index.b.position_at_end(b.block)
    return Value(index.b, v, kind)


def _from_memory(b: ir.IRBuilder, element: Any, table: Sequence[float], index: Any) -> Any:
    constant = ir.Constant(ir.ArrayType(element, ENTRIES), list(table))
    name = f"duograd.table.{hash(tuple(table)) & (2**64 - 1):x}"
    known = b.module.globals.get(name)
    if known is None:
        known = ir.GlobalVariable(b.module, constant.type, name)
        known.global_constant, known.linkage, known.initializer = True, "internal", constant
    place = b.gep(known, [_I32(0), b.and_(index, _I32(ENTRIES - 1))], inbounds=True)
    return b.load(place, typ=element)


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


def _permute_16(b: Any, element: Any, table: Sequence[float], index: Any) -> Any:
    return _permute(b, "llvm.x86.avx512.permvar.{}.512", element, table, index)


def _permute_8(b: Any, element: Any, table: Sequence[float], index: Any) -> Any:
    name = "llvm.x86.avx2.perm{}"
    low, high = (_permute(b, name, element, half, index) for half in (table[:8], table[8:]))
    upper = b.icmp_signed(
        "!=", b.and_(index, ir.Constant(index.type, [8] * 8)), ir.Constant(index.type, [0] * 8)
    )
    return b.select(upper, high, low)


def _permute(b: Any, name: str, element: Any, table: Sequence[float], index: Any) -> Any:
    integer = isinstance(element, ir.IntType)
    avx512 = "512" in name
    name = name.format(("si" if avx512 else "d") if integer else ("sf" if avx512 else "ps"))
    numbers = ir.Constant(ir.VectorType(element, len(table)), list(table))
    function = b.module.globals.get(name)
    if function is None:
        kind = ir.FunctionType(numbers.type, [numbers.type, index.type])
        function = ir.Function(b.module, kind, name)
    return b.call(function, [numbers, index])


def _numbers(numbers: range) -> ir.Constant:
    return ir.Constant(ir.VectorType(_I32, len(numbers)), list(numbers))


def _join(b: Any, low: Any, high: Any) -> Any:
    return b.shuffle_vector(low, high, _numbers(range(2 * low.type.count)))
