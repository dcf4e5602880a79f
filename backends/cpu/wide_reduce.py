"""Reductions over the lanes of wide values: accumulators that take turns, and all lanes to one number.

`w_turns_<kind>(x)`: four accumulators of sixteen lanes, all x.
`w_turns_<op>_<kind>(turns, w, mask)`: the first accumulator takes in the lanes of w under the mask, and
    becomes the last; so that one operation need not wait for the one before. Two or four values take as many turns.
`w_total_<op>_<kind>(turns)`: all 64 lanes combined by halves: accumulator 0 with 2, 1 with 3, those two,
    lane 0 with 8 and so on.
`w_joined_<op>_<kind>(turns)`: the first two of these steps: sixteen lanes.
`w_totals_<op>_<kind>(addr)`: the other steps for sixteen such values, which `w_write` has left behind each other, all
    at once: the lanes of the result are theirs in order.
`w_better_<op>_<kind>(w, best, mask)`: lanes of w that beat those of `best`: NaN beats all but NaN.
`w_first_<op>_<kind>(best, at)`: of all lanes the index `at` of the best one, the lowest among equals.
"""

from __future__ import annotations

import math
from typing import Any

from llvmlite import ir
from numba import types
from numba.core.datamodel import models
from numba.core.datamodel.registry import register_default

from . import lanes
from .lanes import on_lanes
from .vecmath import VECMATH
from .vecmath_value import KINDS, Kind
from .wide import LANES, MASK, WIDE, Wide, beside, export, read_from, spread

TURNS = 4
_SIGN = {"maximum": ">", "minimum": "<"}
_I32 = ir.IntType(32)

__all__: list[str] = []


class Turns(types.Type):
    """Numba's type of four accumulators."""

    def __init__(self, kind: Kind):
        self.kind = kind
        super().__init__(f"turns_{kind.name}")


@register_default(Turns)
class _TurnsModel(models.PrimitiveModel):
    def __init__(self, dmm: Any, fe_type: Turns):
        wide = ir.VectorType(fe_type.kind.llvm, LANES)
        super().__init__(dmm, fe_type, ir.ArrayType(wide, TURNS))


def _make_turns(kind: Kind) -> None:
    def turns(typingctx: Any, x: Any) -> Any:
        def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            wide = spread(builder, args[0])
            return _together(builder, [wide] * TURNS)

        return Turns(kind)(kind.numba), codegen

    export(f"w_turns_{kind.name}", turns, globals(), __all__)


def _together(builder: Any, parts: list[Any]) -> Any:
    value = ir.Constant(ir.ArrayType(parts[0].type, TURNS), ir.Undefined)
    for k, part in enumerate(parts):
        value = builder.insert_value(value, part, k)
    return value


def _make_combination(op: str, kind: Kind) -> None:
    entry = VECMATH[f"v_{op}_{kind.name}"]

    def combine(builder: Any, a: Any, b: Any, count: int = LANES) -> Any:
        return on_lanes(entry.code, builder, [a, b], count)

    def turn(typingctx: Any, turns: Any, w: Any, mask: Any) -> Any:
        def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            parts = [builder.extract_value(args[0], k) for k in range(TURNS)]
            values = lanes.spread(builder, args[1], mask.lanes)
            if mask is not MASK:  # each wide value takes a turn
                for pair in _pairs(builder, values):
                    if kind.is_float and op in _SIGN:
                        parts = [*parts[2:], *_extremes(builder, op, kind, parts[:2], pair)]
                        continue
                    for half in pair:
                        parts = [*parts[1:], combine(builder, parts[0], half)]
                return _together(builder, parts)
            first, *others = parts
            return _together(
                builder, [*others, builder.select(args[2], combine(builder, first, values), first)]
            )

        return Turns(kind)(Turns(kind), beside(w)[kind.name], mask), codegen

    def join(builder: Any, turns: Any) -> Any:
        a, b, c, d = (builder.extract_value(turns, k) for k in range(TURNS))
        return combine(builder, combine(builder, a, c), combine(builder, b, d))

    def joined(typingctx: Any, turns: Any) -> Any:
        def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            return join(builder, args[0])

        return WIDE[kind.name](Turns(kind)), codegen

    def totals(typingctx: Any, addr: Any) -> Any:
        size = 1 if kind.name == "b1" else kind.bits // 8

        def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            at = [builder.add(args[0], ir.IntType(64)(k * LANES * size)) for k in range(LANES)]
            values, left = [read_from(builder, kind.name, place) for place in at], LANES
            while left > 1:
                left //= 2
                # Two values are pieces of 2 * left lanes: their lower halves beside each other, and their upper ones.
                low = [k for k in range(2 * LANES) if k & left == 0]
                orders = [
                    ir.Constant(ir.VectorType(_I32, LANES), [k + half for k in low]) for half in (0, left)
                ]
                values = [
                    combine(builder, *(builder.shuffle_vector(*pair, order) for order in orders))
                    for pair in zip(values[::2], values[1::2])
                ]
            return values[0]

        return WIDE[kind.name](types.int64), codegen

    def total(typingctx: Any, turns: Any) -> Any:
        def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            value, left = join(builder, args[0]), LANES
            while left > 1:
                left //= 2
                value = combine(builder, *_halves(builder, value, left), left)
            return value

        return kind.numba(Turns(kind)), codegen

    export(f"w_turns_{op}_{kind.name}", turn, globals(), __all__)
    export(f"w_total_{op}_{kind.name}", total, globals(), __all__)
    export(f"w_joined_{op}_{kind.name}", joined, globals(), __all__)
    export(f"w_totals_{op}_{kind.name}", totals, globals(), __all__)


def _pairs(builder: Any, value: Any) -> list[list[Any]]:
    """Wide values side by side, two at a time."""
    half = value.type.count // 2
    halves = _halves(builder, value, half)
    return [halves] if half == LANES else [pair for part in halves for pair in _pairs(builder, part)]


def _extremes(b: Any, op: str, kind: Kind, parts: list[Any], halves: list[Any]) -> list[Any]:
    """Of two accumulators and a half each the larger (smaller); a NaN of either half goes to the first one."""
    first, second = (b.select(b.fcmp_ordered(_SIGN[op], h, p), h, p) for p, h in zip(parts, halves))
    nan = lanes.splat(kind.llvm(math.nan), LANES)
    return [b.select(b.fcmp_unordered("uno", *halves), nan, first), second]


def _halves(builder: Any, value: Any, lanes: int) -> list[Any]:
    """The lower and the upper `lanes` lanes."""
    if lanes == 1:
        return [builder.extract_element(value, _I32(k)) for k in (0, 1)]
    undefined = ir.Constant(value.type, ir.Undefined)
    picks = (ir.Constant(ir.VectorType(_I32, lanes), list(range(s, s + lanes))) for s in (0, lanes))
    return [builder.shuffle_vector(value, undefined, pick) for pick in picks]


def _beats(b: Any, op: str, kind: Kind, new: Any, old: Any) -> Any:
    sign = _SIGN[op]
    if not kind.is_float:
        return (b.icmp_signed if kind.is_signed else b.icmp_unsigned)(sign, new, old)
    nan = b.and_(b.fcmp_unordered("uno", new, new), b.fcmp_ordered("ord", old, old))
    return b.or_(b.fcmp_ordered(sign, new, old), nan)


def _make_best(op: str, kind: Kind) -> None:
    def better(typingctx: Any, w: Any, best: Any, mask: Any) -> Any:
        def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            return builder.and_(args[2], _beats(builder, op, kind, spread(builder, args[0]), args[1]))

        wide = WIDE[kind.name]
        return MASK(wide if isinstance(w, Wide) else kind.numba, wide, MASK), codegen

    def first(typingctx: Any, best: Any, at: Any) -> Any:
        def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            value, index, lanes = *args, LANES
            while lanes > 1:
                lanes //= 2
                (v0, v1), (i0, i1) = (_halves(builder, x, lanes) for x in (value, index))
                worse, wins = (_beats(builder, op, kind, *pair) for pair in ((v0, v1), (v1, v0)))
                earlier = builder.icmp_signed("<", i1, i0)
                take = builder.or_(wins, builder.and_(builder.not_(worse), earlier))
                value, index = builder.select(take, v1, v0), builder.select(take, i1, i0)
            return index

        return types.int64(WIDE[kind.name], WIDE["i64"]), codegen

    export(f"w_better_{op}_{kind.name}", better, globals(), __all__)
    export(f"w_first_{op}_{kind.name}", first, globals(), __all__)


for _kind in KINDS.values():
    _make_turns(_kind)
    for _op in ("add", "mul", "maximum", "minimum"):
        _make_combination(_op, _kind)
    for _op in ("maximum", "minimum"):
        _make_best(_op, _kind)
