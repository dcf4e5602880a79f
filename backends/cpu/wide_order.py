"""Wide values put in order: what sorting networks are made of.

`w_order_<kind>(w, k)`: of the lanes l and l ^ k (k: a literal from 1 to 15) the smaller element to the lower lane.
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from .vecmath import VECMATH
from .wide import LANES, WIDE

_I32 = ir.IntType(32)

__all__: list[str] = []


def _pick(builder: Any, a: Any, b: Any, order: list[int]) -> Any:
    return builder.shuffle_vector(a, b, ir.Constant(ir.VectorType(_I32, LANES), order))


def _make(kind: str) -> None:
    low, high = (VECMATH[f"v_{op}_{kind}"] for op in ("minimum", "maximum"))

    def order(typingctx: Any, w: Any, k: Any) -> Any:
        if not isinstance(k, types.IntegerLiteral):
            return None
        by = k.literal_value
        upper = 1 << by.bit_length() - 1

        def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            w = args[0]
            other = _pick(builder, w, w, [lane ^ by for lane in range(LANES)])
            first, last = (choice.emit(builder, [w, other], LANES) for choice in (low, high))
            return _pick(
                builder, first, last, [lane + (LANES if lane & upper else 0) for lane in range(LANES)]
            )

        return WIDE[kind](WIDE[kind], k), codegen

    order.__name__ = order.__qualname__ = f"w_order_{kind}"
    globals()[order.__name__] = intrinsic(prefer_literal=True)(order)
    __all__.append(order.__name__)


for _kind in ("u32", "u64"):
    _make(_kind)
