"""Matrix products: panels of the right operand, blocks of the result by the microkernel, gemv.

The value of a result element depends on K and the dtype alone: each `depth` of k is one chain of fused
multiply-adds from zero, the chains are added in order (in a fixed number of pieces when K is long and the
result small). Tiles, chunks, threads and the size of the batch do not change a bit.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from typing import Any, NamedTuple

from ...core.backend import Arg, Epilogue, Operand, Program
from ...core.lower import copy
from ...core.numbers import estimate
from ...core.types import DType, Shape, TensorType, contiguous_strides
from . import gemv
from .blocks import apart
from .epilogue import FusedEpilogue, apply_after, fuse, indent, result_buffer
from .gemm_integer import integer_product
from .panels import (
    IMPORT,
    Block,
    batch_axes,
    block,
    fill_zero,
    limits,
    pack,
    pack_source,
    product_block,
    sum_pieces,
    transpose,
)
from .target import has_masked_memory

#: A right operand of whole vectors is read in place up to this many bytes, or for so few rows: more when its own rows
#: do not fall into the same sets of the cache.
IN_PLACE_BYTES, IN_PLACE_ROWS, SPREAD_ROWS = 1 << 14, 64, 160
#: A task's columns, at most.
TASK_COLUMNS = 1024
#: Register blocks of rows that a task has at least where threads shall have as many tasks each.
EVEN_ROWS = 8
#: k in a turn of the loop over a packed left operand: fewer instructions, which matters where cores are shared.
TURN = 4
#: A result of few blocks of 64 x 64 is computed in pieces of K, up to PIECES blocks in all, of at least PIECE_UNITS
#: units.
PIECES, PIECE_UNITS = 32, 4


class Few(NamedTuple):
    """Products of fewer blocks and more units than these are computed in pieces."""

    blocks: int
    units: int


#: Where K is a batch, and where rows are one: there a product in pieces, which has no epilogue, would be other kernels
#: for another batch, so only what has no other parallelism is one.
OVER_BATCH, OF_ROWS = Few(PIECES, 2 * PIECE_UNITS), Few(4, 64)


_ENDLESS = 1 << 62


class Levels(NamedTuple):
    """Byte offsets of an index of three digits: (i0 * n1 + i1) * n2 + i2 -> i0 * s0 + i1 * s1 + i2 * s2."""

    n1: int
    n2: int
    s0: int
    s1: int
    s2: int


class Reduction(NamedTuple):
    """The summed index: `outer` x `inner`, cut into units of at most `depth` within an outer index."""

    outer: int
    inner: int
    depth: int

    @property
    def units(self) -> int:
        return self.outer * -(-self.inner // self.depth)


class Side(NamedTuple):
    """The right operand, in panels: steps in bytes by batch, outer index, unit, panel and k.

    column: bytes from column to column where tasks pack a panel before they multiply with it; 0: they read it in place.
    """

    operand: Operand
    batch: Sequence[int]
    outer: int
    unit: int
    panel: int
    step: int
    column: int = 0


class Left(NamedTuple):
    """The left operand: bytes by batch, outer index and unit, then the offsets of rows and of k in a unit.

    group: where it is packed, bytes from `group_rows` rows to the next, [k][row] each; the offsets are not read then.
    """

    operand: Operand
    batch: Sequence[int]
    outer: int
    unit: int
    rows: Levels
    ks: Levels
    group: int = 0

    @property
    def is_plain(self) -> bool:
        """Whether rows and k have one step each, and it is not packed already."""
        return not self.group and self.rows.n2 == self.ks.n2 == _ENDLESS


def _by_height(functions: list[str], arguments: str, heights: list[tuple[int, int]]) -> str:
    """Calls of the block that is high enough. A block takes as long for one row as for all of its own."""
    low, lines = heights[0][1], [f"{f}({arguments})" for f in functions]
    if len(lines) == 2:
        lines = [f"if block_rows <= {low}:", f"    {lines[0]}", "else:", f"    {lines[1]}"]
    return indent(lines, 24)


@functools.lru_cache(maxsize=512)
def _source(char: str, size: int, tile: Block, halves: bool, epilogue_head: str, epilogue_block: str) -> str:
    """The kernel. halves: half a block of rows, or less, is done by a block of its own."""
    rows, width, lanes = tile.rows, tile.width, tile.lanes
    shape = tile.rows, tile.vectors, tile.lanes
    side, line = group_rows(tile), group_line(tile)
    strip = min(side, lanes) if has_masked_memory() else lanes
    # Whole vectors are stored where what is beyond the rows is written over by the next k.
    stored = lanes if side == strip else strip
    heights = [(TURN // 2, rows // 2), (TURN, rows)] if halves else [(TURN, rows)]
    result = f"c + piece * c_piece + result_at * {size}, n * {size}, block_rows, block_cols, "
    result += "unit - first_unit, later, later_step"
    near = _by_height(
        [apart(f"multiply_packed_{char}", turn, size, line * size, k, *shape[1:]) for turn, k in heights],
        f"count, near, right, right_step, {result}",
        heights,
    )
    far = _by_height(
        [apart(f"multiply_later_{char}", k, *shape[1:]) for _, k in heights],
        f"count, a_at, row_table + 8 * i, k_table, right, right_step, {result}",
        heights,
    )
    return f"""# gemm {char} in blocks of {rows} x {width}
{IMPORT}
def kernel(args, chunk, nchunks):
    m, n, row_block, column_block = args[0], args[1], args[2], args[3]
    n0, n1, n2 = args[4], args[5], args[6]
    inner, depth, units, pieces = args[7], args[8], args[9], args[10]
    a, a0, a1, a2, a_outer, a_unit = args[11], args[12], args[13], args[14], args[15], args[16]
    row_n1, row_n2, row_s0, row_s1, row_s2 = args[17], args[18], args[19], args[20], args[21]
    k_n1, k_n2, k_s0, k_s1, k_s2 = args[22], args[23], args[24], args[25], args[26]
    b, b0, b1, b2, b_outer, b_unit = args[27], args[28], args[29], args[30], args[31], args[32]
    b_panel, b_step = args[33], args[34]
    c, c_piece = args[35], args[36]
    row_table, packs, group, b_column = args[37] + chunk * args[38], args[39], args[40], args[41]
{epilogue_head}    # Offsets of k within a unit, the same for all units.
    k_table = row_table + 8 * (row_block + {rows})
    deepest = min_i64(depth, inner)
    fill_offsets(k_table, 0, deepest, 0, k_n1, k_n2, k_s0, k_s1, k_s2)
    # A panel of the right operand, where few rows use it.
    panel = k_table + (8 * deepest + 63) // 64 * 64
    # The left operand's block in groups of {side} rows, where many columns use it.
    packed = panel
    if b_column:
        packed += deepest * {width * size}

    row_tasks = div_i64(m + row_block - 1, row_block)
    column_tasks = div_i64(n + column_block - 1, column_block)
    parts = div_i64(inner + depth - 1, depth)
    tasks = n0 * n1 * n2 * pieces * column_tasks * row_tasks
    filled = -1
    for task in range(div_i64(tasks * chunk, nchunks), div_i64(tasks * (chunk + 1), nchunks)):
        row = mod_i64(task, row_tasks) * row_block
        rest = div_i64(task, row_tasks)
        column = mod_i64(rest, column_tasks) * column_block
        rest = div_i64(rest, column_tasks)
        piece = mod_i64(rest, pieces)
        batch = div_i64(rest, pieces)
        batch0 = div_i64(batch, n1 * n2)
        batch1 = mod_i64(div_i64(batch, n2), n1)
        batch2 = mod_i64(batch, n2)
        rows = min_i64(row_block, m - row)
        columns = min_i64(column_block, n - column)
        near_row = 0 if packs else row
        if group == 0 and filled != row:
            # Missing rows of the last block repeat its last one.
            fill_offsets(row_table, row, rows, {rows - 1}, row_n1, row_n2, row_s0, row_s1, row_s2)
            filled = row

        # Blocks fetch parts of the next panel, which stands behind; what is read in place is near.
        later_step = 0
        if b_step == {width * size}:
            later_step = div_i64(b_step, div_i64(rows + {rows - 1}, {rows}))
        a_batch = a + batch0 * a0 + batch1 * a1 + batch2 * a2
        b_batch = b + batch0 * b0 + batch1 * b1 + batch2 * b2 + div_i64(column, {width}) * b_panel
        c_at = batch * m * n + row * n + column
        first_unit = div_i64(units * piece, pieces)
        last_unit = div_i64(units * (piece + 1), pieces)
        for unit in range(first_unit, last_unit):
            outer, part = div_i64(unit, parts), mod_i64(unit, parts)
            count = min_i64(depth, inner - part * depth)
            a_at = a_batch + outer * a_outer + part * a_unit
            b_at = b_batch + outer * b_outer + part * b_unit
            pitch = group
            if packs:
                pitch = (count + 1) * {line * size}
                if row_s2 == {size} and k_s2 != {size}:
                    # Whole lines of memory, one k after the other.
                    here = a_at + load_i64(row_table, 0)
                    whole, rest = div_i64(rows, {side}), mod_i64(rows, {side})
                    for k in range(count):
                        there = packed + k * {line * size}
                        for part in range(0, {side}, {strip}):
                            copy_lanes_{char}(
                                there + part * {size}, pitch, here + part * {size}, {side * size}, whole, {stored}, 0,
                                min_i64({strip}, {side} - part), {lanes},
                            )
                        for part in range(0, rest, {strip}):
                            copy_lanes_{char}(
                                there + whole * pitch + part * {size}, pitch,
                                here + (whole * {side} + part) * {size}, 0, 1, {stored}, 0,
                                min_i64({strip}, rest - part), {lanes},
                            )
                        here += k_s2
                else:
                    for i in range(0, rows, {side}):
                        for part in range(0, min_i64({side}, rows - i), {strip}):
                            here = a_at + load_i64(row_table, i + part)
                            there = packed + div_i64(i, {side}) * pitch + part * {size}
                            have = min_i64({strip}, min_i64({side}, rows - i) - part)
                            if k_s2 == {size}:
                                for k in range(0, count, {lanes}):
                                    transpose_lanes_{char}(
                                        there + k * {line * size}, {line * size}, here + k * {size}, row_s2, have,
                                        min_i64({lanes}, count - k), {stored}, {lanes},
                                    )
                            else:
                                gather_lanes_{char}(
                                    there, {line * size}, here, k_s2, row_s2, count, {stored}, 0, have, {lanes}
                                )
                a_at = packed
            # Meanwhile come the lines that are packed next, in runs of neighbours.
            runs, fetched, met, coming, run_step, run_lines = 0, 0, 0, 0, 0, 0
            if packs and unit + 1 < last_unit:
                next_outer, next_part = div_i64(unit + 1, parts), mod_i64(unit + 1, parts)
                coming = a_batch + next_outer * a_outer + next_part * a_unit + load_i64(row_table, 0)
                more = min_i64(depth, inner - next_part * depth)
                if row_s2 == {size} and k_s2 != {size}:
                    runs, run_step, run_lines = more, k_s2, div_i64(rows * {size} + 126, 64)
                elif k_s2 == {size}:
                    runs, run_step, run_lines = rows, row_s2, div_i64(more * {size} + 126, 64)
            blocks = div_i64(columns + {width - 1}, {width}) * div_i64(rows + {rows - 1}, {rows})
            for j in range(0, columns, {width}):
                block_cols = min_i64({width}, columns - j)
                right, right_step = b_at, b_step
                if b_column:
                    right, right_step = panel, {width * size}
                if b_column == {size}:
                    later_step = b_step
                    copy_panel_{char}(
                        panel, {width * size}, b_at, b_step, count, block_cols, {tile.vectors}, {lanes}
                    )
                elif b_column:
                    for part in range(0, {width}, {lanes}):
                        for k in range(0, count, {lanes}):
                            transpose_lanes_{char}(
                                panel + k * {width * size} + part * {size}, {width * size},
                                b_at + part * b_column + k * {size}, b_column, block_cols - part,
                                min_i64({lanes}, count - k), {lanes}, {lanes},
                            )
                for i in range(0, rows, {rows}):
                    block_rows = min_i64({rows}, rows - i)
                    result_at = c_at + i * n + j
                    later = b_at + b_panel + div_i64(i, {rows}) * count * later_step
                    if b_column:
                        # The first block fetches all lines that are copied next.
                        later = b_at + b_panel
                        if i > 0:
                            later_step = 0
                    met += 1
                    while fetched * blocks < runs * met:
                        fetch_lines(coming + fetched * run_step, run_lines)
                        fetched += 1
                    if pitch:
                        # Its rows and k have steps known here, which saves instructions.
                        near = a_at + div_i64(near_row + i, {side}) * pitch + mod_i64(near_row + i, {side}) * {size}
{near}                    else:
{far}                b_at += b_panel
{epilogue_block}"""


# An epilogue finishes the task's part of the result, in long lines that are still in the cache.
_PLACE = """result, result_step, result_at, out_at, out_step = c, n, c_at, c_at, n
first_row, first_column, block_rows, block_cols = row, column, rows, columns
"""


def source(dtype: DType, tile: Block, fused: FusedEpilogue | None = None, first_slot: int = 42) -> str:
    """The product kernel's text, with an epilogue or without."""
    halves = tile == product_block(dtype)
    if fused is None:
        return _source(dtype.char, dtype.itemsize, tile, halves, "", "")
    call = indent([*_PLACE.splitlines(), *fused.block()], 8)
    return _source(dtype.char, dtype.itemsize, tile, halves, indent(fused.head(first_slot), 4), call)


def group_rows(tile: Block) -> int:
    """Rows that stand together in a packed block of the left operand: register blocks that a vector holds, or one."""
    return max(1, tile.lanes // tile.rows) * tile.rows


def group_line(tile: Block) -> int:
    """Elements from k to k there: the rows, or whole vectors.

    Stores under a mask are slow without AVX-512. One vector for all rows may reach into the next k, which is written
    after it.
    """
    rows = group_rows(tile)
    return rows if has_masked_memory() or rows <= tile.lanes else -(-rows // tile.lanes) * tile.lanes


def product(
    program: Program,
    m: int,
    n: int,
    batch: Sequence[int],
    reduction: Reduction,
    a: Left,
    b: Side,
    out: Operand,
    fused: FusedEpilogue | None = None,
    transposed: Operand | None = None,
    tile: Block | None = None,
    out_step: int = 0,
    few: Few = OVER_BATCH,
    even: bool = False,
) -> None:
    """Append out[batch, i, j] = sum over the reduction of a * b. few: which products are computed in pieces.

    even: whether tasks are rather smaller than such that threads have unequal numbers of them.
    transposed: working memory for [batch, i, j]; out is [batch, j, i] then, with `out_step` elements a row.
    The caller has called `program.wave()` if operands were packed.
    """
    dtype, size = out.dtype, out.dtype.itemsize
    tile = tile or block(dtype)
    units = reduction.units
    pieces = piece_count(m, n, math.prod(batch), units, few)
    matrices = math.prod(batch)
    whole = transposed._replace(shape=(matrices, m, n)) if transposed else out
    # Over a batch, what is in pieces where it is long is summed up where it is short, too: by the same kernels.
    summed = pieces > 1 or (few is OVER_BATCH and piece_count(m, n, matrices, few.units, few) > 1)
    c = program.scratch_operand(dtype, (pieces, matrices, m, n)) if summed else whole
    assert fused is None or c is out
    now = [estimate(x) for x in (m, n, pieces * matrices)]
    row_block, column_block = _task_shape(program, tile, now[0], now[1], now[2], even)
    tasks = pieces * matrices * -(-m // row_block) * -(-n // column_block)
    chunks = program.chunks(tasks, matrices * tile.work(m, n, reduction.outer * reduction.inner))
    deepest = min(reduction.depth, reduction.inner)
    # Where k are far apart, more than half a block of columns is enough.
    packed_columns = limits().packed_columns if a.ks.s2 == size else tile.width // 2 + 1
    packs = a.is_plain and column_block >= packed_columns and row_block >= tile.rows
    pitch = 8 * (row_block + tile.rows + deepest) + 64
    pitch += deepest * tile.width * size if b.column else 0
    groups = -(-row_block // group_rows(tile))
    pitch += groups * group_line(tile) * (deepest + 1) * size if packs else 0
    pitch = -(-pitch // 64) * 64
    table = program.scratch(chunks * pitch)
    args: list[Arg] = [m, n, row_block, column_block, *batch]
    args += [reduction.inner, reduction.depth, units, pieces]
    args += [a.operand.slot, *a.batch, a.outer, a.unit, *a.rows, *a.ks]
    args += [b.operand.slot, *b.batch, b.outer, b.unit, b.panel, b.step]
    args += [c.slot, matrices * m * n * size, table, pitch, int(packs), a.group, b.column]
    if fused is not None:
        args += fused.slots()
    program.launch(source(dtype, tile, fused), args, chunks)
    if summed:
        program.wave()
        sum_pieces(program, c, whole)
    if transposed:
        program.wave()
        transpose(program, whole, out, tile.lanes, out_step)


def piece_count(m: int, n: int, batch: int, units: int, few: Few = OF_ROWS) -> int:
    """In how many pieces the reduction is computed side by side: a function of sizes only."""
    blocks = batch * -(-m // 64) * -(-n // 64)
    return min(units // PIECE_UNITS, PIECES // blocks) if blocks < few.blocks and units >= few.units else 1


def columns_alone(x: TensorType, y: TensorType) -> bool:
    """Whether x @ y, y a matrix, has the same bits in a column whatever columns stand beside it."""
    if not x.dtype.is_float or x.shape[-2] == 1 or y.shape[-1] == 1:
        return False  # products with vectors have an order of their own
    depth = product_block(x.dtype).depth
    return piece_count(math.prod(x.shape[:-1]), y.shape[-1], 1, -(-y.shape[0] // depth)) == 1


def _task_shape(
    program: Program, tile: Block, m: int, n: int, others: int, even: bool = False
) -> tuple[int, int]:
    """Rows and columns of a task: enough tasks for all threads, operands that fit a second-level cache."""
    rows, columns = -(-m // tile.rows), -(-n // tile.width)
    high, wide = -(-m // limits().task_rows), -(-n // TASK_COLUMNS)
    threads = program.backend.num_threads()
    wanted = 2 * threads if threads > 1 else 1  # one thread would pack an operand for each of its tasks
    while others * high * wide < wanted:
        tall, broad = -(-rows // high) * tile.rows, -(-columns // wide) * tile.width
        if broad > tile.width and broad > tall:
            wide *= 2
        elif tall > 4 * tile.rows:
            high *= 2
        elif broad > tile.width:
            wide *= 2
        else:
            break
    high, wide = min(high, rows), min(wide, columns)
    chunks = 2 * wanted
    if even and threads > 1 and others * wide * high < 4 * chunks:
        each = chunks // math.gcd(chunks, others * wide)
        more = -(-high // each) * each
        high = more if rows >= EVEN_ROWS * more else high
    return -(-rows // high) * tile.rows, -(-columns // wide) * tile.width


def matmul(
    program: Program, inputs: Sequence[Any], outputs: Sequence[Operand], *, epilogue: Epilogue | None = None
) -> None:
    """Append out = a @ b. a: [..., M, K], b: [..., K, N] of any strides, out: [..., M, N], one rank."""
    out = outputs[0]
    a, b = (_converted(program, x, out.dtype) for x in inputs)
    in_place = -1
    if epilogue is not None:
        out, in_place = result_buffer(program, epilogue, out)
    k = a.shape[-1]
    if out.size == 0:
        return
    if k == 0:
        fill_zero(program, out)
    elif not a.dtype.is_float:
        integer_product(program, a, b, out)
    elif gemv.applies(a, b):
        gemv.gemv(program, a, b, out)
    else:
        fused = _float(program, a, b, out, epilogue, in_place)
        if fused:
            return
    if epilogue is not None:
        apply_after(program, epilogue, out)


def _converted(program: Program, x: Operand, dtype: DType) -> Operand:
    """x in the dtype of the result; axes that repeat the same memory are converted once."""
    if x.dtype is dtype:
        return x
    whole = tuple(1 if st == 0 else n for n, st in zip(x.shape, x.strides))
    with program.prepared(x):
        full = program.scratch_operand(dtype, whole)
        copy(program, x._replace(shape=whole), full)
    program.wave()
    strides = tuple(0 if st == 0 else new for st, new in zip(x.strides, full.strides))
    return full._replace(shape=x.shape, strides=strides)


def _collapse(a: Operand, b: Operand) -> tuple[Shape, int, int, Any]:
    """(batch shape, rows, row stride, batch strides of both); batch axes become rows where they can."""
    batch, m = list(a.shape[:-2]), a.shape[-2]
    a_strides, b_strides = list(a.strides[:-2]), list(b.strides[:-2])
    row = a.strides[-2] if m != 1 else 0
    while batch and (batch[-1] == 1 or b_strides[-1] == 0):
        if batch[-1] != 1:
            if m != 1 and a_strides[-1] != row * m:
                break
            row = a_strides[-1] if m == 1 else row
            m *= batch[-1]
        batch.pop()
        a_strides.pop()
        b_strides.pop()
    return tuple(batch), m, row, (a_strides, b_strides)


def _float(
    program: Program, a: Operand, b: Operand, out: Operand, epilogue: Epilogue | None, in_place: int
) -> bool:
    """Append the blocked product; returns whether the epilogue is in it."""
    dtype = out.dtype
    tile = product_block(dtype)
    k, n = a.shape[-1], b.shape[-1]
    shape, m, a_row, (a_strides, b_strides) = _collapse(a, b)
    sizes, (a_steps, b_steps) = batch_axes(shape, [a_strides, b_strides])
    if len(sizes) > 3:
        _outer_batches(program, a, b, out)
        return False
    depth = -(-k // -(-k // tile.depth))
    reduction = Reduction(1, k, depth)
    right = _right(program, b, m, sizes, b_steps, depth, tile)
    left = _left(program, a, m, a_row, sizes, a_steps, depth, tile)
    program.wave()
    fused = None
    if epilogue is not None and piece_count(m, n, math.prod(sizes), reduction.units) == 1:
        fused = fuse(epilogue, sizes, m, n, dtype, in_place)
    product(program, m, n, sizes, reduction, left, right, out, fused, tile=tile, few=OF_ROWS)
    return fused is not None


def _right(
    program: Program, b: Operand, m: int, sizes: list[int], steps: list[int], depth: int, tile: Block
) -> Side:
    """The right operand, packed into panels unless whole vectors of it can be read in place as fast."""
    size, (k, n), (k_stride, column) = b.dtype.itemsize, b.shape[-2:], b.strides[-2:]
    row = tile.width * size
    few = SPREAD_ROWS if k_stride * size % 1024 else IN_PLACE_ROWS
    near, small = m <= few, k * n * size <= IN_PLACE_BYTES
    own = estimate(m) <= limits().own_rows and column and 1 in (column, k_stride)
    in_place = column == 1 and n % tile.lanes == 0 and (near or small)
    if not program.steady(b) and (own or in_place):
        if not (in_place and small):
            program.provide(pack_source(b.dtype, tile.width, tile.lanes, tile.width))  # for more rows
        whole, step, taken = (
            depth * k_stride * size,
            tile.width * column * size,
            0 if in_place else column * size,
        )
        return Side(b, [s * size for s in steps], 0, whole, step, k_stride * size, taken)
    # A matrix shared by the whole batch is packed once.
    packed_sizes = [n if s else 1 for n, s in zip(sizes, steps)]
    with program.prepared(b):
        panels = pack(program, b, n, column, k, k_stride, packed_sizes, steps, tile.width, tile.lanes)
    return Side(
        panels, _steps(packed_sizes, math.prod(panels.shape[1:]) * size), 0, depth * row, k * row, row
    )


def _left(
    program: Program,
    a: Operand,
    m: int,
    row: int,
    sizes: list[int],
    steps: list[int],
    depth: int,
    tile: Block,
) -> Left:
    """The left operand, [m, k] with `row` between rows: packed beforehand where it stays the same."""
    size, k, k_step = a.dtype.itemsize, a.shape[-1], a.strides[-1] * a.dtype.itemsize
    if not program.steady(a) or m < tile.rows:
        return Left(a, [s * size for s in steps], 0, depth * k_step, _line(row * size), _line(k_step))
    packed_sizes, width = [n if s else 1 for n, s in zip(sizes, steps)], group_rows(tile)
    line = group_line(tile)
    with program.prepared(a):
        packed = pack(program, a, m, row, k, a.strides[-1], packed_sizes, steps, width, tile.lanes, line)
    step = line * size
    batch = _steps(packed_sizes, math.prod(packed.shape[1:]) * size)
    return Left(packed, batch, 0, depth * step, _line(0), _line(0), k * step)


def _line(step: int) -> Levels:
    return Levels(_ENDLESS, _ENDLESS, 0, 0, step)


def _steps(sizes: Sequence[int], matrix: int) -> list[int]:
    """Bytes by batch axis in packed panels; 0 along an axis that was packed once."""
    steps = contiguous_strides(tuple(sizes))
    return [s * matrix if n > 1 else 0 for n, s in zip(sizes, steps)]


def _outer_batches(program: Program, a: Operand, b: Operand, out: Operand) -> None:
    """More than three batch axes that do not merge: one product per index of the first."""
    size = out.dtype.itemsize
    for i in range(out.shape[0]):
        part = [
            Operand(x.source, x.offset + i * x.strides[0] * size, x.dtype, x.shape[1:], x.strides[1:])
            for x in (a, b, out)
        ]
        _float(program, part[0], part[1], part[2], None, -1)


KERNELS = {"matmul": matmul}
