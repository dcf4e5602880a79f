"""Winograd's F(4 x 4, 3 x 3): the transforms as intrinsics of vectors of tiles (sources) and of filters.

A tile is 4 x 4 results of a 3 x 3 convolution, made from 6 x 6 sources by 36 products instead of 144 (Lavin and
Gray, 2015; points 0, 1, -1, 2, -2 and infinity). `X` is `f32` or `f64`; `lanes` is a literal. Addresses and steps
are in bytes. A position is one of the 36; `step` is the distance from position to position.

`winograd_filter_X(dst, step, src, y_step, x_step, lane_step, count, lanes)`
    The positions of `lanes` filters, `lane_step` apart, of which those from `count` on are zeros and not read.
`winograd_lines_X(near, far, line_step, src, src_step, first, last, low, high, skip, lanes)`
    The first half of the source transform, down the columns: six lines of sources to six lines at `near`; lines
    outside [first, last) and columns outside [low, high) are zeros. The columns from `skip` on also go to `far`.
`winograd_columns_X(dst, step, near, far, lanes)`
    The second half, along a line, for `lanes` tiles: of each, four columns from `near` and two from `far`.
`winograd_result_X(dst, line_step, column_step, src, step, lanes)`
    The 4 x 4 results of a tile, vectors of `lanes` filters each.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from llvmlite import ir

from .target import has_masked_memory
from .vectors import FLOATS, I1, I32, I64, Vectors, on_vectors

_FILTER = (
    (1 / 4, 0, 0), (-1 / 6, -1 / 6, -1 / 6), (-1 / 6, 1 / 6, -1 / 6), (1 / 24, 1 / 12, 1 / 6),
    (1 / 24, -1 / 12, 1 / 6), (0, 0, 1),
)  # fmt: skip


def _times(v: Vectors, factor: float, x: Any, y: Any) -> Any:
    """factor * x + y."""
    return v.multiply_add(v.type([v.element(factor)] * v.lanes), x, y)


def _of_filter(v: Vectors, x: Sequence[Any]) -> list[Any]:
    """_FILTER @ x. A row's terms are added in order."""
    b, out = v.builder, []
    for row in _FILTER:
        total = None
        for c, value in zip(row, x):
            if c == 1:
                total = value
            elif c:
                factor = v.type([v.element(c)] * v.lanes)
                total = b.fmul(factor, value) if total is None else v.multiply_add(factor, value, total)
        out.append(total)
    return out


def _of_source(v: Vectors, x: Sequence[Any]) -> list[Any]:
    """[4 0 -5 0 1 0], [0 -4 -4 1 1 0], [0 4 -4 -1 1 0], [0 -2 -1 2 1 0], [0 2 -1 -2 1 0], [0 4 0 -5 0 1] @ x."""
    b = v.builder
    even, odd = _times(v, -4, x[2], x[4]), _times(v, -4, x[1], x[3])
    near, far = b.fsub(x[4], x[2]), b.fsub(x[3], x[1])
    return [
        _times(v, 4, x[0], _times(v, -5, x[2], x[4])), b.fadd(even, odd), b.fsub(even, odd),
        _times(v, 2, far, near), _times(v, -2, far, near), _times(v, 4, x[1], _times(v, -5, x[3], x[5])),
    ]  # fmt: skip


def _of_result(v: Vectors, x: Sequence[Any]) -> list[Any]:
    """[1 1 1 1 1 0], [0 1 -1 2 -2 0], [0 1 1 4 4 0], [0 1 -1 8 -8 1] @ x."""
    b = v.builder
    sums, differences = ([f(x[k], x[k + 1]) for k in (1, 3)] for f in (b.fadd, b.fsub))
    return [
        b.fadd(x[0], b.fadd(*sums)), _times(v, 2, differences[1], differences[0]), _times(v, 4, sums[1], sums[0]),
        b.fadd(_times(v, 8, differences[1], differences[0]), x[5]),
    ]  # fmt: skip


def _shuffle(v: Vectors, x: Any, y: Any, places: Sequence[int]) -> Any:
    return v.builder.shuffle_vector(x, y, ir.Constant(ir.VectorType(I32, len(places)), list(places)))


def _at(v: Vectors, start: Any, step: Any, k: int) -> Any:
    b = v.builder
    return b.add(start, b.mul(step, I64(k)))


def _emit_filter(v: Vectors, args: Any) -> None:
    b = v.builder
    dst, step, src, y_step, x_step, lane_step, count = args
    mask = v.below(count)
    w = [
        [v.gather(b.add(_at(v, src, y_step, r), b.mul(x_step, I64(s))), lane_step, mask) for s in range(3)]
        for r in range(3)
    ]
    half = [_of_filter(v, [w[r][s] for r in range(3)]) for s in range(3)]  # by column, 6 lines each
    for i in range(6):
        for j, value in enumerate(_of_filter(v, [half[s][i] for s in range(3)])):
            v.store(value, _at(v, dst, step, 6 * i + j))


def _emit_lines(v: Vectors, args: Any) -> None:
    b = v.builder
    near, far, line_step, src, src_step, first, last, low, high, skip = args
    inside, nothing = v.between(low, high), v.mask_type([I1(0)] * v.lanes)
    written = v.between(skip, I64(v.lanes))
    lines = []
    for i in range(6):
        real = b.and_(b.icmp_signed(">=", I64(i), first), b.icmp_signed("<", I64(i), last))
        lines.append(v.masked_load(_at(v, src, src_step, i), b.select(real, inside, nothing)))
    lines = _of_source(v, lines)
    for i, value in enumerate(lines):
        v.store(value, _at(v, near, line_step, i))
    if has_masked_memory():
        for i, value in enumerate(lines):
            v.masked_store(value, _at(v, far, line_step, i), written)
        return
    # Most vectors go whole.
    with b.if_else(b.icmp_signed("<=", skip, I64(0))) as (whole, part):
        with whole:
            for i, value in enumerate(lines):
                v.store(value, _at(v, far, line_step, i))
        with part:
            for i, value in enumerate(lines):
                v.masked_store(value, _at(v, far, line_step, i), written)


def _emit_columns(v: Vectors, args: Any) -> None:
    b = v.builder
    dst, step, near, far = args
    half = v.lanes // 2
    x = []
    for start, columns in ((near, 4), (far, 2)):
        parts = [v.load(b.add(start, I64(k * v.lanes * v.size))) for k in range(4)]
        for j in range(columns):
            places = [4 * t + j for t in range(half)]
            low, high = (_shuffle(v, parts[k], parts[k + 1], places) for k in (0, 2))
            x.append(_shuffle(v, low, high, range(v.lanes)))
    for j, value in enumerate(_of_source(v, x)):
        v.store(value, _at(v, dst, step, j))


def _emit_result(v: Vectors, args: Any) -> None:
    dst, line_step, column_step, src, step = args
    columns = [_of_result(v, [v.load(_at(v, src, step, 6 * i + j)) for i in range(6)]) for j in range(6)]
    for a in range(4):
        to = _at(v, dst, line_step, a)
        for k, value in enumerate(_of_result(v, [columns[j][a] for j in range(6)])):
            v.store(value, _at(v, to, column_step, k))


__all__: list[str] = []
_TABLE = (
    ("winograd_filter", _emit_filter, 7), ("winograd_lines", _emit_lines, 10), ("winograd_columns", _emit_columns, 4),
    ("winograd_result", _emit_result, 5),
)  # fmt: skip
for _char in FLOATS:
    for _name, _emit, _n in _TABLE:
        globals()[f"{_name}_{_char}"] = on_vectors(_name, _char, _n, _emit)
        __all__.append(f"{_name}_{_char}")
