"""Convolution whose sums are one chain of additions, on wide values: sums stay in registers until they are results.

A task packs the windows of sixteen pixels of a line, [k][16] with k = (channel, line, column of the window), and goes
through the filters, some rows at a time, which it reads where they stand. An epilogue finishes the sums in registers:
where chains are short, calls of blocks and a buffer of sums take a quarter of the time. For short registers. Windows
and steps are part of the source, sizes are not. Every result is the chain of additions that `conv.py` documents.
"""

from __future__ import annotations

import functools

from ...core.backend import Program
from ...core.types import DType, float32
from . import conv_pool
from .conv_axes import Product, Tasks, by_place, fewer_chunks, in_place
from .conv_text import HEAD, first_slots
from .epilogue import FusedEpilogue, indent
from .panels import vectors

#: elements of a wide value, as `wide.LANES`: its module needs Numba, which a process with all kernels at hand does not
LANES = 16
#: filters whose sums fill the registers, or do where more would leave a tenth over
_ROWS, _FEWER = 6, 4
#: lines and columns of windows, and their steps
_WINDOWS = {(1, 1): (1,), (3, 3): (1, 2)}
#: elements of a line of zeros: those before its first, and all
_BEFORE, _ZEROS = 8, 64
#: Cycles of a block beyond its multiplications, of packing sixteen elements by windows of one or more, and the part of
#: a task that a thread is waited for.
_BLOCK, _PACK, _HELD_UP = 60, (3, 6), 0.5


_HEAD = """# conv {char} in one chain, windows of {window} x {window} in steps of {step}
from duograd.backends.cpu.wide_pairs import *
from duograd.backends.cpu.microkernel import *
def kernel(args, chunk, nchunks):
{head}
    out, f, f_row, f_k, splits = args[36], args[37], args[38], args[39], args[40]
    panel = args[41] + chunk * args[42]
    zeros = panel + channels * {taps} * {line}
EPILOGUE_SLOTS
    for e in range({zeros}):
        store_{char}(zeros, e, types.{name}(0))
    zeros += {before} * {size}
    depth = channels * {taps}
    batch0, batch1, first_column, block_row = 0, 0, 0, 0
TASKS"""

_TASKS = """    columns = div_i64(q + 15, 16)
    places = images * p * columns
    for item in range(div_i64(splits * places * chunk, nchunks), div_i64(splits * places * (chunk + 1), nchunks)):
        part = div_i64(item, places)
        place = item - part * places
        last_row = min_i64(rows_all, (part + 1) * row_block)
        line, column = div_i64(place, columns), mod_i64(place, columns) * 16
        image = div_i64(line, p)
        line -= image * p
PIXELS8"""

# Two lines of 32 pixels, finished beside each other, which windows of 2 x 2 pool.
_POOLED = """    near = zeros + ({zeros} - {before}) * {size}
    columns = div_i64(q + 31, 32)
    places = images * div_i64(p, 2) * columns
    for item in range(div_i64(splits * places * chunk, nchunks), div_i64(splits * places * (chunk + 1), nchunks)):
        part = div_i64(item, places)
        place = item - part * places
        last_row = min_i64(rows_all, (part + 1) * row_block)
        pair, first = div_i64(place, columns), mod_i64(place, columns) * 32
        image = div_i64(pair, div_i64(p, 2))
        pair -= image * div_i64(p, 2)
        for quarter in range(4):
            line, column = pair * 2 + div_i64(quarter, 2), first + mod_i64(quarter, 2) * 16
            if column < q:
PIXELS16
        mask = w_mask(pool_columns, div_i64(first, 2))
        pool_at = image * pool_image + pair * pool_columns + div_i64(first, 2)
        for row in range(part * row_block, last_row):
            here = (row - part * row_block) * 64
POOL
"""

_PIXELS = """# The first pixel's place in its plane.
batch2, lane = image, line * out_line + column
mask = w_mask(q, column)
y, left = line * {step} + origin_y, column * {step} + origin_x
source = x + image * x_n + y * x_y + left * {size}
PACK
for row in range(part * row_block, last_row, {rows}):
    result = (image * rows_all + row) * out_plane + lane
ROWS
    at = 0
    for k in range(depth):
        v = w_read_{char}(panel, k * 16)
SUMS
        at += f_k
FINISH
"""


def applies(product: Product, depth: int) -> bool:
    """Whether windows, filters and registers are such. depth: channels of a chain of additions."""
    x, w, out, channels, filters, axes, groups = product
    front, y, z = axes
    single = y.taps == z.taps == 1
    return (
        vectors() == (256, 16) and out.dtype is float32 and channels == depth and groups == 1
        and front == front._replace(size=1, out=1, taps=1, origin=0)
        and y.step == z.step and y.step in _WINDOWS.get((y.taps, z.taps), ())
        and all(a.out_step == a.filter_step == 1 and a.out_origin == a.filter_origin == 0 for a in axes)
        and x.strides[4] == 1 and (in_place(axes) if single else y.tap_step == z.tap_step == 1)
        # Numbers of a filter have one step.
        and (single or (filters[1], w.strides[3]) == (y.taps * z.taps * w.strides[4], z.taps * w.strides[4]))
    )  # fmt: skip


def _pack(char: str, size: int, taps: int, step: int) -> list[str]:
    """Lines that pack a panel of windows."""
    if taps == 1:
        return [
            "for k in range(channels):",
            f"    w_write_{char}(panel, k * 16, w_pick_{char}(source + k * x_c, 0, mask))",
            "for k in range(channels):",
            "    prefetch(source + k * x_c + 64)",
        ]
    starts = [str(k) for k in range(taps)]
    if step == 2:
        starts = [str(k + half) for k in range(0, taps, 2) for half in (0, 16)]
    low, high = "w_mask(max_i64(0, -left - {0}), 0)", "w_mask(max_i64(0, w - left - {0}), 0)"
    text = [
        f"inside{k} = w_logical_and_b1({high.format(s)}, w_logical_not_b1({low.format(s)}))"
        for k, s in enumerate(starts)
    ]
    text += ["to = panel", "for e in range(channels):"]
    for ty in range(taps):
        text.append(f"    a = source + e * x_c + {ty} * x_y if 0 <= y + {ty} < h else zeros")
        # What the second next sixteen read comes meanwhile: the next are too near where the image is far.
        text += [
            f"    prefetch(a + {at})" for at in range(2 * LANES * size * step, 3 * LANES * size * step, 64)
        ]
        for tx in range(taps):
            at = f"w_write_{char}(to, {(ty * taps + tx) * 16}, "
            if step == 1:
                text.append(f"    {at}w_pick_{char}(a, {tx}, inside{tx}))")
            else:
                half, k = ("odd" if tx % 2 else "even"), tx // 2 * 2
                text.append(f"    u = w_pick_{char}(a, {k}, inside{k})")
                text.append(f"    {at}w_{half}_{char}(u, w_pick_{char}(a, {k + 16}, inside{k + 1})))")
    return [*text, f"    to += {taps * taps * 16 * size}"]


@functools.lru_cache(maxsize=256)
def _source(
    dtype: DType, taps: int, step: int, rows: int, head: str, row: tuple[str, ...], finish: tuple[str, ...],
    pool: tuple[str, ...],
) -> str:  # fmt: skip
    """The kernel. head, row, finish: an epilogue's lines for the kernel, for a channel and for the wide value x0; pool:
    lines that pool a channel's finished results."""
    char, size = dtype.char, dtype.itemsize
    begin = [f"f{i}_ = f + min_i64(row + {i}, rows_all - 1) * f_row" for i in range(rows)]
    begin += [f"s{i} = w_fill_{char}(types.{dtype.name}(0))" for i in range(rows)]
    sums, done = [], []
    for i in range(rows):
        sums.append(f"s{i} = w_fma_{char}(w_fill_{char}(load_{char}(f{i}_ + at, 0)), v, s{i})")
        # Else LLVM loads all rows' numbers first, out of registers.
        sums.append(f"w_made_{char}(s{i})")
        there = f"result + {i} * out_plane"
        line = [f"w_store_{char}(out, {there}, s{i}, mask)"]
        if finish:
            line = [
                f"first_row, there, x0 = row + {i}, (image * rows_all + row + {i}) * out_plane, s{i}",
                *row,
                *finish,
            ]
        done += [f"if row + {i} < last_row:", *("    " + text for text in line)]
    pixels = _PIXELS
    for word, lines, depth in (
        ("PACK", _pack(char, size, taps, step), 0), ("ROWS", begin, 4), ("SUMS", sums, 8), ("FINISH", done, 4),
    ):  # fmt: skip
        pixels = pixels.replace(f"{word}\n", indent(lines, depth))
    text = _HEAD.replace("TASKS", _POOLED if pool else _TASKS)
    text = text.replace("POOL\n", indent(pool, 12))
    for depth in (8, 16):
        text = text.replace(f"PIXELS{depth}", indent(pixels.splitlines(), depth).rstrip("\n"))
    text = text.format(
        char=char, name=dtype.name, size=size, taps=taps * taps, window=taps, step=step, rows=rows,
        zeros=_ZEROS, before=_BEFORE, line=LANES * size, head=HEAD,
    )  # fmt: skip
    return text.replace("EPILOGUE_SLOTS\n", head) + ("" if text.endswith("\n") else "\n")


def tasks(program: Program, product: Product, pools: bool = False) -> Tasks:
    """The split (rows: filters; columns: sixteen pixels), in cycles of a thread. pools: two lines of 32 at once."""
    _, _, out, channels, _, axes, _ = product
    _, y, z = axes
    rows, k = out.shape[1], channels * y.taps * z.taps
    places = out.shape[0] * y.out * -(-z.out // LANES)
    if pools:
        places = out.shape[0] * (y.out // 2) * -(-z.out // (2 * LANES))
    high = _rows(rows)
    threads = program.backend.num_threads()
    chunks = program.chunks(places, 2.0 * out.size * k)
    least = 1 if chunks == 1 else threads
    # Planes that threads do not share out by place are shared out by filters.
    splits = 1 if by_place(out) else min(least, -(-rows // high))
    block = -(-rows // (high * splits)) * high
    cycles = block // high * (high * k + _BLOCK) + k * _PACK[y.taps > 1]
    if pools:
        cycles *= 2 * min(2, -(-z.out // LANES))
    total = (-(-places * -(-rows // block) // least) + _HELD_UP * (least > 1)) * cycles + 2000
    return Tasks(block, LANES, chunks, total)


def _rows(filters: int) -> int:
    """The filters of a block."""
    return _ROWS if -(-filters // _ROWS) * _ROWS <= 1.1 * filters else _FEWER


_FIRST_SLOT = 43


def windowed(program: Program, product: Product, fused: FusedEpilogue | None, split: Tasks) -> None:
    """Append one launch. split: by `tasks`."""
    _, w, out, channels, filters, axes, _ = product
    _, y, z = axes
    size, taps, rows = out.dtype.itemsize, y.taps * z.taps, out.shape[1]
    pool = fused.pool if fused else None
    nbytes = (channels * taps * LANES + _ZEROS) * size
    if pool is not None:
        nbytes += 4 * split.rows * LANES * size
    chunks = fewer_chunks(program, split.chunks, nbytes)
    args = first_slots(product, rows, split.rows)
    args += [out.slot, w.slot, filters[0] * size, (filters[1] if taps == 1 else w.strides[4]) * size]
    args += [-(-rows // split.rows), program.scratch(chunks * nbytes), nbytes]
    end = FusedEpilogue.in_registers(fused, _FIRST_SLOT)
    merge: tuple[str, ...] = ()
    if pool is not None:
        char = out.dtype.char
        read = [f"w_read_{char}(near, here + {LANES * k})" for k in range(4)]
        merge = (*pool.merge(read), f"w_store_{char}(f0, pool_at + row * pool_plane, pool_value, mask)")
    source = _source(out.dtype, y.taps, y.step, _rows(rows), end.head, end.row, end.lines, merge)
    program.launch(conv_pool.source(source, pool), [*args, *end.slots], chunks)
