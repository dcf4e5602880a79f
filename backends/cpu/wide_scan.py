"""Moves of lanes inside a wide value, for running results.

`w_shift_<kind>(w, k, x)`: every lane moves up by k (a literal: 1, 2, 4 or 8); x fills the lanes below.
`w_flip_<kind>(w)`: the lanes in reverse order.
`w_last_<kind>(w)`: the highest lane.
`w_any(mask)`: whether the mask holds in any lane.
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from .vecmath_value import KINDS, Kind
from .wide import LANES, MASK, WIDE, spread

_I32 = ir.IntType(32)

__all__: list[str] = []


def _pick(builder: Any, a: Any, b: Any, order: list[int]) -> Any:
    return builder.shuffle_vector(a, b, ir.Constant(ir.VectorType(_I32, LANES), order))


def _make(kind: Kind) -> None:
    wide = WIDE[kind.name]

    def shift(typingctx: Any, w: Any, k: Any, x: Any) -> Any:
        if not isinstance(k, types.IntegerLiteral):
            return None
        by = k.literal_value

        def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            order = [LANES + lane if lane < by else lane - by for lane in range(LANES)]
            return _pick(builder, args[0], spread(builder, args[2]), order)

        return wide(wide, k, kind.numba), codegen

    def flip(typingctx: Any, w: Any) -> Any:
        def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            return _pick(builder, args[0], args[0], list(reversed(range(LANES))))

        return wide(wide), codegen

    def last(typingctx: Any, w: Any) -> Any:
        def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            return builder.extract_element(args[0], _I32(LANES - 1))

        return kind.numba(wide), codegen

    for function in (shift, flip, last):
        name = f"w_{function.__name__}_{kind.name}"
        function.__name__ = function.__qualname__ = name
        globals()[name] = (intrinsic(prefer_literal=True) if "shift" in name else intrinsic)(function)
        __all__.append(name)


for _kind in KINDS.values():
    _make(_kind)


@intrinsic
def w_any(typingctx: Any, mask: Any) -> Any:
    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        bits = builder.bitcast(args[0], ir.IntType(LANES))
        return builder.icmp_unsigned("!=", bits, bits.type(0))

    return types.boolean(MASK), codegen


__all__.append("w_any")
