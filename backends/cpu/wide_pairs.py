"""Wide values of neighbours: 32 elements in memory order, taken apart and put together again.

`w_even_<kind>(a, b)`, `w_odd_<kind>(a, b)`: of the 32 elements of a and b, those with even or odd numbers.
`w_low_<kind>(x, y)`, `w_high_<kind>(x, y)`: the 32 elements x0 y0 x1 y1 ..., the first or the last sixteen.
`w_from1_<kind>(a, b)`, `w_from2_<kind>(a, b)`: of the 32 elements of a and b, sixteen from the first or second on.
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir

from .vecmath_value import KINDS
from .wide import LANES, WIDE, export

__all__: list[str] = []

_PAIRS = [lane // 2 + lane % 2 * LANES for lane in range(2 * LANES)]
_ORDERS = {
    "even": [2 * lane for lane in range(LANES)],
    "odd": [2 * lane + 1 for lane in range(LANES)],
    "from1": list(range(1, LANES + 1)),
    "from2": list(range(2, LANES + 2)),
    "low": _PAIRS[:LANES],
    "high": _PAIRS[LANES:],
}


def _make(order: list[int], kind: str) -> Any:
    def typer(typingctx: Any, a: Any, b: Any) -> Any:
        def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            return builder.shuffle_vector(*args, ir.Constant(ir.VectorType(ir.IntType(32), LANES), order))

        return WIDE[kind](WIDE[kind], WIDE[kind]), codegen

    return typer


for _name, _order in _ORDERS.items():
    for _kind in KINDS:
        export(f"w_{_name}_{_kind}", _make(_order, _kind), globals(), __all__)
