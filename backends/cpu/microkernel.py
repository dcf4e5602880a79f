"""The register block product, dot products and cheap integers: intrinsics of the matrix kernels.

`X` is `f32` or `f64`; `lanes` is the number of elements in a vector register and, like `block_rows` and
`block_vectors`, a literal in the kernel's source. Addresses and steps are in bytes.

`multiply_X(count, a, row_table, k_table, b, b_step, c, c_step, rows, cols, accumulate,
            block_rows, block_vectors, lanes)`
    c[i, j] (+)= sum over k < count of a[row_table[i] + k_table[k]] * b[k, j], for i < rows <= block_rows and
    j < cols <= block_vectors * lanes. The tables hold int64 byte offsets, so `a` may be any strided matrix or
    an image seen through a window. Row_table must have block_rows entries and b must hold whole vectors up to
    cols, but nothing outside rows x cols is stored. One chain of fused multiply-adds per element, k ascending
    from zero, then one addition of the old c when `accumulate` is not 0: an element's value does not depend
    on where in a block it stands.
    `multiply_ahead_X` fetches the next block_rows rows of the table, a power of two, into the cache meanwhile.
    `multiply_pixels_X` has one more argument, `lines`: for each k the line of 64 bytes there is fetched into the
    second-level cache, and the last of the next block_rows rows into the first, for rows that are neighbours.
    With block_rows = 1 b is read under a mask, so it may end anywhere.
`multiply_near_X(count, a, b, b_step, c, c_step, rows, cols, accumulate,
                 row_step, k_step, block_rows, block_vectors, lanes)`
    The same for a matrix `a` whose bytes from row to row and from k to k are literals: a[i, k] stands at
    a + i * row_step + k * k_step. All rows share one address, so a block may have as many as registers hold.
`multiply_later_X(count, a, row_table, k_table, b, b_step, c, c_step, rows, cols, accumulate, later, later_step,
                  block_rows, block_vectors, lanes)`
    `multiply_X`, while the lines at later, later + later_step, ... (one for each k) come into the second-level cache.
`multiply_packed_X(count, a, b, b_step, c, c_step, rows, cols, accumulate, later, later_step,
                   turn, row_step, k_step, block_rows, block_vectors, lanes)`
    `multiply_near_X` with that fetching, `turn` k in a turn of the loop: the fewest instructions for each multiply-add.
`multiply_rows_X(count, a, a_step, b, b_step, c, c_step, rows, cols, accumulate, later, later_step, others,
                 turn, k_step, low, block_rows, block_vectors, lanes)`
    `multiply_near_X` for any number of rows, which stand `a_step` apart, block by block: the last ones in blocks of
    `low` rows where that is sooner. Blocks fetch lines in turn; others: -1, or 0 where the first one fetches all.
`multiply_couple_X(count, a, a_step, b, b_step, c, c_step, rows, cols, accumulate, later, later_step,
                   turn, k_step, block_rows, block_vectors, lanes)`
    The same for up to block_rows rows and two panels that stand one after the other, each of half the vectors: of few
    rows a panel's sums alone would wait for each other.
`dot_rows_X(dst, a, a_step, rows, x, count, vectors, lanes)`
    dst[i] = sum over k < count of a[i, k] * x[k], in vectors * lanes partial sums, added pairwise at the end.
`dot_rows` (a) and `multiply` (b) also read 16-bit floats, and float32 that is rounded to them (X: `vectors.READ_AS`).
`div_i64(x, y)`, `mod_i64(x, y)`, `min_i64(x, y)`, `max_i64(x, y)`
    What //, %, min and max give for x >= 0 and y > 0, in a quarter of the compile time.
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba import types

from .blocks import ARGUMENTS
from .target import has_masked_memory, target
from .vectors import FLOATS, I32, I64, READ_AS, Loop, Vectors, integers, on_vectors


def _emit_multiply(
    v: Vectors, args: Any, block_rows: int, block_vectors: int, ahead: str = "", later: Any = None
) -> None:
    b = v.builder
    count, a, row_table, k_table, *rest = args

    def offset(table: Any, i: Any) -> Any:
        address = b.add(table, b.mul(i, I64(8)))
        return b.load(v.pointer(address), align=8, typ=I64)

    a_rows = [b.add(a, offset(row_table, I64(i))) for i in range(block_rows)]
    next_rows = b.add(row_table, I64(8 * block_rows))
    last = b.add(a, offset(next_rows, I64(block_rows - 1))) if ahead == "last" else None

    def element(loop: Loop, left: Any) -> Any:
        k = offset(k_table, loop.index)
        if last is not None:
            v.prefetch(b.add(last, k))
        elif ahead:
            # One row in turn: a line of the cache holds more elements than a block has rows.
            row = offset(next_rows, b.and_(loop.index, I64(block_rows - 1)))
            v.prefetch(b.add(b.add(a, row), k))
        return lambda i: v.load_element(b.add(a_rows[i], k))

    fetches = not ahead and block_rows > 1
    _emit_wide(v, count, rest, element, None, block_rows, block_vectors, fetches, later)


def _emit_wide(
    v: Vectors, count: Any, args: Any, element: Any, walk: Any, block_rows: int, block_vectors: int, fetches: bool,
    later: Any, turn: int = 1,
) -> None:  # fmt: skip
    """`_emit_block`; in wide ones columns that fill half a block, or less, are computed as one."""
    b, cols = v.builder, args[5]
    if block_vectors < 3:
        _emit_block(v, count, args, element, walk, block_rows, block_vectors, fetches, later, turn)
        return
    half = block_vectors // 2
    whole, part, end = (b.append_basic_block(name) for name in ("whole", "half", "end"))
    b.cbranch(b.icmp_signed(">", cols, I64(half * v.lanes)), whole, part)
    for start, vectors, k in ((whole, block_vectors, turn), (part, half, 1)):
        b.position_at_end(start)
        _emit_block(v, count, args, element, walk, block_rows, vectors, fetches, later, k)
        b.branch(end)
    b.position_at_end(end)


def _emit_ahead(v: Vectors, args: Any, block_rows: int, block_vectors: int) -> None:
    _emit_multiply(v, args, block_rows, block_vectors, "in turn")


def _emit_pixels(v: Vectors, args: Any, block_rows: int, block_vectors: int) -> None:
    _emit_multiply(v, args[:-1], block_rows, block_vectors, "last", (args[-1], I64(64)))


def _near(v: Vectors, row_step: int) -> Any:
    """The elements of a left operand whose rows are `row_step` bytes apart."""
    return lambda loop, left: lambda i: v.load_element(v.builder.add(left, I64(i * row_step)))


def _emit_near(
    v: Vectors, args: Any, row_step: int, k_step: int, block_rows: int, block_vectors: int
) -> None:
    count, a, *rest = args
    _emit_block(v, count, rest, _near(v, row_step), (a, k_step), block_rows, block_vectors)


def _emit_packed(
    v: Vectors, args: Any, turn: int, row_step: int, k_step: int, block_rows: int, block_vectors: int
) -> None:
    count, a, *rest, later, later_step = args
    _emit_wide(
        v,
        count,
        rest,
        _near(v, row_step),
        (a, k_step),
        block_rows,
        block_vectors,
        True,
        (later, later_step),
        turn,
    )


def _standing(v: Vectors, a: Any, a_step: Any, rows: Any, block_rows: int) -> Any:
    """The elements of rows that stand `a_step` apart; one that is not there is the last one again."""
    b, last = v.builder, v.builder.sub(rows, I64(1))
    numbers = [b.select(b.icmp_signed("<", I64(i), last), I64(i), last) for i in range(block_rows)]
    starts = [b.add(a, b.mul(a_step, n)) for n in numbers]
    return lambda loop, at: lambda i: v.load_element(b.add(starts[i], at))


def _emit_couple(v: Vectors, args: Any, turn: int, k_step: int, block_rows: int, block_vectors: int) -> None:
    count, a, a_step, *rest, later, later_step = args
    element = _standing(v, a, a_step, rest[4], block_rows)
    panel, half = v.builder.mul(count, rest[1]), block_vectors // 2
    places = [
        v.builder.add(panel if j >= half else I64(0), I64(j % half * v.lanes * v.size))
        for j in range(block_vectors)
    ]
    walk, fetched = (I64(0), k_step), (later, later_step)
    _emit_block(v, count, rest, element, walk, block_rows, block_vectors, True, fetched, turn, places)


def _emit_rows(
    v: Vectors, args: Any, turn: int, k_step: int, low: int, block_rows: int, block_vectors: int
) -> None:
    b = v.builder
    count, a, a_step, right, right_step, c, c_step, rows, cols, accumulate, later, later_step, others = args

    def row_block(a: Any, c: Any, left: Any, fetched: tuple[Any, Any], height: int) -> None:
        """Rows from a on, of which so many are left."""
        element = _standing(v, a, a_step, left, height)
        rest = right, right_step, c, c_step, left, cols, accumulate
        turns = turn if height > low else turn // 2
        _emit_wide(v, count, rest, element, (I64(0), k_step), height, block_vectors, True, fetched, turns)

    before = b.block
    start, whole, part, moved, end = (
        b.append_basic_block(n) for n in ("rows", "tall", "low", "moved", "done")
    )
    b.branch(start)
    b.position_at_end(start)
    carried = [b.phi(I64) for _ in range(5)]
    for phi, value in zip(carried, (rows, a, c, later, later_step)):
        phi.add_incoming(value, before)
    left, *places, step = carried
    two = b.and_(b.icmp_signed(">", left, I64(block_rows)), b.icmp_signed("<=", left, I64(2 * low)))
    b.cbranch(b.or_(b.icmp_signed("<=", left, I64(low)), two), part, whole)
    heights = []
    for block, height in ((whole, block_rows), (part, low)):
        b.position_at_end(block)
        row_block(places[0], places[1], left, (places[2], step), height)
        heights.append((I64(height), b.block))
        b.branch(moved)
    b.position_at_end(moved)
    height = b.phi(I64)
    for value, block in heights:
        height.add_incoming(value, block)
    left_over = b.sub(left, height)
    following = [left_over]
    following += [
        b.add(p, b.mul(n, s)) for p, n, s in zip(places, (height, height, count), (a_step, c_step, step))
    ]
    for phi, value in zip(carried, (*following, b.and_(step, others))):
        phi.add_incoming(value, moved)
    b.cbranch(b.icmp_signed(">", left_over, I64(0)), start, end)
    b.position_at_end(end)


def _emit_later(v: Vectors, args: Any, block_rows: int, block_vectors: int) -> None:
    _emit_multiply(v, args[:-2], block_rows, block_vectors, later=args[-2:])


def _emit_block(
    v: Vectors, count: Any, args: Any, element: Any, walk: Any, block_rows: int, block_vectors: int,
    fetches: bool = False, later: Any = None, turn: int = 1, places: Any = None,
) -> None:  # fmt: skip
    """The loop over k and the stores. element(loop, a) gives a function of the row; walk: (a, its step by k).

    fetches: bring c's lines into the cache meanwhile; later: (an address, its step by k) of what a later block reads,
    which is brought nearer. turn: k in a turn of the loop, where there is a walk. places: of a line's vectors in b.
    """
    b = v.builder
    right, right_step, c, c_step, rows, cols, accumulate = args
    width = v.lanes * v.size
    if fetches:
        # The old sums, or the lines that will be written, come meanwhile.
        for i in range(block_rows):
            for j in range(0, block_vectors * width, 64):
                v.prefetch(b.add(b.add(c, b.mul(c_step, I64(i))), I64(j)))
    zeros = [v.zero] * (block_rows * block_vectors)
    masks = [v.below(cols, j * v.lanes) for j in range(block_vectors)]
    # A vector that is not wanted at all may lie outside b: the first one is read instead.
    places = places or [I64(j * v.lanes * v.read_size) for j in range(block_vectors)]
    steps = [
        b.select(b.icmp_signed(">", cols, I64(j * v.lanes)), place, I64(0)) for j, place in enumerate(places)
    ]
    left = [] if walk is None else [walk[0]]
    more = [] if later is None else [later[0]]
    # Loads stay in order where registers do not hold all of them at once: LLVM gathers them, or not, as it happens.
    ordered = turn > 1 or block_rows * (block_vectors + 1) + block_vectors > target().registers

    def add_products(at: Any, load: Any, sums: list[Any]) -> list[Any]:
        """The sums with the products of one k."""
        line = [b.add(at, step) for step in steps]
        if block_rows == 1:
            vectors = [v.masked_load(place, mask) for place, mask in zip(line, masks)]
        else:
            vectors = [v.load(place) for place in line]
        updated = []
        for i in range(block_rows):
            x = v.splat(load(i))
            row = [v.multiply_add(x, vectors[j], sums[i * block_vectors + j]) for j in range(block_vectors)]
            updated += v.in_order(row) if ordered else row
        return updated

    def loop_over(turns: Any, carried: list[Any], turn: int) -> list[Any]:
        loop = Loop(b, turns, carried)
        at, *moving = loop.carried[: 1 + len(left) + len(more)]
        sums = loop.carried[1 + len(left) + len(more) :]
        if more:
            v.prefetch(moving[-1], 2)
        for k in range(turn):
            here = b.add(moving[0], I64(k * walk[1])) if left and k else loop.carried[1]
            sums = add_products(at, element(loop, here), sums)
            at = b.add(at, right_step)
        moved = [b.add(moving[0], I64(turn * walk[1]))] if left else []
        if more:
            moved.append(b.add(moving[-1], later[1] if turn == 1 else b.mul(later[1], I64(turn))))
        return loop.close([at, *moved, *sums])

    carried = [right, *left, *more, *zeros]
    if turn > 1:
        carried = loop_over(b.sdiv(count, I64(turn)), carried, turn)
        count = b.srem(count, I64(turn))
    sums = loop_over(count, carried, 1)[1 + len(left) + len(more) :]

    # Masks cost more than the rest of a store; what is not added to is not read.
    whole, part, done = (b.append_basic_block(name) for name in ("whole", "part", "stored"))
    b.cbranch(b.icmp_signed(">=", cols, I64(block_vectors * v.lanes)), whole, part)
    for kind in (whole, part):
        b.position_at_end(kind)
        if kind is part and not has_masked_memory():
            _store_narrow(v, sums, c, c_step, rows, cols, accumulate, masks)
            b.branch(done)
            continue
        adding, storing = b.append_basic_block("add"), b.append_basic_block("store")
        b.cbranch(b.icmp_signed("!=", accumulate, I64(0)), adding, storing)
        load = v.load_sums if kind is whole else v.masked_load_sums
        store = v.store if kind is whole else v.masked_store
        for start in (adding, storing):
            b.position_at_end(start)
            for i in range(block_rows):
                row = b.append_basic_block("row")
                b.cbranch(b.icmp_signed(">", rows, I64(i)), row, done)
                b.position_at_end(row)
                address = b.add(c, b.mul(c_step, I64(i)))
                for j in range(block_vectors):
                    mask = [masks[j]] if kind is part else []
                    place, total = b.add(address, I64(j * width)), sums[i * block_vectors + j]
                    if start is adding:
                        total = b.fadd(total, load(place, *mask))
                    store(total, place, *mask)
            b.branch(done)
    b.position_at_end(done)


def _store_narrow(
    v: Vectors, sums: list[Any], c: Any, c_step: Any, rows: Any, cols: Any, accumulate: Any, masks: list[Any]
) -> None:
    """Store a block's first columns, row by row from a copy, where CPUs take long to store under a mask."""
    b, width, vectors = v.builder, v.lanes * v.size, len(masks)
    block_rows = len(sums) // vectors
    with b.goto_entry_block():
        area = b.ptrtoint(b.alloca(v.type, len(sums)), I64)
    for k, total in enumerate(sums):
        v.store(total, b.add(area, I64(k * width)))
    count = b.select(b.icmp_signed("<", rows, I64(block_rows)), rows, I64(block_rows))
    adds = b.icmp_signed("!=", accumulate, I64(0))
    loop = Loop(b, count, [area, c])
    copy, to = loop.carried
    for j, mask in enumerate(masks):
        place, left = b.add(to, I64(j * width)), b.sub(cols, I64(j * v.lanes))
        total = v.load_sums(b.add(copy, I64(j * width)))
        total = b.select(adds, b.fadd(total, v.masked_load_sums(place, mask)), total)
        with b.if_else(b.icmp_signed(">=", left, I64(v.lanes))) as (all_of_them, some):
            with all_of_them:
                v.store(total, place)
            with some, b.if_then(b.icmp_signed(">", left, I64(0))):
                v.store_first(total, place, left)
    loop.close([b.add(copy, I64(vectors * width)), b.add(to, c_step)])


def _emit_dot(v: Vectors, args: Any, vectors: int) -> None:
    b = v.builder
    dst, a, a_step, rows, x, count = args
    step = vectors * v.lanes
    whole = b.sdiv(count, I64(step))
    outer = Loop(b, rows, [dst, a])
    to, row = outer.carried
    loop = Loop(b, whole, [row, x, *[v.zero] * vectors])
    left, right = loop.carried[:2]
    updated = []
    for j, total in enumerate(loop.carried[2:]):
        here, there = (I64(j * v.lanes * size) for size in (v.read_size, v.size))
        updated.append(v.multiply_add(v.load(b.add(left, here)), v.load_sums(b.add(right, there)), total))
    moved = [b.add(at, I64(step * size)) for at, size in ((left, v.read_size), (right, v.size))]
    left, right, *sums = loop.close([*moved, *updated])
    rest = b.sub(count, b.mul(whole, I64(step)))
    for j, total in enumerate(sums):
        here, there = (I64(j * v.lanes * size) for size in (v.read_size, v.size))
        mask = v.below(rest, j * v.lanes)
        sums[j] = v.multiply_add(
            v.masked_load(b.add(left, here), mask), v.masked_load_sums(b.add(right, there), mask), total
        )
    while len(sums) > 1:
        sums = [b.fadd(p, q) for p, q in zip(sums[::2], sums[1::2])]
    lanes, total = v.lanes, sums[0]
    while lanes > 1:
        lanes //= 2
        index = ir.Constant(ir.VectorType(I32, v.lanes), [(j + lanes) % v.lanes for j in range(v.lanes)])
        total = b.fadd(total, b.shuffle_vector(total, ir.Constant(v.type, ir.Undefined), index))
    v.store(b.extract_element(total, I32(0)), to)
    outer.close([b.add(to, I64(v.size)), b.add(row, a_step)])


def _choose(order: str) -> Any:
    return lambda b, args: b.select(b.icmp_signed(order, *args), *args)


div_i64 = integers("div_i64", 2, lambda b, args: b.sdiv(*args), types.int64)
mod_i64 = integers("mod_i64", 2, lambda b, args: b.srem(*args), types.int64)
min_i64 = integers("min_i64", 2, _choose("<"), types.int64)
max_i64 = integers("max_i64", 2, _choose(">"), types.int64)

__all__ = ["div_i64", "max_i64", "min_i64", "mod_i64"]
#: name -> what emits it, and how many literals it takes
_MULTIPLY = {
    "multiply": (_emit_multiply, 3), "multiply_ahead": (_emit_ahead, 3), "multiply_pixels": (_emit_pixels, 3),
    "multiply_near": (_emit_near, 5), "multiply_later": (_emit_later, 3), "multiply_packed": (_emit_packed, 6),
    "multiply_rows": (_emit_rows, 6), "multiply_couple": (_emit_couple, 5),
}  # fmt: skip
for _char in FLOATS:
    for _name, (_emit, _literals) in _MULTIPLY.items():
        globals()[f"{_name}_{_char}"] = on_vectors(_name, _char, ARGUMENTS[_name], _emit, _literals)
        __all__.append(f"{_name}_{_char}")
for _char in (*FLOATS, *READ_AS):
    globals()[f"dot_rows_{_char}"] = on_vectors("dot_rows", _char, 6, _emit_dot, 2)
    __all__.append(f"dot_rows_{_char}")
for _char in READ_AS:
    globals()[f"multiply_{_char}"] = on_vectors("multiply", _char, ARGUMENTS["multiply"], _emit_multiply, 3)
    __all__.append(f"multiply_{_char}")
