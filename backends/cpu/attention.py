"""Attention without its score matrix: blocks of queries against blocks of keys, softmax on the way.

Scores of `row_block` queries and `key_block` keys stand in scratch memory that stays in the second-level cache.
The products run on the register block of microkernel.py; their operands are packed into memory of the thread when
it comes to a head, so that heads may lie in any order: [batch, head, row, column] and [batch, row, head, column]
cost the same. Sixteen rows are reduced together, by turning a block of sixteen partial results. The value of a
result depends on sizes alone: key blocks are taken in order, and threads share out query blocks (forward) or
ranges of keys (backward).
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from typing import Any

from ...core.backend import Arg, Kernel, Operand, Program, float_bits
from ...core.lower import copy, fill
from ...core.types import DType, Shape
from .blocks import apart
from .panels import IMPORT, Block, block, narrow

#: A block of scores: queries at most, and keys.
TALL_QUERIES, QUERIES, KEYS = 72, 96, 384
#: Rows of a register block where there are 32 registers; the left operand stands in one place, so it may be tall.
TALL = 12


def dense_columns(program: Program, x: Operand) -> Operand:
    """x with neighbouring columns: copied only when they are apart."""
    if x.strides[-1] == 1 or x.shape[-1] == 1:
        return x
    full = program.scratch_operand(x.dtype, x.shape)
    copy(program, x, full)
    return full


def by_heads(x: Operand) -> Operand:
    """[batch, row, head, column] as [batch, head, row, column]."""
    (b, m, h, d), (sb, sm, sh, sd) = x.shape, x.strides
    return x._replace(shape=(b, h, m, d), strides=(sb, sh, sm, sd))


def rows_of(x: Operand) -> list[Arg]:
    """Slots of an operand [batch, head, row, column]: its address, then bytes between batches, heads and rows."""
    return [x.slot, *(s * x.dtype.itemsize for s in x.strides[:3])]


def panel_bytes(tile: Block, columns: int, depth: int, size: int) -> int:
    """Bytes of a right operand in panels."""
    return -(-columns // tile.width) * tile.width * depth * size


def areas(program: Program, chunks: int, sizes: Sequence[int]) -> list[Arg]:
    """Slots of working memory: for each size the address of the first chunk's area, and the bytes of one."""
    slots: list[Arg] = []
    for nbytes in sizes:
        step = -(-max(nbytes, 1) // 64) * 64
        slots += [program.scratch(chunks * step), step]
    return slots


def mask_of(program: Program, mask: Operand | None, whole: Shape) -> tuple[str, list[Arg]]:
    """The dtype of a mask ("" for none) and its slots: address, steps of batch, head and query; keys are dense."""
    if mask is None:
        return "", []
    sizes = (1,) * (4 - len(mask.shape)) + mask.shape
    strides = (0,) * (4 - len(mask.shape)) + mask.strides
    if strides[-1] != 1 or sizes[-1] != whole[-1]:
        full = program.scratch_operand(mask.dtype, (*sizes[:-1], whole[-1]))
        copy(program, mask._replace(shape=sizes, strides=strides), full)
        mask, strides = full, full.strides
    return mask.dtype.char, [mask.slot, *(0 if n == 1 else s for n, s in zip(sizes[:-1], strides))]


def infinity(char: str) -> str:
    return "bits_f32(types.int32(-8388608))" if char == "f32" else "bits_f64(-4503599627370496)"


def group_lines() -> str:
    """Lines for the 16 rows of a block of scores from row `group_row` on, before a loop over the rows.

    They leave `low_from`, from where on a row of them may have to be made low, and `whole`, up to where they are read.
    """
    return """                low_from = whole = keys
                if causal:
                    low_from = max_i64(0, min_i64(keys, first + group_row + offset + 1 - key))
                    whole = max_i64(0, min_i64(keys, first + min_i64(group_row + 16, rows) + offset - key))
                low_from, whole = div_i64(low_from, 16) * 16, div_i64(whole + 15, 16) * 16
"""


def mask_lines(char: str, mask: str) -> str:
    """Lines that make row `i` of a block of scores, at `at`, ready for exponentials: masked, and low beyond its end."""
    masked = "w_where_{c}(value, x, low)" if mask == "b1" else "w_add_{c}(x, value)"
    lines = f"""                    mask_at = batch * mask_b + head * mask_h + (first + i) * mask_row + key
                    for lane in range(0, end, 16):
                        inside = w_mask(end, lane)
                        value, x = w_load_{mask}(mask, mask_at + lane, inside), w_read_{char}(at, lane)
                        w_write_{char}(at, lane, {masked.format(c=char)})
"""
    return f"""                    end = keys
                    if causal:
                        end = max_i64(0, min_i64(keys, first + i + offset + 1 - key))
{lines if mask else ""}                    for lane in range(low_from, whole, 16):
                        w_write_{char}(at, lane, w_where_{char}(w_mask(end, lane), w_read_{char}(at, lane), low))
"""


def pack_columns(char: str, size: int, tile: Block, to: str, source: str, count: str, depth: str) -> str:
    """Lines that pack `count` rows of `depth` columns as a right operand: panels of rows, [panel, column, row]."""
    row, lanes = source.split("_at")[0] + "_row", tile.lanes
    return f"""            for j in range(0, {count}, {tile.width}):
                for part in range(j, j + {tile.width}, {lanes}):
                    for column in range(0, {depth}, {lanes}):
                        transpose_lanes_{char}(
                            {to} + (j * {depth} + column * {tile.width} + part - j) * {size}, {tile.width * size},
                            {source} + part * {row} + column * {size}, {row}, {count} - part,
                            min_i64({lanes}, {depth} - column), {lanes}, {lanes},
                        )
"""


def pack_rows(char: str, size: int, tile: Block, to: str, source: str, count: str, depth: str) -> str:
    """Lines that copy `count` rows of `depth` columns as a right operand: panels of columns, [panel, row, column]."""
    row, lanes = source.split("_at")[0] + "_row", tile.lanes
    return f"""            for j in range(0, {depth}, {tile.width}):
                for part in range(j, j + {tile.width}, {lanes}):
                    copy_lanes_{char}(
                        {to} + (j * {count} + part - j) * {size}, {tile.width * size}, {source} + part * {size}, {row},
                        {count}, {lanes}, 0, {depth} - part, {lanes},
                    )
"""


def pack_left(char: str, size: int, tile: Block, to: str, source: str, depth: str) -> str:
    """Lines that pack block `i` of `rows` rows of `depth` columns as a left operand: [column, row]."""
    step, row = left_step(tile, size), source.split("_at")[0] + "_row"
    return f"""            for j in range(0, {depth}, {tile.lanes}):
                for part in range(0, {tile.rows}, {tile.lanes}):
                    transpose_lanes_{char}(
                        {to} + i * {depth} * {step} + j * {step} + part * {size}, {step},
                        {source} + (i * {tile.rows} + part) * {row} + j * {size}, {row},
                        min_i64({tile.rows} - part, rows - i * {tile.rows} - part),
                        min_i64({tile.lanes}, {depth} - j), {tile.lanes}, {tile.lanes},
                    )
"""


def scale_lines(char: str, size: int, step: int) -> str:
    """Lines that scale block `i` of packed queries."""
    return f"""            for lane in range(i * e * {step // size}, (i + 1) * e * {step // size}, 16):
                inside = w_mask((i + 1) * e * {step // size}, lane)
                scaled = w_mul_{char}(w_load_{char}(q_block, lane, inside), scale)
                w_store_{char}(q_block, lane, scaled, inside)
"""


def clear_lines(char: str, tile: Block, line: int, areas: Sequence[str]) -> str:
    """Lines that clear the rows of score areas that the last register block has and `rows` has not.

    They are multiplied too, and old memory may hold denormals, which are a hundred times as slow.
    """
    stores = "".join(
        f"                w_write_{char}({name} + i * {line}, lane, w_fill_{char}(zero))\n" for name in areas
    )
    return f"""        for i in range(rows, div_i64(rows + {tile.rows - 1}, {tile.rows}) * {tile.rows}):
            for lane in range(0, key_block, 16):
{stores}"""


def left_step(tile: Block, size: int) -> int:
    """Bytes from k to k in a packed left operand: whole vectors of rows."""
    return -(-tile.rows // tile.lanes) * tile.lanes * size


def pitch(size: int) -> int:
    """Bytes from row to row of a block of scores: 16 elements beyond the keys, and no power of two for the cache."""
    return (KEYS + 16) * size


@functools.cache
def _forward_source(dtype: DType, tile: Block, mask: str) -> str:
    c, size, rows, width = dtype.char, dtype.itemsize, tile.rows, tile.width
    shape = tile.rows, tile.vectors, tile.lanes
    step, line = left_step(tile, size), pitch(size)
    score = apart(f"multiply_near_{c}", size, step, *shape)
    weigh = apart(f"multiply_near_{c}", line, size, *shape)
    turn = f"transpose_lanes_{c}(turned, {16 * size}, partial, {16 * size}, count, 16, 16, 16)"
    slots = "    mask, mask_b, mask_h, mask_row = args[41], args[42], args[43], args[44]\n" if mask else ""
    return f"""# attention {c} in blocks of {rows} x {width}, mask {mask or "none"}
{IMPORT}
def kernel(args, chunk, nchunks):
    batches, heads, group, m, n, e, ev = args[0], args[1], args[2], args[3], args[4], args[5], args[6]
    row_blocks, key_block, causal, offset = args[7], args[8], args[9], args[10]
    row_block, kv_heads = row_blocks * {rows}, div_i64(heads, group)
    scale = v_cast_f64_{c}(bits_f64(args[11]))
    q, q_b, q_h, q_row = args[12], args[13], args[14], args[15]
    k, k_b, k_h, k_row = args[16], args[17], args[18], args[19]
    v, v_b, v_h, v_row = args[20], args[21], args[22], args[23]
    out, out_b, out_h, out_row, lse = args[24], args[25], args[26], args[27], args[28]
    scores, q_block = args[29] + chunk * args[30], args[31] + chunk * args[32]
    k_columns, v_rows = args[33] + chunk * args[34], args[35] + chunk * args[36]
    # By row: the largest score, the sum, what to subtract from scores, the factor of what was summed before.
    top_at = args[37] + chunk * args[38]
    by_row = (row_block + 16) * {size}
    sum_at, base_at, factor_at = top_at + by_row, top_at + 2 * by_row, top_at + 3 * by_row
    partial = args[39] + chunk * args[40]
    turned = partial + {256 * size}
{slots}    low = {infinity(c)}
    zero = types.{dtype.name}(0)
    blocks = div_i64(m + row_block - 1, row_block)
    tasks = batches * heads * blocks
    packed = -1
    for task in range(div_i64(tasks * chunk, nchunks), div_i64(tasks * (chunk + 1), nchunks)):
        matrix = div_i64(task, blocks)
        first = (blocks - 1 - mod_i64(task, blocks)) * row_block
        batch, head = div_i64(matrix, heads), mod_i64(matrix, heads)
        kv_head = div_i64(head, group)
        rows = min_i64(row_block, m - first)
        if packed != batch * kv_heads + kv_head:
            packed = batch * kv_heads + kv_head
            k_at, v_at = k + batch * k_b + kv_head * k_h, v + batch * v_b + kv_head * v_h
{pack_columns(c, size, tile, "k_columns", "k_at", "n", "e")}{pack_rows(c, size, tile, "v_rows", "v_at", "n", "ev")}\
        q_at = q + batch * q_b + head * q_h + first * q_row
        for i in range(div_i64(rows + {rows - 1}, {rows})):
{pack_left(c, size, tile, "q_block", "q_at", "e")}{scale_lines(c, size, step)}\
        out_at = out + batch * out_b + head * out_h + first * out_row
        limit = n
        if causal:
            limit = max_i64(0, min_i64(n, first + rows + offset))
        for i in range(0, rows, 16):
            w_write_{c}(top_at, i, w_fill_{c}(low))
            w_write_{c}(sum_at, i, w_fill_{c}(zero))
{clear_lines(c, tile, line, ("scores",))}\
        key = 0
        while key < limit:
            keys = min_i64(key_block, limit - key)
            for j in range(0, keys, {width}):
                for i in range(0, rows, {rows}):
                    if causal and first + i + {rows} + offset <= key + j:
                        continue
                    {score}(
                        e, q_block + div_i64(i, {rows}) * e * {step}, k_columns + (key + j) * e * {size},
                        {width * size}, scores + i * {line} + j * {size}, {line}, min_i64({rows}, rows - i),
                        min_i64({width}, keys - j), 0,
                    )
            for group_row in range(0, rows, 16):
                count = min_i64(16, rows - group_row)
{group_lines()}                for i in range(group_row, group_row + count):
                    at = scores + i * {line}
{mask_lines(c, mask)}                    top = w_fill_{c}(low)
                    for lane in range(0, whole, 16):
                        x = w_read_{c}(at, lane)
                        # A NaN is passed over here; it makes the row's sum a NaN.
                        top = w_where_{c}(w_lt_{c}(top, x), x, top)
                    w_write_{c}(partial, (i - group_row) * 16, top)
                {turn}
                old = w_read_{c}(top_at, group_row)
                top = old
                for lane in range(0, 256, 16):
                    x = w_read_{c}(turned, lane)
                    top = w_where_{c}(w_lt_{c}(top, x), x, top)
                base = w_where_{c}(w_eq_{c}(top, low), zero, top)
                factor = w_exp_{c}(w_sub_{c}(old, base))
                w_write_{c}(top_at, group_row, top)
                w_write_{c}(base_at, group_row, base)
                w_write_{c}(factor_at, group_row, factor)
                for i in range(group_row, group_row + count):
                    at, base = scores + i * {line}, load_{c}(base_at, i)
                    total = w_fill_{c}(zero)
                    for lane in range(0, whole, 16):
                        p = w_exp_{c}(w_sub_{c}(w_read_{c}(at, lane), base))
                        total = w_add_{c}(total, p)
                        w_write_{c}(at, lane, p)
                    for lane in range(whole, keys, 16):
                        w_write_{c}(at, lane, w_fill_{c}(zero))
                    w_write_{c}(partial, (i - group_row) * 16, total)
                {turn}
                total = w_read_{c}(turned, 0)
                for lane in range(16, 256, 16):
                    total = w_add_{c}(total, w_read_{c}(turned, lane))
                total = w_add_{c}(w_mul_{c}(w_read_{c}(sum_at, group_row), factor), total)
                w_write_{c}(sum_at, group_row, total)
            if key > 0:
                for i in range(rows):
                    factor, here = load_{c}(factor_at, i), out_at + i * out_row
                    if factor != types.{dtype.name}(1):
                        for lane in range(0, ev, 16):
                            inside = w_mask(ev, lane)
                            w_store_{c}(here, lane, w_mul_{c}(w_load_{c}(here, lane, inside), factor), inside)
            for j in range(0, ev, {width}):
                for i in range(0, rows, {rows}):
                    seen = keys
                    if causal:
                        seen = max_i64(0, min_i64(keys, first + min_i64(i + {rows}, rows) + offset - key))
                    {weigh}(
                        seen, scores + i * {line}, v_rows + (j * n + key * {width}) * {size}, {width * size},
                        out_at + i * out_row + j * {size}, out_row, min_i64({rows}, rows - i),
                        min_i64({width}, ev - j), key,
                    )
            key += key_block
        for i in range(0, rows, 16):
            total = w_read_{c}(sum_at, i)
            sums = w_add_{c}(w_read_{c}(top_at, i), w_log_{c}(total))
            # A row that sees no key: the sum is 0 and the result too.
            sums = w_where_{c}(w_eq_{c}(total, zero), low, sums)
            w_store_{c}(lse, matrix * m + first + i, sums, w_mask(rows, i))
        for i in range(rows):
            total, here = load_{c}(sum_at, i), out_at + i * out_row
            if total == zero:
                for lane in range(0, ev, 16):
                    w_store_{c}(here, lane, zero, w_mask(ev, lane))
            else:
                for lane in range(0, ev, 16):
                    inside = w_mask(ev, lane)
                    w_store_{c}(here, lane, w_div_{c}(w_load_{c}(here, lane, inside), total), inside)
"""


def tile_of(dtype: DType) -> Block:
    """The register block of attention."""
    tile = narrow(block(dtype))
    return tile._replace(rows=TALL, vectors=2) if tile.rows == 8 else tile


def blocks(tile: Block, m: int, n: int) -> tuple[int, int]:
    """Register blocks of queries, and keys, of a block of scores: functions of the sizes alone."""
    queries = TALL_QUERIES if tile.rows == TALL else QUERIES
    return min(-(-m // tile.rows), queries // tile.rows), min(
        -(-n // tile.width), KEYS // tile.width
    ) * tile.width


def attention(
    program: Program,
    inputs: Sequence[Any],
    outputs: Sequence[Operand],
    *,
    is_causal: bool,
    scale: float,
    offset: int,
) -> None:
    """Append out = softmax(scale q k' + mask) v and lse, the logarithm of every row's sum."""
    q, k, v, mask = inputs
    out, lse = outputs
    dtype, size = q.dtype, q.dtype.itemsize
    (batch, heads, m, e), n, ev = q.shape, k.shape[2], v.shape[3]
    if lse.size == 0:
        return
    if n == 0:
        fill(program, 0, out)
        fill(program, -math.inf, lse)
        return
    tile = tile_of(dtype)
    row_blocks, key_block = blocks(tile, m, n)
    row_block = row_blocks * tile.rows
    q, k, v = (dense_columns(program, x) for x in (q, k, v))
    kind, mask_slots = mask_of(program, mask, (batch, heads, m, n))
    program.wave()
    tasks = batch * heads * -(-m // row_block)
    chunks = program.chunks(tasks, batch * heads * (tile.work(m, n, e) + tile.work(m, n, ev)))
    args: list[Arg] = [batch, heads, heads // k.shape[1], m, n, e, ev, row_blocks, key_block]
    args += [
        int(is_causal),
        offset,
        float_bits(scale),
        *rows_of(q),
        *rows_of(k),
        *rows_of(v),
        *rows_of(by_heads(out)),
        lse.slot,
    ]
    args += areas(
        program, chunks,
        (row_block * pitch(size), row_blocks * e * left_step(tile, size), panel_bytes(tile, n, e, size),
         panel_bytes(tile, ev, n, size), 4 * (row_block + 16) * size, 512 * size),
    )  # fmt: skip
    program.launch(_forward_source(dtype, tile, kind), args + mask_slots, chunks)


KERNELS: dict[str, Kernel] = {"attention": attention}
