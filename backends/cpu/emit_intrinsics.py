"""Index arithmetic and working memory of generated loops.

Numba's own `//` and `%` check for zero and correct signs in a dozen instructions; sizes are never negative.
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba import types
from numba.extending import intrinsic

__all__ = ["quotient", "remainder", "share", "stack"]


@intrinsic
def share(typingctx: Any, count: Any, chunk: Any, nchunks: Any) -> Any:
    """Where chunk number `chunk` of `nchunks` starts among `count` items."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.udiv(builder.mul(args[0], args[1]), args[2])

    return types.int64(types.int64, types.int64, types.int64), codegen


@intrinsic
def quotient(typingctx: Any, a: Any, b: Any) -> Any:
    """a // b for a >= 0, b > 0."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.udiv(*args)

    return types.int64(types.int64, types.int64), codegen


@intrinsic
def remainder(typingctx: Any, a: Any, b: Any) -> Any:
    """a % b for a >= 0, b > 0."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.urem(*args)

    return types.int64(types.int64, types.int64), codegen


@intrinsic(prefer_literal=True)
def stack(typingctx: Any, nbytes: Any) -> Any:
    """The address of `nbytes` (a literal) of the kernel's own stack, aligned to 64; the same at each use."""
    if not isinstance(nbytes, types.IntegerLiteral):
        return None
    size = nbytes.literal_value

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        with builder.goto_entry_block():
            area = builder.alloca(ir.ArrayType(ir.IntType(8), size))
            area.align = 64
        return builder.ptrtoint(area, ir.IntType(64))

    return types.int64(nbytes), codegen
