"""The gradients of attention, blockwise: probabilities come again from the scores and their rows' logarithms.

A task is a range of keys of one head of keys. For every block of keys it walks the queries: scores and their
slopes in scratch memory, then three products into the gradients. Those of keys and values belong to the
task; those of queries are kept by range and added up afterwards, in order.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

from ...core.backend import Arg, Kernel, Operand, Program, float_bits
from ...core.lower import copy, fill
from ...core.types import DType
from .attention import (
    areas,
    blocks,
    by_heads,
    clear_lines,
    dense_columns,
    group_lines,
    infinity,
    left_step,
    mask_lines,
    mask_of,
    pack_columns,
    pack_left,
    pack_rows,
    panel_bytes,
    pitch,
    rows_of,
    scale_lines,
    tile_of,
)  # fmt: skip
from .blocks import apart
from .epilogue import indent
from .panels import IMPORT, Block, sum_pieces

#: Keys are cut into ranges until there are TASKS tasks, but not more than PIECES: a range costs memory like q.
TASKS, PIECES = 16, 8


@functools.cache
def _source(dtype: DType, tile: Block, mask: str) -> str:
    c, size, rows, width = dtype.char, dtype.itemsize, tile.rows, tile.width
    shape = tile.rows, tile.vectors, tile.lanes
    step, line = left_step(tile, size), pitch(size)
    multiply = f"multiply_near_{c}"
    score = apart(multiply, size, step, *shape)
    turned, plain = apart(multiply, size, line, *shape), apart(multiply, line, size, *shape)
    slots = "    mask, mask_b, mask_h, mask_row = args[60], args[61], args[62], args[63]\n" if mask else ""

    def packed(function: Any, *names: str) -> str:
        return function(c, size, tile, *names)  # type: ignore[no-any-return]

    keys_ready = (
        packed(pack_columns, "k_columns", "k_at", "keys", "e")
        + packed(pack_columns, "v_columns", "v_at", "keys", "ev")
        + packed(pack_rows, "k_rows", "k_at", "keys", "e")
    )
    rows_ready = packed(pack_rows, "q_rows", "q_at", "rows", "e")
    rows_ready += packed(pack_rows, "g_rows", "g_at", "rows", "ev")
    lefts = packed(pack_left, "q_block", "q_at", "e") + scale_lines(c, size, step)
    lefts += packed(pack_left, "g_block", "g_at", "ev")
    rows_ready = indent(rows_ready.splitlines(), 4)
    rows_ready += indent([f"for i in range(div_i64(rows + {rows - 1}, {rows})):"], 16)
    rows_ready += indent(lefts.splitlines(), 8)
    cleared = indent(clear_lines(c, tile, line, ("scores", "slopes")).splitlines(), 8)
    return f"""# attention_grad {c} in blocks of {rows} x {width}, mask {mask or "none"}
{IMPORT}
def kernel(args, chunk, nchunks):
    batches, heads, group, m, n, e, ev = args[0], args[1], args[2], args[3], args[4], args[5], args[6]
    row_blocks, key_block, causal, offset = args[7], args[8], args[9], args[10]
    row_block = row_blocks * {rows}
    scale = v_cast_f64_{c}(bits_f64(args[11]))
    q, q_b, q_h, q_row = args[12], args[13], args[14], args[15]
    k, k_b, k_h, k_row = args[16], args[17], args[18], args[19]
    v, v_b, v_h, v_row = args[20], args[21], args[22], args[23]
    g, g_b, g_h, g_row = args[24], args[25], args[26], args[27]
    dq, dq_b, dq_h, dq_row = args[28], args[29], args[30], args[31]
    dk, dk_b, dk_h, dk_row = args[32], args[33], args[34], args[35]
    dv, dv_b, dv_h, dv_row = args[36], args[37], args[38], args[39]
    lse, delta, dq_piece, pieces = args[40], args[41], args[42], args[43]
    scores = args[44] + chunk * args[45]
    slopes = scores + row_block * {line}
    q_block, g_block = args[46] + chunk * args[47], args[48] + chunk * args[49]
    q_rows, g_rows = args[50] + chunk * args[51], args[52] + chunk * args[53]
    k_columns, v_columns = args[54] + chunk * args[55], args[56] + chunk * args[57]
    k_rows = args[58] + chunk * args[59]
{slots}    low = {infinity(c)}
    zero = types.{dtype.name}(0)
    kv_heads = div_i64(heads, group)
    key_blocks = div_i64(n + key_block - 1, key_block)
    tasks = batches * kv_heads * pieces
    for task in range(div_i64(tasks * chunk, nchunks), div_i64(tasks * (chunk + 1), nchunks)):
        piece, kv = mod_i64(task, pieces), div_i64(task, pieces)
        batch, kv_head = div_i64(kv, kv_heads), mod_i64(kv, kv_heads)
        first_block = div_i64(key_blocks * piece, pieces)
        for key_number in range(first_block, div_i64(key_blocks * (piece + 1), pieces)):
            key = key_number * key_block
            keys = min_i64(key_block, n - key)
            k_at = k + batch * k_b + kv_head * k_h + key * k_row
            v_at = v + batch * v_b + kv_head * v_h + key * v_row
{keys_ready}\
            dk_at = dk + batch * dk_b + kv_head * dk_h + key * dk_row
            dv_at = dv + batch * dv_b + kv_head * dv_h + key * dv_row
            started = 0
            for number in range(group * div_i64(m + row_block - 1, row_block)):
                head = kv_head * group + mod_i64(number, group)
                first = div_i64(number, group) * row_block
                rows = min_i64(row_block, m - first)
                matrix = batch * heads + head
                dq_at = dq + piece * dq_piece + batch * dq_b + head * dq_h + first * dq_row
                if causal and first + rows + offset <= key:
                    # These queries see none of these keys, nor any later ones.
                    if key_number == first_block:
                        for i in range(rows):
                            for lane in range(0, e, 16):
                                w_store_{c}(dq_at + i * dq_row, lane, zero, w_mask(e, lane))
                    continue
                q_at = q + batch * q_b + head * q_h + first * q_row
                g_at = g + batch * g_b + head * g_h + first * g_row
{rows_ready}{cleared}\
                for j in range(0, keys, {width}):
                    panel = j * {size}
                    for i in range(0, rows, {rows}):
                        if causal and first + i + {rows} + offset <= key + j:
                            continue
                        {score}(
                            e, q_block + div_i64(i, {rows}) * e * {step}, k_columns + panel * e,
                            {width * size}, scores + i * {line} + panel, {line},
                            min_i64({rows}, rows - i), min_i64({width}, keys - j), 0,
                        )
                    for i in range(0, rows, {rows}):
                        if causal and first + i + {rows} + offset <= key + j:
                            continue
                        {score}(
                            ev, g_block + div_i64(i, {rows}) * ev * {step}, v_columns + panel * ev,
                            {width * size}, slopes + i * {line} + panel, {line},
                            min_i64({rows}, rows - i), min_i64({width}, keys - j), 0,
                        )
                for group_row in range(0, rows, 16):
{indent(group_lines().splitlines(), 4)}\
                    for i in range(group_row, min_i64(group_row + 16, rows)):
                        at, slope_at = scores + i * {line}, slopes + i * {line}
                        base = load_{c}(lse, matrix * m + first + i)
                        mean = load_{c}(delta, (batch * m + first + i) * heads + head)
                        if base == low:
                            base = zero
{indent(mask_lines(c, mask).splitlines(), 4)}\
                        for lane in range(low_from, whole, 16):
                            # What no product wrote may be anything.
                            slope = w_where_{c}(w_mask(end, lane), w_read_{c}(slope_at, lane), zero)
                            w_write_{c}(slope_at, lane, slope)
                        for lane in range(0, whole, 16):
                            p = w_exp_{c}(w_sub_{c}(w_read_{c}(at, lane), base))
                            slope = w_mul_{c}(p, w_sub_{c}(w_read_{c}(slope_at, lane), mean))
                            w_write_{c}(at, lane, p)
                            w_write_{c}(slope_at, lane, w_mul_{c}(slope, scale))
                        # Beyond the keys too, as far as a block of them reads.
                        for lane in range(whole, keys + {rows - 1}, 16):
                            w_write_{c}(at, lane, w_fill_{c}(zero))
                            w_write_{c}(slope_at, lane, w_fill_{c}(zero))
                # Queries before `unseen` see none of the keys from i on.
                for j in range(0, ev, {width}):
                    for i in range(0, keys, {rows}):
                        unseen = 0
                        if causal:
                            unseen = max_i64(0, min_i64(rows, key + i - offset - first))
                        {turned}(
                            rows - unseen, scores + unseen * {line} + i * {size},
                            g_rows + (j * rows + unseen * {width}) * {size}, {width * size},
                            dv_at + i * dv_row + j * {size}, dv_row,
                            min_i64({rows}, keys - i), min_i64({width}, ev - j), started,
                        )
                for j in range(0, e, {width}):
                    for i in range(0, keys, {rows}):
                        unseen = 0
                        if causal:
                            unseen = max_i64(0, min_i64(rows, key + i - offset - first))
                        {turned}(
                            rows - unseen, slopes + unseen * {line} + i * {size},
                            q_rows + (j * rows + unseen * {width}) * {size}, {width * size},
                            dk_at + i * dk_row + j * {size}, dk_row,
                            min_i64({rows}, keys - i), min_i64({width}, e - j), started,
                        )
                    for i in range(0, rows, {rows}):
                        seen = keys
                        if causal:
                            seen = max_i64(0, min_i64(keys, first + min_i64(i + {rows}, rows) + offset - key))
                        {plain}(
                            seen, slopes + i * {line}, k_rows + j * keys * {size}, {width * size},
                            dq_at + i * dq_row + j * {size}, dq_row,
                            min_i64({rows}, rows - i), min_i64({width}, e - j), key_number - first_block,
                        )
                started = 1
            if started == 0:
                for i in range(keys):
                    for lane in range(0, e, 16):
                        w_store_{c}(dk_at + i * dk_row, lane, zero, w_mask(e, lane))
                    for lane in range(0, ev, 16):
                        w_store_{c}(dv_at + i * dv_row, lane, zero, w_mask(ev, lane))
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
    q, k, v, g = (dense_columns(program, x) for x in (q, k, v, by_heads(g)))
    kind, mask_slots = mask_of(program, mask, (batch, heads, m, n))
    lse, delta = _dense(program, lse), _dense(program, delta)
    pieces = max(1, min(-(-n // key_block), PIECES, TASKS // (batch * kv_heads)))
    parts = dq if pieces == 1 else program.scratch_operand(dtype, (pieces, *dq.shape))
    first = parts._replace(shape=dq.shape, strides=parts.strides[-4:])
    program.wave()
    work = batch * heads * (3 * tile.work(m, n, e) + 2 * tile.work(m, n, ev))
    chunks = program.chunks(batch * kv_heads * pieces, work)
    args: list[Arg] = [batch, heads, heads // kv_heads, m, n, e, ev, row_blocks, key_block]
    args += [int(is_causal), offset, float_bits(scale)]
    args += [slot for x in (q, k, v, g, *map(by_heads, (first, dk, dv))) for slot in rows_of(x)]
    args += [lse.slot, delta.slot, dq.size * size, pieces]
    args += areas(
        program, chunks,
        (2 * row_block * pitch(size), *(row_blocks * d * left_step(tile, size) for d in (e, ev)),
         *(panel_bytes(tile, d, row_block, size) for d in (e, ev)),
         *(panel_bytes(tile, key_block, d, size) for d in (e, ev)), panel_bytes(tile, e, key_block, size)),
    )  # fmt: skip
    program.launch(_source(dtype, tile, kind), args + mask_slots, chunks)
    if pieces > 1:
        program.wave()
        whole = dq if dq.is_contiguous else program.scratch_operand(dtype, dq.shape)
        sum_pieces(program, parts, whole)
        if whole is not dq:
            program.wave()
            copy(program, whole, dq)


def attention_grad_joined(
    program: Program, inputs: Sequence[Any], outputs: Sequence[Operand], **settings: Any
) -> None:
    """Append the gradients of q, k and v as parts [:, :, i] of one result."""
    (out,) = outputs
    (b, m, _, h, d), (s_b, s_m, s_part, s_h, s_d) = out.shape, out.strides
    step = s_part * out.dtype.itemsize
    parts = [
        out._replace(offset=out.offset + i * step, shape=(b, m, h, d), strides=(s_b, s_m, s_h, s_d))
        for i in range(3)
    ]
    attention_grad(program, inputs, parts, **settings)


KERNELS: dict[str, Kernel] = {
    "attention_grad": attention_grad,
    "attention_grad_joined": attention_grad_joined,
}
