"""Attention without its score matrix: blocks of queries against blocks of keys, softmax on the way.

Scores of `row_block` queries and `key_block` keys stand in scratch memory that stays in the second-level cache.
The products run on the register block of microkernel.py. Right operands are packed once into panels, or read in
place when their rows are dense and whole vectors; left operands are packed by block, or are the scores
themselves. Other memory than that is a row's sum and largest score. The value of a result depends on sizes
alone: key blocks are taken in order, and threads share out query blocks (forward) or ranges of keys (backward).
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from typing import Any, NamedTuple

from ...core.backend import Arg, Kernel, Operand, Program, float_bits
from ...core.lower import copy, fill
from ...core.types import DType, Shape
from .panels import IMPORT, Block, block, pack

#: A block of scores: queries in register blocks, and keys at most.
ROW_BLOCKS, KEYS = 6, 384
#: Rows of a register block where there are 32 registers; the left operand stands in one place, so it may be tall.
TALL = 12


class Rows(NamedTuple):
    """An operand [batch, head, row, column] for the products: bytes by batch, head, row and panel of columns."""

    operand: Operand
    batch: int
    head: int
    row: int
    panel: int

    @property
    def slots(self) -> list[Arg]:
        return [self.operand.slot, self.batch, self.head, self.row, self.panel]


def row_form(program: Program, x: Operand, tile: Block) -> Rows:
    """x [B, H, N, D] by rows: in place when they are dense and whole vectors, else packed in panels."""
    size, (batch, heads, n, d) = x.dtype.itemsize, x.shape
    sb, sh, row, column = x.strides
    width = tile.width * size
    if d % tile.lanes == 0 and (column == 1 and (row == d or n == 1)):
        return Rows(x, sb * size, sh * size, row * size, width)
    packed = pack(program, x, d, column, n, row, (1, batch, heads), (0, sb, sh), tile.width, tile.lanes)
    matrix = math.prod(packed.shape[1:]) * size
    return Rows(packed, heads * matrix, matrix, width, n * width)


def columns(program: Program, x: Operand, tile: Block) -> Operand:
    """x [B, H, N, D] as panels of its rows, [batch * head, panel, D, width]."""
    batch, heads, n, d = x.shape
    sb, sh, row, column = x.strides
    return pack(program, x, n, row, d, column, (1, batch, heads), (0, sb, sh), tile.width, tile.lanes)


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


def mask_lines(char: str, mask: str) -> str:
    """Lines that make row `i` of a block of scores, at `at`, ready for exponentials: masked, and low beyond `end`.

    They leave `whole`: the number of elements, in pairs of wide values, up to which the row is in order.
    """
    masked = "w_where_{c}(value, x, low)" if mask == "b1" else "w_add_{c}(x, value)"
    lines = f"""                mask_at = batch * mask_b + head * mask_h + (first + i) * mask_row + key
                for lane in range(0, end, 16):
                    inside = w_mask(end, lane)
                    value, x = w_load_{mask}(mask, mask_at + lane, inside), w_read_{char}(at, lane)
                    w_write_{char}(at, lane, {masked.format(c=char)})
"""
    return f"""{lines if mask else ""}                whole = div_i64(end + 31, 32) * 32
                for lane in range(div_i64(end, 16) * 16, whole, 16):
                    w_write_{char}(at, lane, w_where_{char}(w_mask(end, lane), w_read_{char}(at, lane), low))
"""


def pack_lines(char: str, size: int, tile: Block, name: str, source: str, depth: str) -> str:
    """Lines that pack block `i` of the rows from `first` on of a row-form operand: a left operand at `<name>_block`."""
    step = left_step(tile, size)
    return f"""                for j in range(0, {depth}, {tile.lanes}):
                    for part in range(0, {tile.rows}, {tile.lanes}):
                        transpose_lanes_{char}(
                            {name}_block + i * {depth} * {step} + j * {step} + part * {size}, {step},
                            {source} + (first + i * {tile.rows} + part) * {name}_row
                            + div_i64(j, {tile.width}) * {name}_panel + mod_i64(j, {tile.width}) * {size},
                            {name}_row, min_i64({tile.rows} - part, rows - i * {tile.rows} - part),
                            min_i64({tile.lanes}, {depth} - j), {tile.lanes}, {tile.lanes},
                        )
"""


def scale_lines(char: str, size: int, step: int) -> str:
    """Lines that scale block `i` of packed queries."""
    return f"""                for lane in range(i * e * {step // size}, (i + 1) * e * {step // size}, 16):
                    inside = w_mask((i + 1) * e * {step // size}, lane)
                    scaled = w_mul_{char}(w_load_{char}(q_block, lane, inside), scale)
                    w_store_{char}(q_block, lane, scaled, inside)
"""


def left_step(tile: Block, size: int) -> int:
    """Bytes from k to k in a packed left operand: whole vectors of rows."""
    return -(-tile.rows // tile.lanes) * tile.lanes * size


def pitch(tile: Block, size: int) -> int:
    """Bytes from row to row of a block of scores; no power of two, for the cache's sake."""
    return (KEYS + tile.lanes) * size


@functools.cache
def _forward_source(dtype: DType, tile: Block, mask: str) -> str:
    c, size, rows, width = dtype.char, dtype.itemsize, tile.rows, tile.width
    shape = f"{tile.rows}, {tile.vectors}, {tile.lanes}"
    step, line = left_step(tile, size), pitch(tile, size)
    queries = pack_lines(c, size, tile, "q", "q_at", "e") + scale_lines(c, size, step)
    slots = "    mask, mask_b, mask_h, mask_row = args[29], args[30], args[31], args[32]\n" if mask else ""
    return f"""# attention {c} in blocks of {rows} x {width}, mask {mask or "none"}
{IMPORT}
def kernel(args, chunk, nchunks):
    batches, heads, group, m, n, e, ev = args[0], args[1], args[2], args[3], args[4], args[5], args[6]
    row_blocks, key_block, causal, offset = args[7], args[8], args[9], args[10]
    row_block = row_blocks * {rows}
    scale = v_cast_f64_{c}(bits_f64(args[11]))
    q, q_b, q_h, q_row, q_panel = args[12], args[13], args[14], args[15], args[16]
    keys_at, k_matrix = args[17], args[18]
    v, v_b, v_h, v_row, v_panel = args[19], args[20], args[21], args[22], args[23]
    out, lse = args[24], args[25]
    scores = args[26] + chunk * row_block * {line}
    q_block = args[27] + chunk * row_blocks * e * {step}
    top_at = args[28] + chunk * row_block * {2 * size}
    sum_at = top_at + row_block * {size}
{slots}    low = {infinity(c)}
    zero = types.{dtype.name}(0)
    blocks = div_i64(m + row_block - 1, row_block)
    tasks = batches * heads * blocks
    for task in range(div_i64(tasks * chunk, nchunks), div_i64(tasks * (chunk + 1), nchunks)):
        matrix = div_i64(task, blocks)
        first = (blocks - 1 - mod_i64(task, blocks)) * row_block
        batch, head = div_i64(matrix, heads), mod_i64(matrix, heads)
        kv_head = div_i64(head, group)
        rows = min_i64(row_block, m - first)
        q_at = q + batch * q_b + head * q_h
        for i in range(div_i64(rows + {rows - 1}, {rows})):
{queries}        k_at = keys_at + (batch * div_i64(heads, group) + kv_head) * k_matrix
        v_at = v + batch * v_b + kv_head * v_h
        out_at = out + (matrix * m + first) * ev * {size}
        limit = n
        if causal:
            limit = max_i64(0, min_i64(n, first + rows + offset))
        for i in range(rows):
            store_{c}(top_at, i, low)
            store_{c}(sum_at, i, zero)
        key = 0
        while key < limit:
            keys = min_i64(key_block, limit - key)
            for j in range(0, keys, {width}):
                for i in range(0, rows, {rows}):
                    multiply_near_{c}(
                        e, q_block + div_i64(i, {rows}) * e * {step}, k_at + (key + j) * e * {size},
                        {width * size}, scores + i * {line} + j * {size}, {line}, min_i64({rows}, rows - i),
                        min_i64({width}, keys - j), 0, {size}, {step}, {shape},
                    )
            for i in range(rows):
                at = scores + i * {line}
                end = keys
                if causal:
                    end = max_i64(0, min_i64(keys, first + i + offset + 1 - key))
{mask_lines(c, mask)}                left = right = w_fill_{c}(low)
                for lane in range(0, whole, 32):
                    x, y = w_read_{c}(at, lane), w_read_{c}(at, lane + 16)
                    # A NaN is passed over here; it makes the row's sum a NaN.
                    left = w_where_{c}(w_lt_{c}(left, x), x, left)
                    right = w_where_{c}(w_lt_{c}(right, y), y, right)
                turns = w_turns_maximum_{c}(w_turns_maximum_{c}(w_turns_{c}(low), left, w_all()), right, w_all())
                old = load_{c}(top_at, i)
                top = v_maximum_{c}(old, w_total_maximum_{c}(turns))
                base = top
                if top == low:
                    base = zero
                total = w_fill_{c}(zero)
                for lane in range(0, whole, 16):
                    p = w_exp_{c}(w_sub_{c}(w_read_{c}(at, lane), base))
                    total = w_add_{c}(total, p)
                    w_write_{c}(at, lane, p)
                for lane in range(whole, keys, 16):
                    w_write_{c}(at, lane, w_fill_{c}(zero))
                added = w_total_add_{c}(w_turns_add_{c}(w_turns_{c}(zero), total, w_all()))
                factor = v_exp_{c}(old - base)
                store_{c}(top_at, i, top)
                store_{c}(sum_at, i, load_{c}(sum_at, i) * factor + added)
                if key > 0 and old != top:
                    here = out_at + i * ev * {size}
                    for lane in range(0, ev, 16):
                        inside = w_mask(ev, lane)
                        w_store_{c}(here, lane, w_mul_{c}(w_load_{c}(here, lane, inside), factor), inside)
            for j in range(0, ev, {width}):
                values = v_at + key * v_row + div_i64(j, {width}) * v_panel
                for i in range(0, rows, {rows}):
                    multiply_near_{c}(
                        keys, scores + i * {line}, values, v_row, out_at + (i * ev + j) * {size}, ev * {size},
                        min_i64({rows}, rows - i), min_i64({width}, ev - j), key, {line}, {size}, {shape},
                    )
            key += key_block
        for i in range(rows):
            added = load_{c}(sum_at, i)
            here = out_at + i * ev * {size}
            if added == zero:
                # No key is seen: the result is 0.
                store_{c}(lse, matrix * m + first + i, low)
                for lane in range(0, ev, 16):
                    w_store_{c}(here, lane, zero, w_mask(ev, lane))
            else:
                store_{c}(lse, matrix * m + first + i, load_{c}(top_at, i) + v_log_{c}(added))
                for lane in range(0, ev, 16):
                    inside = w_mask(ev, lane)
                    w_store_{c}(here, lane, w_div_{c}(w_load_{c}(here, lane, inside), added), inside)
"""


def tile_of(dtype: DType) -> Block:
    """The register block of attention."""
    tile = block(dtype)
    return tile._replace(rows=TALL) if tile.rows == 8 else tile


def blocks(tile: Block, m: int, n: int) -> tuple[int, int]:
    """Register blocks of queries, and keys, of a block of scores: functions of the sizes alone."""
    return min(-(-m // tile.rows), ROW_BLOCKS), min(-(-n // tile.width), KEYS // tile.width) * tile.width


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
    queries, values = row_form(program, q, tile), row_form(program, v, tile)
    keys = columns(program, k, tile)
    kind, mask_slots = mask_of(program, mask, (batch, heads, m, n))
    program.wave()
    tasks = batch * heads * -(-m // row_block)
    chunks = program.chunks(tasks, batch * heads * (tile.work(m, n, e) + tile.work(m, n, ev)))
    args: list[Arg] = [batch, heads, heads // k.shape[1], m, n, e, ev, row_blocks, key_block]
    args += [int(is_causal), offset, float_bits(scale), *queries.slots]
    args += [keys.slot, math.prod(keys.shape[1:]) * size, *values.slots, out.slot, lse.slot]
    args += [program.scratch(chunks * row_block * pitch(tile, size))]
    args += [program.scratch(chunks * row_blocks * e * left_step(tile, size))]
    args += [program.scratch(chunks * row_block * 2 * size), *mask_slots]
    program.launch(_forward_source(dtype, tile, kind), args, chunks)


KERNELS: dict[str, Kernel] = {"attention": attention}
