"""The gradients of attention, blockwise: probabilities come again from the scores and their rows' logarithms.

A task is a range of keys of one head of keys. For every block of keys it walks the queries: scores and their
slopes in scratch memory, then three products into the gradients. Those of keys and values belong to the
task; those of queries are kept by range and added up afterwards, in order.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from typing import Any

from ...core.backend import Arg, Kernel, Operand, Program, float_bits
from ...core.lower import copy, fill
from ...core.types import DType
from .attention import (
    blocks,
    columns,
    infinity,
    left_step,
    mask_lines,
    mask_of,
    pack_lines,
    pitch,
    row_form,
    scale_lines,
    tile_of,
)  # fmt: skip
from .epilogue import indent
from .panels import IMPORT, Block, sum_pieces

#: Keys are cut into ranges until there are TASKS tasks, but not more than PIECES: a range costs memory like q.
TASKS, PIECES = 16, 8


@functools.cache
def _source(dtype: DType, tile: Block, mask: str) -> str:
    c, size, rows, width = dtype.char, dtype.itemsize, tile.rows, tile.width
    shape = f"{tile.rows}, {tile.vectors}, {tile.lanes}"
    step, line = left_step(tile, size), pitch(tile, size)
    slots = "    mask, mask_b, mask_h, mask_row = args[41], args[42], args[43], args[44]\n" if mask else ""
    return f"""# attention_grad {c} in blocks of {rows} x {width}, mask {mask or "none"}
{IMPORT}
def kernel(args, chunk, nchunks):
    batches, heads, group, m, n, e, ev = args[0], args[1], args[2], args[3], args[4], args[5], args[6]
    row_blocks, key_block, causal, offset = args[7], args[8], args[9], args[10]
    row_block = row_blocks * {rows}
    scale = v_cast_f64_{c}(bits_f64(args[11]))
    q, q_b, q_h, q_row, q_panel = args[12], args[13], args[14], args[15], args[16]
    g, g_b, g_h, g_row, g_panel = args[17], args[18], args[19], args[20], args[21]
    k, k_b, k_h, k_row, k_panel = args[22], args[23], args[24], args[25], args[26]
    k_columns, k_matrix, v_columns, v_matrix = args[27], args[28], args[29], args[30]
    lse, delta = args[31], args[32]
    dq, dk, dv, dq_piece, pieces = args[33], args[34], args[35], args[36], args[37]
    scores = args[38] + chunk * 2 * row_block * {line}
    slopes = scores + row_block * {line}
    q_block = args[39] + chunk * row_blocks * e * {step}
    g_block = args[40] + chunk * row_blocks * ev * {step}
{slots}    low = {infinity(c)}
    zero = types.{dtype.name}(0)
    kv_heads = div_i64(heads, group)
    key_blocks = div_i64(n + key_block - 1, key_block)
    tasks = batches * kv_heads * pieces
    for task in range(div_i64(tasks * chunk, nchunks), div_i64(tasks * (chunk + 1), nchunks)):
        piece, kv = mod_i64(task, pieces), div_i64(task, pieces)
        batch, kv_head = div_i64(kv, kv_heads), mod_i64(kv, kv_heads)
        first_block = div_i64(key_blocks * piece, pieces)
        k_at = k + batch * k_b + kv_head * k_h
        for key_number in range(first_block, div_i64(key_blocks * (piece + 1), pieces)):
            key = key_number * key_block
            keys = min_i64(key_block, n - key)
            dk_at, dv_at = dk + (kv * n + key) * e * {size}, dv + (kv * n + key) * ev * {size}
            started = 0
            for number in range(group * div_i64(m + row_block - 1, row_block)):
                head = kv_head * group + mod_i64(number, group)
                first = div_i64(number, group) * row_block
                rows = min_i64(row_block, m - first)
                matrix = batch * heads + head
                dq_at = dq + piece * dq_piece + (matrix * m + first) * e * {size}
                if causal and first + rows + offset <= key:
                    # These queries see none of these keys, nor any later ones.
                    if key_number == first_block:
                        for lane in range(0, rows * e, 16):
                            w_store_{c}(dq_at, lane, zero, w_mask(rows * e, lane))
                    continue
                q_at, g_at = q + batch * q_b + head * q_h, g + batch * g_b + head * g_h
                for i in range(div_i64(rows + {rows - 1}, {rows})):
{indent(pack_lines(c, size, tile, "q", "q_at", "e").splitlines(), 4)}\
{indent(scale_lines(c, size, step).splitlines(), 4)}\
{indent(pack_lines(c, size, tile, "g", "g_at", "ev").splitlines(), 4)}\
                for j in range(0, keys, {width}):
                    panel = (key + j) * {size}
                    for i in range(0, rows, {rows}):
                        multiply_near_{c}(
                            e, q_block + div_i64(i, {rows}) * e * {step}, k_columns + kv * k_matrix + panel * e,
                            {width * size}, scores + i * {line} + j * {size}, {line},
                            min_i64({rows}, rows - i), min_i64({width}, keys - j), 0, {size}, {step}, {shape},
                        )
                    for i in range(0, rows, {rows}):
                        multiply_near_{c}(
                            ev, g_block + div_i64(i, {rows}) * ev * {step}, v_columns + kv * v_matrix + panel * ev,
                            {width * size}, slopes + i * {line} + j * {size}, {line},
                            min_i64({rows}, rows - i), min_i64({width}, keys - j), 0, {size}, {step}, {shape},
                        )
                for i in range(rows):
                    at, slope_at = scores + i * {line}, slopes + i * {line}
                    end = keys
                    if causal:
                        end = max_i64(0, min_i64(keys, first + i + offset + 1 - key))
                    base, mean = load_{c}(lse, matrix * m + first + i), load_{c}(delta, matrix * m + first + i)
                    if base == low:
                        base = zero
{indent(mask_lines(c, mask).splitlines(), 4)}\
                    for lane in range(0, whole, 16):
                        p = w_exp_{c}(w_sub_{c}(w_read_{c}(at, lane), base))
                        slope = w_mul_{c}(p, w_sub_{c}(w_read_{c}(slope_at, lane), mean))
                        w_write_{c}(at, lane, p)
                        w_write_{c}(slope_at, lane, w_mul_{c}(slope, scale))
                    for lane in range(whole, keys, 16):
                        w_write_{c}(at, lane, w_fill_{c}(zero))
                        w_write_{c}(slope_at, lane, w_fill_{c}(zero))
                for j in range(0, ev, {width}):
                    right = g_at + first * g_row + div_i64(j, {width}) * g_panel
                    for i in range(0, keys, {rows}):
                        multiply_near_{c}(
                            rows, scores + i * {size}, right, g_row, dv_at + (i * ev + j) * {size}, ev * {size},
                            min_i64({rows}, keys - i), min_i64({width}, ev - j), started, {size}, {line}, {shape},
                        )
                for j in range(0, e, {width}):
                    panel = div_i64(j, {width})
                    right = q_at + first * q_row + panel * q_panel
                    for i in range(0, keys, {rows}):
                        multiply_near_{c}(
                            rows, slopes + i * {size}, right, q_row, dk_at + (i * e + j) * {size}, e * {size},
                            min_i64({rows}, keys - i), min_i64({width}, e - j), started, {size}, {line}, {shape},
                        )
                    right = k_at + key * k_row + panel * k_panel
                    for i in range(0, rows, {rows}):
                        multiply_near_{c}(
                            keys, slopes + i * {line}, right, k_row, dq_at + (i * e + j) * {size}, e * {size},
                            min_i64({rows}, rows - i), min_i64({width}, e - j), key_number - first_block,
                            {line}, {size}, {shape},
                        )
                started = 1
            if started == 0:
                for lane in range(0, keys * e, 16):
                    w_store_{c}(dk_at, lane, zero, w_mask(keys * e, lane))
                for lane in range(0, keys * ev, 16):
                    w_store_{c}(dv_at, lane, zero, w_mask(keys * ev, lane))
"""


def _dense(program: Program, x: Operand) -> Operand:
    if x.is_contiguous:
        return x
    full = program.scratch_operand(x.dtype, x.shape)
    copy(program, x, full)
    return full


def attention_grad(
    program: Program,
    inputs: Sequence[Any],
    outputs: Sequence[Operand],
    *,
    is_causal: bool,
    scale: float,
    offset: int,
) -> None:
    """Append the gradients of q, k, v for g, that of the result; delta is what each row's slopes lose."""
    q, k, v, mask, g, lse, delta = inputs
    dq, dk, dv = outputs
    dtype, size = q.dtype, q.dtype.itemsize
    (batch, heads, m, e), (_, kv_heads, n, _), ev = q.shape, k.shape, v.shape[3]
    if 0 in (batch, heads, m, n, e, ev):
        for out in outputs:
            fill(program, 0, out)
        return
    tile = tile_of(dtype)
    row_blocks, key_block = blocks(tile, m, n)
    row_block = row_blocks * tile.rows
    q_rows, g_rows, k_rows = (row_form(program, x, tile) for x in (q, g, k))
    k_columns, v_columns = columns(program, k, tile), columns(program, v, tile)
    kind, mask_slots = mask_of(program, mask, (batch, heads, m, n))
    lse, delta = _dense(program, lse), _dense(program, delta)
    pieces = max(1, min(-(-n // key_block), PIECES, TASKS // (batch * kv_heads)))
    parts = dq if pieces == 1 else program.scratch_operand(dtype, (pieces, *dq.shape))
    program.wave()
    work = batch * heads * (3 * tile.work(m, n, e) + 2 * tile.work(m, n, ev))
    chunks = program.chunks(batch * kv_heads * pieces, work)
    args: list[Arg] = [batch, heads, heads // kv_heads, m, n, e, ev, row_blocks, key_block]
    args += [int(is_causal), offset, float_bits(scale), *q_rows.slots, *g_rows.slots, *k_rows.slots]
    args += [k_columns.slot, math.prod(k_columns.shape[1:]) * size]
    args += [v_columns.slot, math.prod(v_columns.shape[1:]) * size, lse.slot, delta.slot]
    args += [parts.slot, dk.slot, dv.slot, dq.size * size, pieces]
    args += [program.scratch(chunks * 2 * row_block * pitch(tile, size))]
    args += [program.scratch(chunks * row_blocks * d * left_step(tile, size)) for d in (e, ev)]
    args += mask_slots
    program.launch(_source(dtype, tile, kind), args, chunks)
    if pieces > 1:
        program.wave()
        sum_pieces(program, parts, dq)


KERNELS: dict[str, Kernel] = {"attention_grad": attention_grad}
