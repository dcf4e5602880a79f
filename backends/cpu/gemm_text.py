"""The text of the matrix product's kernel: tasks, packing of a left operand, register blocks, the epilogue."""

from __future__ import annotations

import functools
import textwrap

from ...core.types import DType
from .blocks import apart
from .epilogue import FusedEpilogue, indent
from .panels import IMPORT, Block, narrow, product_block, vectors
from .target import has_masked_memory

#: k in a turn of the loop over a packed left operand: fewer instructions, which matters where cores are shared.
TURN = 4
#: How a task takes a plain left operand: packed by itself, or read where it stands (where there is such a block).
PACKED, READ = 1, 2


def _moved(text: str, depth: int) -> str:
    """The same lines, the first of them `depth` spaces in."""
    return textwrap.indent(textwrap.dedent(text), " " * depth)


def _by_height(functions: list[str], arguments: str, heights: list[tuple[int, int]]) -> str:
    """Calls of the block that is high enough. A block takes as long for one row as for all of its own."""
    low, lines = heights[0][1], [f"{f}({arguments})" for f in functions]
    if len(lines) == 2:
        lines = [f"if block_rows <= {low}:", f"    {lines[0]}", "else:", f"    {lines[1]}"]
    return indent(lines, 24)


@functools.lru_cache(maxsize=512)
def _source(
    char: str,
    size: int,
    tile: Block,
    low: int,
    in_place: bool,
    epilogue_head: str,
    epilogue_block: str,
    read: tuple[str, int] | None,
    aside: bool,
) -> str:
    """The kernel. low: so many rows, or less, are done by a block of their own (0: by a whole one).

    in_place: whether rows may be read where they stand, without tables. read: what the left operand is (`reading`)
    where it is converted while it is packed, which it always is then. aside: the sums of a task stand in memory of its
    own, for an epilogue.
    """
    left, each = read or (char, size)
    rows, width, lanes = tile.rows, tile.width, tile.lanes
    shape = tile.rows, tile.vectors, tile.lanes
    side, line = group_rows(tile), group_line(tile)
    strip = min(side, lanes) if has_masked_memory() else lanes
    # Whole vectors are stored where what is beyond the rows is written over by the next k.
    stored = lanes if side == strip else strip
    heights = [(TURN // 2, low), (TURN, rows)] if low else [(TURN, rows)]
    c_row = "column_block" if aside else "n"
    result = f"c + piece * c_piece + result_at * {size}, {c_row} * {size}, block_rows, block_cols, "
    result += "unit - first_unit, later, later_step"
    near = _by_height(
        [apart(f"multiply_packed_{char}", turn, size, line * size, k, *shape[1:]) for turn, k in heights],
        f"count, near, right, right_step, {result}",
        heights,
    )
    high = heights[-1:] if in_place else heights  # few rows are read in place there, most of them
    far = _by_height(
        [apart(f"multiply_later_{char}", k, *shape[1:]) for _, k in high],
        f"count, a_at, row_table + 8 * i, k_table, right, right_step, {result}",
        high,
    )
    direct, pairs, lower, lowered = "", "", "", ""
    group = f"a_at + div_i64(near_row + i, {side}) * pitch + mod_i64(near_row + i, {side}) * {size}"
    if in_place:
        # Seven or eight rows that are left are two low blocks, and stand in two groups.
        pairs = f"    pairs = packs and k_s2 == {each}\n"
        lower = f"if pairs and {side} < rows - i <= {2 * low}:"
        lowered = f"                    {lower}\n                        block_rows = {low}\n"
        lower = f"                        {lower}\n                            taken = {low}\n"
        group = f"a_at + div_i64(near_row + i + {side - low}, {side}) * pitch"
        function = apart(f"multiply_rows_{char}", TURN, size, low, *shape)
        direct = f"""                if reads:
                    others, later = -1, b_at + b_panel
                    if b_column:
                        others = 0
                    result_at = c_at + j
                    {function}(
                        count, a_at + row * row_s2, row_s2, right, right_step, c + piece * c_piece + result_at * {size},
                        {c_row} * {size}, rows, block_cols, unit - first_unit, later, later_step, others,
                    )
                    i = rows
"""
    blocks = f"""                    if pitch:
                        # Its rows and k have steps known here, which saves instructions.
                        near = {group}
{near}                    else:
{far}"""
    turned = f"""                                for k in range(0, count, {lanes}):
                                    transpose_lanes_{left}(
                                        there + k * {line * size}, {line * size}, here + k * {each}, row_s2, have,
                                        min_i64({lanes}, count - k), {stored}, {lanes},
                                    )
"""
    if read:
        direct, blocks = "", f"                    near = {group}\n{_moved(near, 20)}"
    if each == 2:  # rows or k are neighbours
        turned = _moved(turned, 28)
    else:
        turned = f"""                            if k_s2 == {each}:
{turned}                            else:
                                gather_lanes_{left}(
                                    there, {line * size}, here, k_s2, row_s2, count, {stored}, 0, have, {lanes}
                                )
"""
    base, place = "", "c_at = batch * m * n + row * n + column"
    if aside:
        base, place = "    c += row_table\n", "out_at, c_at = batch * m * n + row * n + column, 0"
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
    row_table, way, group, b_column = args[37] + chunk * args[38], args[39], args[40], args[41]
{base}    packs, reads = way == {PACKED}, way == {READ}
{pairs}{epilogue_head}    # Offsets of k within a unit, the same for all units.
    k_table = row_table + 8 * (row_block + {rows})
    deepest = min_i64(depth, inner)
    if way == 0 and group == 0:
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
        if group == 0 and not reads and filled != row:
            # Missing rows of the last block repeat its last one.
            fill_offsets(row_table, row, rows, {rows - 1}, row_n1, row_n2, row_s0, row_s1, row_s2)
            filled = row

        # Blocks fetch parts of the next panel, which stands behind; what is read in place is near.
        later_step = 0
        if b_step == {width * size}:
            later_step = div_i64(b_step, div_i64(rows + {rows - 1}, {rows}))
        a_batch = a + batch0 * a0 + batch1 * a1 + batch2 * a2
        b_batch = b + batch0 * b0 + batch1 * b1 + batch2 * b2 + div_i64(column, {width}) * b_panel
        {place}
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
                if row_s2 == {each} and k_s2 != {each}:
                    # Whole lines of memory, one k after the other.
                    here = a_at + load_i64(row_table, 0)
                    whole, rest = div_i64(rows, {side}), mod_i64(rows, {side})
                    for k in range(count):
                        there = packed + k * {line * size}
                        for part in range(0, {side}, {strip}):
                            copy_lanes_{left}(
                                there + part * {size}, pitch, here + part * {each}, {side * each}, whole, {stored}, 0,
                                min_i64({strip}, {side} - part), {lanes},
                            )
                        for part in range(0, rest, {strip}):
                            copy_lanes_{left}(
                                there + whole * pitch + part * {size}, pitch,
                                here + (whole * {side} + part) * {each}, 0, 1, {stored}, 0,
                                min_i64({strip}, rest - part), {lanes},
                            )
                        here += k_s2
                else:
                    i, to_group = 0, packed
                    while i < rows:
                        taken = min_i64({side}, rows - i)
{lower}                        for part in range(0, taken, {strip}):
                            here = a_at + load_i64(row_table, i + part)
                            there = to_group + part * {size}
                            have = min_i64({strip}, taken - part)
{turned}                        i += taken
                        to_group += pitch
                a_at = packed
            # Meanwhile come the lines that are packed next, in runs of neighbours.
            runs, fetched, met, coming, run_step, run_lines = 0, 0, 0, 0, 0, 0
            if packs and unit + 1 < last_unit:
                next_outer, next_part = div_i64(unit + 1, parts), mod_i64(unit + 1, parts)
                coming = a_batch + next_outer * a_outer + next_part * a_unit + load_i64(row_table, 0)
                more = min_i64(depth, inner - next_part * depth)
                if row_s2 == {each} and k_s2 != {each}:
                    runs, run_step, run_lines = more, k_s2, div_i64(rows * {each} + 126, 64)
                elif k_s2 == {each}:
                    runs, run_step, run_lines = rows, row_s2, div_i64(more * {each} + 126, 64)
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
                i = 0
{direct}                while i < rows:
                    block_rows = min_i64({rows}, rows - i)
{lowered}                    result_at = c_at + i * {c_row} + j
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
{blocks}                    i += block_rows
                b_at += b_panel
{epilogue_block}"""


# An epilogue finishes the task's part of the result, in long lines that are still in the cache.
_PLACE = """result, result_step, result_at, out_at, out_step = c, n, c_at, c_at, n
first_row, first_column, block_rows, block_cols = row, column, rows, columns
"""
_PLACE_ASIDE = _PLACE.replace("c, n, c_at, c_at, n", "c, column_block, 0, out_at, n")


def source(
    dtype: DType,
    tile: Block,
    fused: FusedEpilogue | None = None,
    first_slot: int = 42,
    read: tuple[str, int] | None = None,
    aside: bool = False,
) -> str:
    """The product kernel's text, with an epilogue or without. read, aside: see `_source`."""
    low, in_place = low_rows(tile) if tile == product_block(dtype) else 0, reads_rows(tile)
    if read == (dtype.char, dtype.itemsize):
        read = None
    if fused is None:
        return _source(dtype.char, dtype.itemsize, tile, low, in_place, "", "", read, aside)
    place = _PLACE_ASIDE if aside else _PLACE
    head, call = indent(fused.head(first_slot), 4), indent([*place.splitlines(), *fused.block()], 8)
    return _source(dtype.char, dtype.itemsize, tile, low, in_place, head, call, read, aside)


def reads_rows(tile: Block) -> bool:
    """Whether tasks read a left operand whose k are neighbours where it stands: a loop as fast as over a packed one."""
    return tile == narrow(tile) and vectors() == (256, 16)


def low_rows(tile: Block) -> int:
    """Rows of a low block: half of them, or as many as two units with a latency of four need."""
    return max(tile.rows // 2, 8 // tile.vectors) if reads_rows(tile) else tile.rows // 2


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
