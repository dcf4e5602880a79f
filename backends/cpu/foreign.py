"""Numba intrinsics that call routines of other libraries by address."""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba import types
from numba.extending import intrinsic

__all__ = ["address_of", "call_routine"]

_I64 = ir.IntType(64)


@intrinsic
def address_of(typingctx: Any, args: Any) -> Any:
    """The address of a kernel's block of arguments."""

    def codegen(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        return builder.ptrtoint(values[0], _I64)

    return types.int64(types.CPointer(types.int64)), codegen


@intrinsic
def call_routine(typingctx: Any, address: Any, arguments: Any) -> Any:
    """Call the routine at an address with a tuple of int64, addresses or numbers; it returns nothing."""

    def codegen(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        count = signature.args[1].count
        routine = ir.FunctionType(ir.VoidType(), [_I64] * count)
        function = builder.inttoptr(values[0], routine.as_pointer())
        builder.call(function, [builder.extract_value(values[1], k) for k in range(count)])
        return context.get_dummy_value()

    return types.void(types.int64, arguments), codegen
