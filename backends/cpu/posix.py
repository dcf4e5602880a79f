"""Numba intrinsics that call the C library's threads and memory, and CPython, from the native runner.

Each takes and gives int64 (an address or a number); 32-bit results are extended with their sign.
"""

from __future__ import annotations

import llvmlite.binding as llvm
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

# name: number of arguments and the width of the result in bits (0: none).
_FUNCTIONS = {
    "pthread_mutex_init": (2, 32),
    "pthread_mutex_lock": (1, 32),
    "pthread_mutex_unlock": (1, 32),
    "pthread_cond_init": (2, 32),
    "pthread_cond_wait": (2, 32),
    "pthread_cond_signal": (1, 32),
    "pthread_cond_broadcast": (1, 32),
    "pthread_create": (4, 32),
    "pthread_detach": (1, 32),
    "pthread_sigmask": (3, 32),
    "pthread_self": (0, 64),
    "clock_gettime": (2, 32),
    "sched_getcpu": (0, 32),
    "sched_getaffinity": (3, 32),
    "sched_setaffinity": (3, 32),
    "malloc": (1, 64),
    "free": (1, 0),
    "memcpy": (3, 64),
    "PyList_Size": (1, 64),
    "PyList_GetItem": (2, 64),
    "PyTuple_GetItem": (2, 64),
    "PySequence_List": (1, 64),
    "PyLong_AsLongLong": (1, 64),
    "PyErr_Occurred": (0, 64),
    "PyErr_Clear": (0, 0),
    "PyErr_SetString": (2, 0),
    "PyErr_CheckSignals": (0, 32),
    "PyGILState_Ensure": (0, 32),
    "PyGILState_Release": (1, 0),
    "PyEval_SaveThread": (0, 64),
    "PyEval_RestoreThread": (1, 0),
    "Py_IncRef": (1, 0),
    "Py_DecRef": (1, 0),
}

# Linux alone has these; elsewhere a call does nothing and gives -1.
_OPTIONAL = {"sched_getcpu", "sched_getaffinity", "sched_setaffinity"}

_I64 = ir.IntType(64)


def _c_function(name: str, arity: int, bits: int):
    result = ir.IntType(bits) if bits else ir.VoidType()

    def codegen(context, builder, signature, args):
        if name in _OPTIONAL and llvm.address_of_symbol(name) is None:
            return _I64(-1)
        declared = cgutils.get_or_insert_function(
            builder.module, ir.FunctionType(result, [_I64] * arity), name
        )
        value = builder.call(declared, args)
        if not bits:
            return context.get_dummy_value()
        return value if bits == 64 else builder.sext(value, _I64)

    signature = (types.int64 if bits else types.void)(*[types.int64] * arity)
    # Numba reads an intrinsic's arity from the Python signature.
    typers = (
        lambda typingctx: (signature, codegen),
        lambda typingctx, a: (signature, codegen),
        lambda typingctx, a, b: (signature, codegen),
        lambda typingctx, a, b, c: (signature, codegen),
        lambda typingctx, a, b, c, d: (signature, codegen),
    )
    typer = typers[arity]
    typer.__name__ = name
    return intrinsic(typer)


for _name, (_arity, _bits) in _FUNCTIONS.items():
    globals()[_name] = _c_function(_name, _arity, _bits)


@intrinsic
def state_cell(typingctx):
    """The address of the one int64 that all functions of the object file share, zero at first."""

    def codegen(context, builder, signature, args):
        name = "duograd_state_cell"
        cell = builder.module.globals.get(name)
        if cell is None:
            cell = ir.GlobalVariable(builder.module, _I64, name)
            cell.linkage = "common"
            cell.initializer = _I64(0)
        return builder.ptrtoint(cell, _I64)

    return types.int64(), codegen


__all__ = [*_FUNCTIONS, "state_cell"]
