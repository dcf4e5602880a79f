"""Index arithmetic of generated loops: shares of chunks, and division of numbers known not to be negative.

Numba's own `//` and `%` check for zero and correct signs in a dozen instructions.
"""

from __future__ import annotations

from typing import Any

from numba import types
from numba.extending import intrinsic

__all__ = ["quotient", "remainder", "share"]


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
