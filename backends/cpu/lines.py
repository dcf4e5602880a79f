"""Whole lines of an image times single numbers: intrinsics of convolutions that are no matrix product.

`X` is `f32` or `f64`; `rows`, `vectors` and `lanes` are literals. Addresses and steps are in bytes.

`sum_taps_X(dst, dst_step, src, src_step, lines, columns, table, taps, accumulate, rows, vectors, lanes)`
    For each line, `rows` of them side by side: dst[e] (+)= sum over taps of number * src[offset + e], e < columns
    <= vectors * lanes. The table holds for every tap a byte offset (int64) and the number, 16 bytes in all. One
    chain of fused multiply-adds per element. Src is read in whole vectors.
`sum_windows_X(dst, dst_step, src, line_step, lines, columns, offsets, numbers, y_step, x_step, taps_x, accumulate,
               taps_y, unrolled, step, rows, vectors, lanes)`
    The same for windows of neighbouring lines, each of which is loaded once for all results that it reaches: result
    line i reads `taps_y` lines of src from i * step on, at the byte offset of each tap of x (16 bytes apart). The
    chain goes over the taps of x, and the lines of each. Numbers are y_step and x_step bytes apart. unrolled: taps_x,
    or 0. Results are summed up by whole `rows`: lines that those past the last one need must be there.
`dot_lines_X(sums, a, a_step, b, b_step, lines, columns, vectors, lanes)`
    sums[l] += a[line, e] * b[line, e] for e = l, l + lanes, ...: one vector of sums over all lines.
`dot_windows_X(sums, sum_step, a, line_step, b, b_step, lines, columns, offsets, taps_x, taps_y, unrolled, step, rows,
               vectors, lanes)`
    The same for every tap of windows of neighbouring lines: line i of b meets `taps_y` lines of a from i * step on,
    at the byte offset of each tap of x (16 bytes apart). Vectors of sums follow each other by tap of x, sum_step
    bytes apart by line of taps. unrolled: taps_x, or 0. rows: lines of b that share what they read of a.
`split_pairs_X(even, odd, dst_step, src, src_step, count, low, high, lanes)`
    count lines of 2 * lanes elements, taken apart by even and odd places; zeros outside [low, high).
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir

from .vectors import FLOATS, I32, I64, Loop, Vectors, on_vectors


def _emit_sum(v: Vectors, args: Any, rows: int, vectors: int) -> None:
    b = v.builder
    dst, dst_step, src, src_step, lines, columns, table, taps, accumulate = args
    width = v.lanes * v.size
    outer = Loop(b, b.sdiv(b.add(lines, I64(rows - 1)), I64(rows)), [dst, src])
    to, at = outer.carried
    left = b.sub(lines, b.mul(outer.index, I64(rows)))
    inside = [b.icmp_signed(">", left, I64(i)) for i in range(rows)]
    # A line past the last one is summed like the first and not stored.
    starts = [b.add(at, b.select(ok, b.mul(src_step, I64(i)), I64(0))) for i, ok in enumerate(inside)]
    loop = Loop(b, taps, [table, *[v.zero] * (rows * vectors)])
    entry, sums = loop.carried[0], loop.carried[1:]
    offset = b.load(v.pointer(entry), align=8, typ=I64)
    number = v.splat(v.load_element(b.add(entry, I64(8))))
    updated = []
    for i, start in enumerate(starts):
        place = b.add(start, offset)
        for j in range(vectors):
            x = v.load(b.add(place, I64(j * width)))
            updated.append(v.multiply_add(number, x, sums[i * vectors + j]))
    sums = loop.close([b.add(entry, I64(16)), *updated])[1:]
    _store_lines(v, to, dst_step, left, columns, accumulate, sums, rows, vectors)
    outer.close([b.add(to, b.mul(dst_step, I64(rows))), b.add(at, b.mul(src_step, I64(rows)))])


def _emit_windows(
    v: Vectors, args: Any, taps_y: int, unrolled: int, step: int, rows: int, vectors: int
) -> None:
    b = v.builder
    dst, dst_step, src, line_step, lines, columns, offsets, numbers, y_step, x_step, taps_x, accumulate = args

    def factors(number: Any) -> list[Any]:
        return [v.splat(v.load_element(b.add(number, b.mul(y_step, I64(k))))) for k in range(taps_y)]

    def add_products(at: Any, offset: Any, factors: list[Any], sums: list[Any]) -> list[Any]:
        """The sums with a column of the window."""
        sums, place = list(sums), b.add(at, offset)
        for line in range((rows - 1) * step + taps_y):
            for j in range(vectors):
                x = v.load(b.add(place, I64(j * v.lanes * v.size)))
                for k, factor in enumerate(factors):
                    i, rest = divmod(line - k, step)
                    if rest == 0 and 0 <= i < rows:
                        sums[i * vectors + j] = v.multiply_add(factor, x, sums[i * vectors + j])
            place = b.add(place, line_step)
        return sums

    tap = lambda entry: b.load(v.pointer(entry), align=8, typ=I64)
    columns_of_taps = [
        (tap(b.add(offsets, I64(16 * s))), factors(b.add(numbers, b.mul(x_step, I64(s)))))
        for s in range(unrolled)
    ]
    outer = Loop(b, b.sdiv(b.add(lines, I64(rows - 1)), I64(rows)), [dst, src])
    to, at = outer.carried
    sums = [v.zero] * (rows * vectors)
    for offset, numbers_ in columns_of_taps:
        sums = add_products(at, offset, numbers_, sums)
    if not unrolled:
        loop = Loop(b, taps_x, [offsets, numbers, *sums])
        entry, number, *sums = loop.carried
        sums = add_products(at, tap(entry), factors(number), sums)
        sums = loop.close([b.add(entry, I64(16)), b.add(number, x_step), *sums])[2:]
    left = b.sub(lines, b.mul(outer.index, I64(rows)))
    _store_lines(v, to, dst_step, left, columns, accumulate, sums, rows, vectors)
    outer.close([b.add(to, b.mul(dst_step, I64(rows))), b.add(at, b.mul(line_step, I64(rows * step)))])


def _store_lines(
    v: Vectors, to: Any, to_step: Any, lines: Any, columns: Any, accumulate: Any, sums: Any, rows: int, vectors: int
) -> None:  # fmt: skip
    """Store or add the first `columns` of `rows` lines of sums, or of as many as there are."""
    b = v.builder
    masks = [v.below(columns, j * v.lanes) for j in range(vectors)]
    adding, storing, done = (b.append_basic_block(name) for name in ("add", "store", "stored"))
    # Without an addition nothing is read: the line before, whose store the mask ends here, would be waited for.
    b.cbranch(b.icmp_signed("!=", accumulate, I64(0)), adding, storing)
    for start in (adding, storing):
        b.position_at_end(start)
        for i in range(rows):
            line = b.append_basic_block("line")
            b.cbranch(b.icmp_signed(">", lines, I64(i)), line, done)
            b.position_at_end(line)
            for j, mask in enumerate(masks):
                here = b.add(to, b.add(b.mul(to_step, I64(i)), I64(j * v.lanes * v.size)))
                total = sums[i * vectors + j]
                if start is adding:
                    total = b.fadd(total, v.masked_load(here, mask))
                v.masked_store(total, here, mask)
        b.branch(done)
    b.position_at_end(done)


def _emit_dot(v: Vectors, args: Any, vectors: int) -> None:
    b = v.builder
    sums, left, left_step, right, right_step, lines, columns = args
    width = v.lanes * v.size
    masks = [v.below(columns, j * v.lanes) for j in range(vectors)]
    loop = Loop(b, lines, [left, right, *[v.zero] * vectors])
    x, y = loop.carried[:2]
    updated = []
    for j, total in enumerate(loop.carried[2:]):
        a, c = (v.masked_load(b.add(at, I64(j * width)), masks[j]) for at in (x, y))
        updated.append(v.multiply_add(a, c, total))
    row = loop.close([b.add(x, left_step), b.add(y, right_step), *updated])[2:]
    while len(row) > 1:
        row = [b.fadd(p, q) for p, q in zip(row[::2], row[1::2])]
    v.store(b.fadd(v.load(sums), row[0]), sums)


def _emit_dot_windows(
    v: Vectors, args: Any, taps_y: int, unrolled: int, step: int, rows: int, vectors: int
) -> None:
    b = v.builder
    sums, sum_step, left, line_step, right, right_step, lines, columns, offsets, taps_x = args
    width = v.lanes * v.size
    masks = [v.below(columns, j * v.lanes) for j in range(vectors)]
    groups = b.sdiv(lines, I64(rows))
    passes = (rows, groups), (1, b.sub(lines, b.mul(groups, I64(rows))))
    tap = lambda entry: b.load(v.pointer(entry), align=8, typ=I64)

    def add_columns(starts: list[Any], to: Any) -> None:
        """Some columns of the window, for which sums stand in registers."""
        state = [left, right, *[v.zero] * (len(starts) * vectors * taps_y)]
        for n, count in passes:
            loop = Loop(b, count, state)
            x, y, *totals = loop.carried
            for j, mask in enumerate(masks):
                at = [b.add(y, b.add(b.mul(right_step, I64(i)), I64(j * width))) for i in range(n)]
                factors = [v.masked_load(a, mask) for a in at]
                for s, start in enumerate(starts):
                    place, first = b.add(b.add(x, start), I64(j * width)), (s * vectors + j) * taps_y
                    for line in range((n - 1) * step + taps_y):
                        values = v.load(place)
                        for k in range(taps_y):
                            i, rest = divmod(line - k, step)
                            if rest == 0 and 0 <= i < n:
                                total = totals[first + k]
                                # Beyond the columns anything may stand.
                                totals[first + k] = b.select(
                                    mask, v.multiply_add(values, factors[i], total), total
                                )
                        place = b.add(place, line_step)
            moved = b.add(x, b.mul(line_step, I64(n * step))), b.add(y, b.mul(right_step, I64(n)))
            state = loop.close([*moved, *totals])
        for s in range(len(starts)):
            for k in range(taps_y):
                row = [state[2 + (s * vectors + j) * taps_y + k] for j in range(vectors)]
                while len(row) > 1:
                    row = [b.fadd(p, q) for p, q in zip(row[::2], row[1::2])]
                here = b.add(b.add(to, I64(s * width)), b.mul(sum_step, I64(k)))
                v.store(b.fadd(v.load(here), row[0]), here)

    if unrolled:
        add_columns([tap(b.add(offsets, I64(16 * s))) for s in range(unrolled)], sums)
        return
    outer = Loop(b, taps_x, [offsets, sums])
    entry, to = outer.carried
    add_columns([tap(entry)], to)
    outer.close([b.add(entry, I64(16)), b.add(to, I64(width))])


def _emit_split(v: Vectors, args: Any) -> None:
    b = v.builder
    even, odd, dst_step, src, src_step, count, low, high = args
    lanes = I64(v.lanes)
    masks = v.between(low, high), v.between(b.sub(low, lanes), b.sub(high, lanes))
    kind = ir.VectorType(I32, v.lanes)
    loop = Loop(b, count, [even, odd, src])
    to, beside, at = loop.carried
    pair = [v.masked_load(b.add(at, I64(k * v.lanes * v.size)), mask) for k, mask in enumerate(masks)]
    for first, place in ((0, to), (1, beside)):
        v.store(b.shuffle_vector(*pair, ir.Constant(kind, list(range(first, 2 * v.lanes, 2)))), place)
    loop.close([b.add(to, dst_step), b.add(beside, dst_step), b.add(at, src_step)])


__all__: list[str] = []
_TABLE = (
    ("sum_taps", _emit_sum, 9, 3),
    ("sum_windows", _emit_windows, 12, 6),
    ("dot_lines", _emit_dot, 7, 2),
    ("dot_windows", _emit_dot_windows, 10, 6),
    ("split_pairs", _emit_split, 8, 1),
)
for _char in FLOATS:
    for _name, _emit, _n, _literals in _TABLE:
        globals()[f"{_name}_{_char}"] = on_vectors(_name, _char, _n, _emit, _literals)
        __all__.append(f"{_name}_{_char}")
