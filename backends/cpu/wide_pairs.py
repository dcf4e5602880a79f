"""Wide values of neighbours: 32 elements in memory order, taken apart and put together again; the larger of two.

`w_even_<kind>(a, b)`, `w_odd_<kind>(a, b)`: of the 32 elements of a and b, those with even or odd numbers.
`w_evens_<kind>(a, b)`, `w_odds_<kind>(a, b)`, `w_sorted_<kind>(x)`: the same in the order that the CPU makes soonest;
    an x that was computed from such values in memory order.
`w_low_<kind>(x, y)`, `w_high_<kind>(x, y)`: the 32 elements x0 y0 x1 y1 ..., the first or the last sixteen.
`w_from1_<kind>(a, b)`, `w_from2_<kind>(a, b)`: of the 32 elements of a and b, sixteen from the first or second on.
`w_made_<kind>(x)`: x is made before any load that stands behind: LLVM gathers loads, out of registers.
`w_larger_<kind>(a, b)`: the larger of each pair of floats, NaN where one is NaN.
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba import types

from .target import target
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


def _quick_order(bits: int) -> list[int]:
    """The even numbers below 32 as instructions leave them that take elements of two registers apart."""
    if target().vector_bits != 256:
        return _ORDERS["even"]
    # In halves of a register: those of the first one's half, then of the second's.
    count, half = 256 // bits, 128 // bits
    return [
        first + part + register + k
        for first in range(0, 2 * LANES, 2 * count) for part in (0, half) for register in (0, count)
        for k in range(0, half, 2)
    ]  # fmt: skip


def _make_quick(kind: str, first: int) -> Any:
    def typer(typingctx: Any, a: Any, b: Any) -> Any:
        def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            order = [first + k for k in _quick_order(KINDS[kind].bits)]
            return builder.shuffle_vector(*args, ir.Constant(ir.VectorType(ir.IntType(32), LANES), order))

        return WIDE[kind](WIDE[kind], WIDE[kind]), codegen

    return typer


def _sorted(kind: str) -> Any:
    def typer(typingctx: Any, x: Any) -> Any:
        def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            order = [_quick_order(KINDS[kind].bits).index(2 * lane) for lane in range(LANES)]
            order = ir.Constant(ir.VectorType(ir.IntType(32), LANES), order)
            return builder.shuffle_vector(args[0], args[0], order)

        return WIDE[kind](WIDE[kind]), codegen

    return typer


def _larger(kind: str) -> Any:
    def typer(typingctx: Any, a: Any, b: Any) -> Any:
        def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            # A CPU's maximum is its second operand where one is NaN: bits of both orders have what is NaN in either.
            x, y = args
            integers = ir.VectorType(ir.IntType(KINDS[kind].bits), LANES)
            orders = [builder.select(builder.fcmp_ordered(">", p, q), p, q) for p, q in ((x, y), (y, x))]
            both = builder.or_(*(builder.bitcast(v, integers) for v in orders))
            return builder.bitcast(both, x.type)

        return WIDE[kind](WIDE[kind], WIDE[kind]), codegen

    return typer


def _made(kind: str) -> Any:
    def typer(typingctx: Any, x: Any) -> Any:
        def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            # Empty instructions that read a register each and could change any memory.
            lanes = min(LANES, target().vector_bits // KINDS[kind].bits)
            part = ir.VectorType(KINDS[kind].llvm, lanes)
            effect = ir.FunctionType(ir.VoidType(), [part])
            nothing = ir.InlineAsm(effect, "", f"{target().register_class},~{{memory}}", side_effect=True)
            for first in range(0, LANES, lanes):
                order = ir.Constant(ir.VectorType(ir.IntType(32), lanes), list(range(first, first + lanes)))
                builder.call(nothing, [builder.shuffle_vector(args[0], args[0], order)])
            return context.get_dummy_value()

        return types.void(WIDE[kind]), codegen

    return typer


for _kind in ("f32", "f64"):
    export(f"w_evens_{_kind}", _make_quick(_kind, 0), globals(), __all__)
    export(f"w_odds_{_kind}", _make_quick(_kind, 1), globals(), __all__)
    export(f"w_sorted_{_kind}", _sorted(_kind), globals(), __all__)
    export(f"w_larger_{_kind}", _larger(_kind), globals(), __all__)
    export(f"w_made_{_kind}", _made(_kind), globals(), __all__)
