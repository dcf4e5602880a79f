"""Numba intrinsics that call routines of other libraries by address."""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba import types
from numba.extending import intrinsic, register_jitable

from .intrinsics import atomic_replace_i64, atomic_store_i64, cpu_pause, load_i64, store_i64
from .numba_front import KernelCompiler

__all__ = ["address_of", "call_number", "call_routine", "hold_threads", "release_threads"]

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


@intrinsic
def call_number(typingctx: Any, address: Any) -> Any:
    """Call the function at an address, which takes nothing and returns a C int."""

    def codegen(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        function = builder.inttoptr(values[0], ir.FunctionType(ir.IntType(32), []).as_pointer())
        return builder.sext(builder.call(function, []), _I64)

    return types.int64(types.int64), codegen


_function = register_jitable(error_model="numpy", no_cpython_wrapper=True, pipeline_class=KernelCompiler)


@_function
def _lock(cell: int) -> None:
    while not atomic_replace_i64(cell, 0, 1):
        cpu_pause()


@_function
def hold_threads(guard: int) -> None:
    """Let the library use one thread until the last holder releases it; see routines._thread_guard."""
    if guard != 0:
        _lock(guard)
        holders = load_i64(guard, 1)
        if holders == 0:
            store_i64(guard, 2, call_number(load_i64(guard, 3)))
            call_routine(load_i64(guard, 4), (1,))
        store_i64(guard, 1, holders + 1)
        atomic_store_i64(guard, 0)


@_function
def release_threads(guard: int) -> None:
    """Give the library its threads back when nobody else holds them."""
    if guard != 0:
        _lock(guard)
        holders = load_i64(guard, 1) - 1
        store_i64(guard, 1, holders)
        if holders == 0:
            call_routine(load_i64(guard, 4), (load_i64(guard, 2),))
        atomic_store_i64(guard, 0)
