"""Moving data for the matrix kernels: copies under masks, window gathers, transposition, offset tables.

`X` is `f32` or `f64`; `lanes`, a literal in the kernel's source, is the number of elements in a vector
register. Addresses and steps are in bytes. `copy_lanes`, `copy_panel` and `transpose_lanes` also read 16-bit floats
(X: `f16`, `bf16`) and float32 that is rounded to them (`f32_f16`, `f32_bf16`; `gather_lanes` too) and write float32.

`copy_lanes_X(dst, dst_step, src, src_step, count, length, low, high, lanes)`
    count rows of `length` <= lanes elements; elements outside [low, high) become zero and are not read.
`copy_panel_X(dst, dst_step, src, src_step, count, length, vectors, lanes)`
    count rows of vectors * lanes elements, of which all from `length` on become zero and are not read.
`copy_windows_X(dst, dst_step, src, src_step, count, length, table, taps, lanes)`
    For each of count channels, `src_step` apart, and each tap: the next `length` <= lanes elements of dst
    from src. The table holds a byte offset and a mask for every tap; elements whose bit is 0 become zero.
`gather_windows_X(dst, dst_step, src, src_step, lane_step, count, length, table, taps, lanes)`
    The same from elements `lane_step` bytes apart.
`halve_windows_X(dst, dst_step, src, src_step, count, length, table, taps, lanes)`
    The same from every second element; the table's masks went through `spread_masks(table, taps)`, which puts
    their bit l at 2 l.
`line_windows_X(dst, dst_step, src, src_step, count, runs, run_table, table, taps, lanes)`
    What `copy_windows_X` does for `runs` of a panel, line by line: each run of three int64 in run_table is where it
    goes, where it comes from (byte offsets) and its length, and has a table of its own, one after the other. Whole
    vectors are stored, whatever the length: runs stand in the order of their columns, and up to lanes - 1 elements
    behind the last line become zero. For CPUs where a store under a mask takes as long as ten without.
`halve_line_windows_X(dst, dst_step, src, src_step, count, runs, run_table, table, taps, lanes)`
    The same for `halve_windows_X`.
`gather_lanes_X(dst, dst_step, src, src_step, lane_step, count, length, low, high, lanes)`
    The same from elements `lane_step` bytes apart.
`transpose_lanes_X(dst, dst_step, src, src_step, rows, cols, length, lanes)`
    dst[j, i] = src[i, j] for a block of up to lanes x lanes; dst[j] gets `length` elements, zero from `rows`
    on.
`pack_pixels_X(dst, src, row_table, k_table, count, rows, pitch, lanes)`
    dst[k, i] = src[row_table[i] + k_table[k]] for i < rows and k < count, lines of dst `pitch` elements apart: a left
    operand for `multiply_packed`. Rows and pitch are literals, 4 <= rows <= 8.
`fill_offsets(table, first, count, repeats, n1, n2, s0, s1, s2)`
    Byte offsets of the indices first, first + 1, ... with the digits i = (i0 * n1 + i1) * n2 + i2:
    i0 * s0 + i1 * s1 + i2 * s2. After `count` of them the last one is repeated.
`fetch_lines(at, count)`
    `count` lines of 64 bytes come into the second-level cache.
`fill_windows(table, taps_y, taps_x, y, x, tap_y, tap_x, h, w, step, y_step, x_step, length)`
    The table of copy_windows for `length` neighbouring results of an image of h x w: tap (i, j) of the first
    of them reads line y + i * tap_y, column x + j * tap_x, the next ones `step` columns on. y_step and
    x_step are bytes.
"""

from __future__ import annotations

import functools
import itertools
from typing import Any

from llvmlite import ir

from .halves import HALVES
from .target import has_masked_memory
from .vectors import FLOATS, I1, I32, I64, READ_AS, Loop, Vectors, integers, on_vectors, store_i64


def _emit_copy(v: Vectors, args: Any) -> None:
    b = v.builder
    dst, dst_step, src, src_step, count, length, low, high = args
    read, written = v.between(low, high), v.below(length)

    def copy_under_masks(whole: bool) -> None:
        loop = Loop(b, count, [dst, src])
        to, at = loop.carried
        value = v.masked_load(at, read)
        if whole:
            v.store(value, to)
        else:
            v.masked_store(value, to, written)
        loop.close([b.add(to, dst_step), b.add(at, src_step)])

    if has_masked_memory():
        copy_under_masks(False)
    else:
        with b.if_else(b.icmp_signed(">=", length, I64(v.lanes))) as (whole, part):
            with whole:
                copy_under_masks(True)
            with part:
                copy_under_masks(False)


def _emit_copy_panel(v: Vectors, args: Any, vectors: int) -> None:
    b = v.builder
    dst, dst_step, src, src_step, count, length = args
    masks = [v.below(length, k * v.lanes) for k in range(vectors)]
    loop = Loop(b, count, [dst, src])
    to, at = loop.carried
    for k, mask in enumerate(masks):
        there, here = (I64(k * v.lanes * size) for size in (v.size, v.read_size))
        v.store(v.masked_load(b.add(at, here), mask), b.add(to, there))
    loop.close([b.add(to, dst_step), b.add(at, src_step)])


def _emit_windows(v: Vectors, args: Any) -> None:
    b = v.builder
    dst, dst_step, src, src_step, *lane_step, count, length, table, taps = args
    written = v.below(length)
    channels = Loop(b, count, [dst, src])
    to, at = channels.carried
    loop = Loop(b, taps, [to, table])
    to, entry = loop.carried
    offset, mask = (b.load(v.pointer(b.add(entry, I64(8 * k))), align=8, typ=I64) for k in range(2))
    place = b.add(at, offset)
    if lane_step:
        value = v.gather(place, lane_step[0], v.bits(mask))
    else:
        value = v.masked_load(place, v.bits(mask))
    v.masked_store(value, to, written)
    to, _ = loop.close([b.add(to, dst_step), b.add(entry, I64(16))])
    channels.close([to, b.add(at, src_step)])


def _emit_halves(v: Vectors, args: Any) -> None:
    b = v.builder
    dst, dst_step, src, src_step, count, length, table, taps = args
    written = v.below(length)
    index = ir.Constant(ir.VectorType(I32, v.lanes), list(range(0, 2 * v.lanes, 2)))
    channels = Loop(b, count, [dst, src])
    to, at = channels.carried
    loop = Loop(b, taps, [to, table])
    to, entry = loop.carried
    offset, mask = (b.load(v.pointer(b.add(entry, I64(8 * k))), align=8, typ=I64) for k in range(2))
    place = b.add(at, offset)
    low = v.masked_load(place, v.bits(mask))
    high = v.masked_load(b.add(place, I64(v.lanes * v.size)), v.bits(b.lshr(mask, I64(v.lanes))))
    v.masked_store(b.shuffle_vector(low, high, index), to, written)
    to, _ = loop.close([b.add(to, dst_step), b.add(entry, I64(16))])
    channels.close([to, b.add(at, src_step)])


def _emit_line_windows(v: Vectors, args: Any, step: int = 1) -> None:
    b = v.builder
    dst, dst_step, src, src_step, count, runs, run_table, table, taps = args
    numbers = lambda place, n: [
        b.load(v.pointer(b.add(place, I64(8 * k))), align=8, typ=I64) for k in range(n)
    ]
    index = ir.Constant(ir.VectorType(I32, v.lanes), list(range(0, 2 * v.lanes, 2)))
    channels = Loop(b, count, [dst, src])
    to, at = channels.carried
    lines = Loop(b, taps, [to, table])
    to, tap = lines.carried
    each = Loop(b, runs, [run_table, tap])
    run, entry = each.carried
    (there, here), (offset, mask) = numbers(run, 2), numbers(entry, 2)
    place = b.add(b.add(at, here), offset)
    value = v.masked_load(place, v.bits(mask))
    if step == 2:
        high = v.masked_load(b.add(place, I64(v.lanes * v.size)), v.bits(b.lshr(mask, I64(v.lanes))))
        value = b.shuffle_vector(value, high, index)
    v.store(value, b.add(to, there))
    each.close([b.add(run, I64(24)), b.add(entry, b.mul(taps, I64(16)))])
    to, _ = lines.close([b.add(to, dst_step), b.add(tap, I64(16))])
    channels.close([to, b.add(at, src_step)])


def _emit_halve_line_windows(v: Vectors, args: Any) -> None:
    _emit_line_windows(v, args, 2)


def _emit_spread(b: ir.IRBuilder, args: Any) -> None:
    table, taps = args
    loop = Loop(b, taps, [b.add(table, I64(8))])
    place = loop.carried[0]
    mask = b.load(b.inttoptr(place, I64.as_pointer()), align=8, typ=I64)
    for shift, keep in ((8, 0x00FF00FF), (4, 0x0F0F0F0F), (2, 0x33333333), (1, 0x55555555)):
        mask = b.and_(b.or_(mask, b.shl(mask, I64(shift))), I64(keep))
    store_i64(b, mask, place)
    loop.close([b.add(place, I64(16))])


def _emit_gather(v: Vectors, args: Any) -> None:
    b = v.builder
    dst, dst_step, src, src_step, lane_step, count, length, low, high = args
    read, written = v.between(low, high), v.below(length)
    loop = Loop(b, count, [dst, src])
    to, at = loop.carried
    v.masked_store(v.gather(at, lane_step, read), to, written)
    loop.close([b.add(to, dst_step), b.add(at, src_step)])


def _emit_transpose(v: Vectors, args: Any) -> None:
    b = v.builder
    rows, cols, length = args[4:]
    if has_masked_memory():
        _transpose(v, args, None)
        return
    # Whole blocks of vectors go without masks, and those of which the four or six rows of a register block are there.
    whole = b.and_(*(b.icmp_signed(">=", number, I64(v.lanes)) for number in (cols, length)))
    done = b.append_basic_block("transposed")
    for least in (v.lanes, 4) if v.lanes == 8 else (v.lanes,):
        some, others = b.append_basic_block("whole"), b.append_basic_block("others")
        b.cbranch(b.and_(whole, b.icmp_signed(">=", rows, I64(least))), some, others)
        b.position_at_end(some)
        _transpose(v, args, least)
        b.branch(done)
        b.position_at_end(others)
    _transpose(v, args, None)
    b.branch(done)
    b.position_at_end(done)


def _transpose(v: Vectors, args: Any, least: int | None) -> None:
    """least: whole vectors of so many rows, or more, are there; None: any number of elements."""
    b = v.builder
    dst, dst_step, src, src_step, rows, cols, length = args
    written = v.below(length)
    inside = v.below(cols)
    nothing = v.mask_type([I1(0)] * v.lanes)
    if least:
        inside = v.mask_type([I1(1)] * v.lanes)
    x = []
    for i in range(v.lanes):
        place = b.add(src, b.mul(src_step, I64(i)))
        if least and i < least:
            x.append(v.load(place))
        else:
            x.append(v.masked_load(place, b.select(b.icmp_signed(">", rows, I64(i)), inside, nothing)))
    # Swap off-diagonal blocks of growing size: after step d, blocks of 2d x 2d are transposed.
    distance = 1
    while distance < v.lanes:
        swapped = list(x)
        low = [j if j & distance == 0 else v.lanes + j - distance for j in range(v.lanes)]
        high = [j + distance if j & distance == 0 else v.lanes + j for j in range(v.lanes)]
        index = ir.VectorType(I32, v.lanes)
        for i in range(v.lanes):
            if i & distance == 0:
                upper, lower = x[i], x[i + distance]
                swapped[i] = b.shuffle_vector(upper, lower, ir.Constant(index, low))
                swapped[i + distance] = b.shuffle_vector(upper, lower, ir.Constant(index, high))
        x = swapped
        distance *= 2
    if least:
        for j in range(v.lanes):
            v.store(x[j], b.add(dst, b.mul(dst_step, I64(j))))
        return
    done = b.append_basic_block("stored")
    for j in range(v.lanes):
        column = b.append_basic_block("column")
        b.cbranch(b.icmp_signed(">", cols, I64(j)), column, done)
        b.position_at_end(column)
        v.masked_store(x[j], b.add(dst, b.mul(dst_step, I64(j))), written)
    b.branch(done)
    b.position_at_end(done)


def _emit_pixels(v: Vectors, args: Any, rows: int, pitch: int) -> None:
    b = v.builder
    dst, src, row_table, k_table, count = args
    fours, ones = Vectors(b, v.char, 4), Vectors(b, v.char, 1)
    number = lambda table, k: b.load(v.pointer(b.add(table, I64(8 * k))), align=8, typ=I64)
    offsets = [number(row_table, i) for i in range(rows)]
    steps = [b.sub(y, x) for x, y in itertools.pairwise(offsets)]
    starts = [b.add(src, offset) for offset in offsets]

    def evens(at: Any, last: Any) -> Any:
        """Every second of seven elements from `at` on, of which the third to the last stand four before `last`."""
        pair = fours.load(at), fours.load(b.sub(last, I64(3 * v.size)))
        return b.shuffle_vector(*pair, ir.Constant(ir.VectorType(I32, 4), [0, 2, 5, 7]))

    def walk(part: Vectors, places: list[int], load: Any) -> None:
        loop = Loop(b, count, [dst, k_table])
        to, table = loop.carried
        k = number(table, 0)
        for i in places:
            part.store(load(i, k), b.add(to, I64(i * v.size)))
        loop.close([b.add(to, I64(pitch * v.size)), b.add(table, I64(8))])

    # Neighbours, or every second one of neighbours, go as two vectors that overlap.
    done = b.append_basic_block("packed")
    for step in (1, 2):
        some, others = b.append_basic_block("vectors"), b.append_basic_block("others")
        alike = functools.reduce(b.and_, (b.icmp_signed("==", s, I64(step * v.size)) for s in steps))
        b.cbranch(alike, some, others)
        b.position_at_end(some)
        if step == 1:
            walk(fours, [0, rows - 4], lambda i, k: fours.load(b.add(starts[i], k)))
        else:
            walk(fours, [0, rows - 4], lambda i, k: evens(b.add(starts[i], k), b.add(starts[i + 3], k)))
        b.branch(done)
        b.position_at_end(others)
    walk(ones, list(range(rows)), lambda i, k: ones.load(b.add(starts[i], k)))
    b.branch(done)
    b.position_at_end(done)


def _emit_offsets(b: ir.IRBuilder, args: Any) -> None:
    table, first, count, repeats, n1, n2, s0, s1, s2 = args
    i1 = b.sdiv(first, n2)
    i2 = b.srem(first, n2)
    start = b.add(b.mul(b.sdiv(i1, n1), s0), b.mul(b.srem(i1, n1), s1))
    start = b.add(start, b.mul(i2, s2))
    back2, back1 = b.sub(s1, b.mul(n2, s2)), b.sub(s0, b.mul(n1, s1))
    zero, one = I64(0), I64(1)
    loop = Loop(b, b.add(count, repeats), [start, b.srem(i1, n1), i2])
    at, i1, i2 = loop.carried
    place = b.add(table, b.mul(loop.index, I64(8)))
    store_i64(b, at, place)
    next2 = b.add(i2, one)
    carry2 = b.icmp_signed("==", next2, n2)
    next1 = b.add(i1, b.zext(carry2, I64))
    carry1 = b.icmp_signed("==", next1, n1)
    step = b.add(s2, b.add(b.select(carry2, back2, zero), b.select(carry1, back1, zero)))
    moved = [b.add(at, step), b.select(carry1, zero, next1), b.select(carry2, zero, next2)]
    stays = b.icmp_signed(">=", b.add(loop.index, one), count)
    loop.close([b.select(stays, old, new) for old, new in zip((at, i1, i2), moved)])


def _emit_fetch(b: ir.IRBuilder, args: Any) -> None:
    v = Vectors(b, "f32", 16)
    at, count = args
    loop = Loop(b, count, [at])
    v.prefetch(loop.carried[0], 2)
    loop.close([b.add(loop.carried[0], I64(64))])


def _emit_fill_windows(b: ir.IRBuilder, args: Any) -> None:
    table, taps_y, taps_x, y, x, tap_y, tap_x, h, w, step, y_step, x_step, length = args
    zero, one = I64(0), I64(1)

    def between(value: Any, low: Any, high: Any) -> Any:
        value = b.select(b.icmp_signed("<", value, high), value, high)
        return b.select(b.icmp_signed(">", value, low), value, low)

    def results(distance: Any) -> Any:
        """How many results lie before a column `distance` ahead, at most `length`."""
        ahead = between(distance, zero, b.mul(length, step))
        before, divides, joined = b.block, b.append_basic_block("strided"), b.append_basic_block("counted")
        # A division takes as long as all the rest: steps of one and two go without.
        less = b.sub(step, one)
        halves = b.ashr(b.add(ahead, less), less)
        b.cbranch(b.icmp_signed("<", less, I64(2)), joined, divides)
        b.position_at_end(divides)
        quotient = b.sdiv(b.add(ahead, less), step)
        b.branch(joined)
        b.position_at_end(joined)
        count = b.phi(I64)
        count.add_incoming(halves, before)
        count.add_incoming(quotient, divides)
        return count

    lines = Loop(b, taps_y, [table, y])
    entry, line = lines.carried
    inside = b.icmp_unsigned("<", line, h)
    columns = Loop(b, taps_x, [entry, x])
    entry, column = columns.carried
    first = results(b.neg(column))
    last = b.select(inside, results(b.sub(w, column)), zero)
    last = b.select(b.icmp_signed(">", last, first), last, first)
    mask = b.xor(b.sub(b.shl(one, last), one), b.sub(b.shl(one, first), one))
    store_i64(b, b.add(b.mul(line, y_step), b.mul(column, x_step)), entry)
    store_i64(b, mask, b.add(entry, I64(8)))
    entry, _ = columns.close([b.add(entry, I64(16)), b.add(column, tap_x)])
    lines.close([entry, b.add(line, tap_y)])


fill_offsets = integers("fill_offsets", 9, _emit_offsets)
fetch_lines = integers("fetch_lines", 2, _emit_fetch)
fill_windows = integers("fill_windows", 13, _emit_fill_windows)
spread_masks = integers("spread_masks", 2, _emit_spread)

__all__ = ["fetch_lines", "fill_offsets", "fill_windows", "spread_masks"]
for _char in (*FLOATS, *READ_AS):
    for _name, _emit, _n in (
        ("copy_lanes", _emit_copy, 8),
        ("gather_lanes", _emit_gather, 9),
        ("transpose_lanes", _emit_transpose, 7),
    ):
        if _name != "gather_lanes" or _char not in HALVES:
            globals()[f"{_name}_{_char}"] = on_vectors(_name, _char, _n, _emit)
            __all__.append(f"{_name}_{_char}")
    globals()[f"copy_panel_{_char}"] = on_vectors("copy_panel", _char, 6, _emit_copy_panel, 2)
    __all__.append(f"copy_panel_{_char}")
for _char in FLOATS:
    for _name, _emit, _n in (
        ("copy_windows", _emit_windows, 8),
        ("gather_windows", _emit_windows, 9),
        ("halve_windows", _emit_halves, 8),
        ("line_windows", _emit_line_windows, 9),
        ("halve_line_windows", _emit_halve_line_windows, 9),
    ):
        globals()[f"{_name}_{_char}"] = on_vectors(_name, _char, _n, _emit)
        __all__.append(f"{_name}_{_char}")
    globals()[f"pack_pixels_{_char}"] = on_vectors("pack_pixels", _char, 5, _emit_pixels, 3)
    __all__.append(f"pack_pixels_{_char}")
