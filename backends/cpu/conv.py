"""Convolution as implicit matrix products: panels of image windows are packed where they are multiplied.

Where it is faster by a cost model, `conv_pixels.py` computes the same chains of additions from packed filters.

Forward and image gradient are one kernel, out[k, pixel] = sum over (c, tap) of w[k, c, tap] * window[c, tap,
pixel]: the gradient convolves g with the filters turned round, once for every phase of the stride, so that no
product with an inserted zero is computed. A block's columns are consecutive pixels of the whole batch. As
for matrices, no value depends on blocks, chunks or the size of the batch.

All kernels see three spatial axes; one or two are seen with axes of size 1 before them. The sum runs over the
taps of the first axis, then blocks of channels, then lines and columns of the window.
"""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Sequence
from typing import Any

from ...core.adapt import widened
from ...core.backend import Epilogue, Operand, Program, takes_casts
from ...core.numbers import estimate
from ...core.scalar import walk
from ...core.types import DType
from . import conv_direct, conv_pixels, conv_pool, conv_pool_rules, conv_wide, conv_winograd, pooling
from .blocks import apart
from .conv_axes import (
    Pair,
    Product,
    Row,
    Tasks,
    by_place,
    chain,
    fewer_chunks,
    flat,
    in_place,
    lift,
    lift_window,
    phases,
    product_of,
    whole_units,
)
from .conv_pack import pack_filters
from .conv_text import HEAD, first_slots, run_lines
from .epilogue import FusedEpilogue, apply_after, fuse, halved, indent, result_buffer
from .panels import IMPORT, Block, block, fill_zero
from .target import has_masked_memory

#: The panels of a task: how many at most, and their bytes, which should stay in the second-level cache.
_PANELS, _PANEL_BYTES = 16, 1 << 19
#: So many rows of filters read neighbouring pixels in place: packing them would take longer.
_ROWS_IN_PLACE = 256
#: Bytes of a way of the first-level cache and how many ways there are, at least.
_WAY, _WAYS = 4096, 8
#: Filters of so many bytes come from farther than the second-level cache.
_FAR_BYTES = 4 << 20
#: Filters of so many bytes may be read by all threads.
_SMALL_BYTES = 1 << 19
#: Cycles of a register block's step over those that its multiplications take, from packed windows and in place: those
#: of whole vectors packed line by line stand in the first-level cache.
_MULTIPLY, _MULTIPLY_IN_PLACE, _MULTIPLY_LINES = 1.35, 1.1, 1.0
#: Cycles of a block's call there.
_CALL_LINES = 50
#: Cycles of packing a vector of windows; without masks, and of what each channel adds to that.
_PACK, _PACK_LINES, _TOUCH = 2, 6, 20
#: The part of a task that the last thread is waited for, on average.
_HELD_UP = 0.5
#: Batches of so many images decide what is packed, by the product of their times: eight alone would leave an eighth of
#: the blocks of one image of 14 x 14 empty.
_IMAGES = 1, 8


# Pack the windows of all panels: for every run, all channels, every tap; or, where masks are dear, for every panel all
# channels, every tap, the runs of its line in whole vectors.
_RUN_BY_RUN = """
for run in range(runs):
    to, here = panels + load_i64(run_table, 3 * run), source + load_i64(run_table, 3 * run + 1)
    length, table = load_i64(run_table, 3 * run + 2), tap_tables + 16 * taps * run
    if single:
        copy_windows_T(to, ROW, here, x_c, count, length, table, taps, LANES)
    elif double:
        halve_windows_T(to, ROW, here, x_c, count, length, table, taps, LANES)
    else:
        gather_windows_T(to, ROW, here, x_c, step_x * x_x, count, length, table, taps, LANES)
"""
_LINE_BY_LINE = """
run = 0
for at in range(0, strip_columns, WIDTH):
    if load_i64(panel_table, div_i64(at, WIDTH) * 2) == 0:
        more, table = load_i64(panel_table, div_i64(at, WIDTH) * 2 + 1), tap_tables + 16 * taps * run
        if single:
            line_windows_T(panels, ROW, source, x_c, count, more, run_table + 24 * run, table, taps, LANES)
        elif double:
            halve_line_windows_T(panels, ROW, source, x_c, count, more, run_table + 24 * run, table, taps, LANES)
        else:
            for k in range(run, run + more):
                to, here = panels + load_i64(run_table, 3 * k), source + load_i64(run_table, 3 * k + 1)
                gather_windows_T(
                    to, ROW, here, x_c, step_x * x_x, count, load_i64(run_table, 3 * k + 2),
                    tap_tables + 16 * taps * k, taps, LANES,
                )
        run += more
"""


@functools.lru_cache(maxsize=512)
def _source(
    dtype: DType, tile: Block, head: str, finish: str, finishes: str, ahead: bool, later: bool, masks: bool,
    pools: bool,
) -> str:  # fmt: skip
    """The kernel. ahead: filters are fetched ahead; later: pixels of the next panel; masks: are they fast? pools: what
    is summed up is pooled."""
    char, size = dtype.char, dtype.itemsize
    rows, width, lanes = tile.rows, tile.width, tile.lanes
    row = width * size
    name = "multiply_later" if later else "multiply_ahead" if ahead else "multiply"
    multiply = apart(f"{name}_{char}", tile.rows, tile.vectors, tile.lanes)
    later_panel = "later, later_step," if later else ""
    windows = (_RUN_BY_RUN if masks else _LINE_BY_LINE).replace("_T(", f"_{char}(")
    for word, value in (("ROW", row), ("WIDTH", width), ("LANES", lanes)):
        windows = windows.replace(word, str(value))
    windows = indent(windows.strip().splitlines(), 16)
    return f"""# conv {char} in blocks of {rows} x {width}
{IMPORT}
def kernel(args, chunk, nchunks):
{HEAD}
    f, f_row, f_c, f_z, f_y, f_x, f_group = args[36], args[37], args[38], args[39], args[40], args[41], args[42]
    c, depth, strip, pitch, stays, in_places = args[43], args[44], args[45], args[48], args[49], args[50]
    scratch = args[46] + chunk * args[47]
{head}    taps = taps_y * taps_x
    row_table = scratch
    k_table = row_table + 8 * (row_block + {rows})
    panel_bytes = depth * taps * {row}
    panels = k_table + (8 * depth * taps + 63) // 64 * 64
    most_panels = div_i64(strip + {width - 1}, {width})
    sums = panels + most_panels * panel_bytes + 64
    run_table = sums + row_block * pitch * {size}
    panel_table = run_table + 24 * strip
    tap_tables = panel_table + 16 * most_panels
    # Filter offsets by (channel, tap) of one block of channels.
    fill_offsets(k_table, 0, depth * taps, 0, taps_y, taps_x, f_c, f_y, f_x)
    dense = out_z * out_y * out_x == 1
    area = p * q
    pixels = o * area
    total = images * pixels
    parts = div_i64(channels + depth - 1, depth)
    strips = div_i64(total + strip - 1, strip)
    row_tasks = div_i64(rows_all + row_block - 1, row_block)
    tasks = groups * row_tasks * strips
    # Lines whose elements stand one after the other, or in pairs of which one is wanted.
    single = step_x * x_x == {size}
    double = step_x == 2 and x_x == {size}
    for task in range(div_i64(tasks * chunk, nchunks), div_i64(tasks * (chunk + 1), nchunks)):
        if in_places != 0:
            place = div_i64(task, groups * row_tasks)
            rest = task - place * groups * row_tasks
        else:
            rest = div_i64(task, strips)
            place = task - rest * strips
        first = place * strip
        group = div_i64(rest, row_tasks)
        row0 = (rest - group * row_tasks) * row_block
        rows = min_i64(row_block, rows_all - row0)
        strip_columns = min_i64(strip, total - first)
        fill_offsets(row_table, 0, rows, {rows - 1}, 1, 1, f_row, 0, 0)
        image0, pixel0 = div_i64(first, pixels), mod_i64(first, pixels)
        # A strip inside one image is summed up in its place, any other in a buffer.
        inside = {"False" if pools else "pixel0 + strip_columns <= pixels and dense"}
        if inside:
            result, result_step = c, out_plane
            result0 = (image0 * groups * rows_all + group * rows_all + row0) * out_plane + pixel0
        else:
            result, result_step, result0 = sums, pitch, 0
        # Columns of the last panel that stand for no pixel are multiplied too: old memory may hold denormals, which
        # are a hundred times as slow.
        if mod_i64(strip_columns, {width}) != 0:
            last = panels + div_i64(strip_columns, {width}) * panel_bytes
            for i in range(div_i64(panel_bytes, 8)):
                store_i64(last, i, 0)
        for tz in range(taps_z):
            # Runs of pixels in one line: where they go, where they come from, and what each tap reads.
            image, front = image0, div_i64(pixel0, area)
            line, column = div_i64(mod_i64(pixel0, area), q), mod_i64(pixel0, q)
            runs, done = 0, 0
            while done < strip_columns:
                at, left = mod_i64(done, {width}), min_i64(strip_columns - done, q - column)
                z = front * step_z + tz * tap_z + origin_z
                if at == 0:
                    store_i64(panel_table, div_i64(done, {width}) * 2, 0)
                    store_i64(panel_table, div_i64(done, {width}) * 2 + 1, 0)
                if at == 0 and stays != 0 and left >= {width}:
                    # Neighbours that a panel would hold as they stand: they are read there.
                    length = {width}
                    here = image * x_n + z * x_z + (line * step_y + origin_y) * x_y + (column + origin_x) * x_x
                    store_i64(panel_table, div_i64(done, {width}) * 2, 1)
                    store_i64(panel_table, div_i64(done, {width}) * 2 + 1, here)
                else:
                    length = min_i64(min_i64({lanes}, {width} - at), left)
                    store_i64(run_table, 3 * runs, div_i64(done, {width}) * panel_bytes + at * {size})
                    store_i64(run_table, 3 * runs + 1, image * x_n + z * x_z)
                    store_i64(run_table, 3 * runs + 2, length)
                    fill_windows(
                        tap_tables + 16 * taps * runs, taps_y, taps_x, line * step_y + origin_y,
                        column * step_x + origin_x, tap_y, tap_x, h if 0 <= z < d else 0, w, step_x, x_y, x_x, length,
                    )
                    if double:
                        spread_masks(tap_tables + 16 * taps * runs, taps)
                    runs += 1
                    in_panel = load_i64(panel_table, div_i64(done, {width}) * 2 + 1) + 1
                    store_i64(panel_table, div_i64(done, {width}) * 2 + 1, in_panel)
                done += length
                column += length
                if column == q:
                    column = 0
                    line += 1
                    if line == p:
                        line = 0
                        front += 1
                        if front == o:
                            front = 0
                            image += 1
            for part in range(parts):
                channel = part * depth
                count = min_i64(depth, channels - channel)
                source = x + (group * channels + channel) * x_c
{windows}                filters = f + group * f_group + row0 * f_row + channel * f_c + tz * f_z
                panel = panels
                for at in range(0, strip_columns, {width}):
                    near, near_step, later, later_step = panel, {row}, panel, 0
                    if load_i64(panel_table, div_i64(at, {width}) * 2) != 0:
                        near, near_step = source + load_i64(panel_table, div_i64(at, {width}) * 2 + 1), x_c
                        later_step = x_c
                    for i in range(0, rows, {rows}):
                        # Each line of the next panel comes with one block.
                        if later_step != 0:
                            later = near + {row} + i * {64 // rows} if i < {rows * (row // 64 + 1)} else near
                        {multiply}(
                            count * taps, filters, row_table + 8 * i, k_table, near, near_step,
                            result + (result0 + at + i * result_step) * {size}, result_step * {size},
                            min_i64({rows}, rows - i), min_i64({width}, strip_columns - at), tz + part,
                            {later_panel}
                        )
                    panel += panel_bytes
        if {finishes}:
{finish}"""


_FIRST_SLOT = 51

# What becomes of a run of results: it is copied from the buffer, or an epilogue finishes it.
_COPY = """for j in range(0, block_cols, {lanes}):
    copy_lanes_{char}(
        c + (out_at + j) * {size}, out_step * {size}, result + (result_at + j) * {size}, result_step * {size},
        block_rows, min_i64({lanes}, block_cols - j), 0, {lanes}, {lanes},
    )
"""
_PLACE = """batch0, batch1, batch2 = 0, 0, image
first_row, first_column = group * rows_all + row0, pixel
"""


def _shared(program: Program, product: Product, fused: FusedEpilogue | None) -> None:
    """Append a windowed product whose sources serve many filters. All ways but Winograd's give the same bits."""
    if conv_winograd.applies(product):
        conv_winograd.windowed(program, product, fused)
        return
    product = flat(product)
    depth = chain(product)
    pool = fused.pool if fused is not None else None
    unit = pool.unit if pool else 1
    way = _way(program, product, depth, pool)
    if way == "wide":
        conv_wide.windowed(program, product, fused, conv_wide.tasks(program, product, pool is not None))
        return
    if way == "windows":
        _windowed(program, product, fused, depth, _tasks(program, product, depth, unit))
        return
    packed = None
    if way == "filters":
        with program.prepared(product.w):
            packed = pack_filters(program, product, conv_pixels.pixel_block(product.out.dtype))
        program.wave()
    split = conv_pixels.tasks(program, product, depth, packed is None, unit)
    conv_pixels.windowed(program, product, fused, packed, depth, split)


def _way(program: Program, product: Product, depth: int, pool: conv_pool.Pool | None = None) -> str:
    """What is packed: windows, filters, or filters by tasks for themselves; or all sums are kept on wide values.

    Every batch has the same kernels.
    """
    unit = pool.unit if pool else 1
    x, _, out, *_ = product
    cycles = {"windows": 1.0, "filters": 1.0, "tasks": 1.0}
    # A plane that is seen as one line has no lines to pool.
    if (pool is None or (pool.pairs and product.axes[1].taps > 1)) and conv_wide.applies(product, depth):
        cycles["wide"] = 1.0
    for n in _IMAGES:
        some = product._replace(
            x=x._replace(shape=(n, *x.shape[1:])), out=out._replace(shape=(n, *out.shape[1:]))
        )
        cycles["windows"] *= _tasks(program, some, depth, unit).cycles
        packing = conv_pixels.pack_cycles(program, some)
        cycles["filters"] *= conv_pixels.tasks(program, some, depth, False, unit).cycles + packing
        cycles["tasks"] *= conv_pixels.tasks(program, some, depth, True, unit).cycles
        if "wide" in cycles:
            cycles["wide"] *= conv_wide.tasks(program, some, pool is not None).cycles
    return min(cycles, key=cycles.__getitem__)


def _windowed(
    program: Program, product: Product, fused: FusedEpilogue | None, depth: int, split: Tasks
) -> None:
    """Append one launch of the windowed product. depth: channels of a chain of additions."""
    _, w, out, channels, filters, axes, groups = product
    dtype, size = out.dtype, out.dtype.itemsize
    tile = block(dtype)
    rows = out.shape[1] // groups
    _, y, z = axes
    taps = y.taps * z.taps
    # Filters that no second-level cache holds are fetched ahead.
    ahead = rows * channels * axes[0].taps * taps * size >= _FAR_BYTES
    if fused is None:
        lines = _COPY.format(char=dtype.char, size=size, lanes=tile.lanes).splitlines()
        head, finishes = "", "not inside"
    else:
        lines = [*_PLACE.splitlines(), *fused.block()]
        head, finishes = indent(fused.head(_FIRST_SLOT), 4), "True"
    finish = run_lines(dtype.char, "row0", "block_rows, result_at = rows, result0 + done", lines)
    later = not ahead and y.taps == z.taps == z.step == 1
    pool = fused.pool if fused else None
    masks = has_masked_memory()
    source = _source(dtype, tile, head, finish, finishes, ahead, later, masks, pool is not None)
    source = conv_pool.source(source, pool)
    row_block, strip, chunks, _ = split
    pitch = strip + tile.lanes  # lines of the buffer are not a power of two apart
    panels = -(-strip // tile.width)
    runs = panels * (-(-tile.width // axes[2].out) + 3)
    nbytes = 8 * (row_block + tile.rows) + 8 * depth * taps + 64
    nbytes += depth * taps * panels * tile.width * size + 64 + row_block * pitch * size
    nbytes = -(-(nbytes + 24 * strip + 16 * (panels + taps * min(strip, runs))) // 64) * 64
    chunks = fewer_chunks(program, chunks, nbytes)
    f_row, f_channel, f_group = (s * size for s in filters)
    steps = [s * size for s in w.strides[2:]]
    shifted = w.offset + sum(a.filter_origin * s for a, s in zip(axes, steps))
    args = first_slots(product, rows, row_block)
    args += [w._replace(offset=shifted).slot, f_row, f_channel]
    args += [*(a.filter_step * s for a, s in zip(axes, steps)), f_group]
    args += [
        out.slot,
        depth,
        strip,
        program.scratch(chunks * nbytes),
        nbytes,
        pitch,
        int(_stays(product, depth, row_block)),
        int(by_place(out) and rows * channels * axes[0].taps * taps * size <= _SMALL_BYTES),
    ]
    program.launch(source, args + (fused.slots() if fused else []), chunks)


def _stays(product: Product, depth: int, rows: int) -> bool:
    """Whether windows are neighbours in the image, which so few rows of filters read there. depth: channels of a chain.

    Channels that a power of two lies between would push each other out of the first-level cache.
    """
    x, (_, y, z) = product.x, product.axes
    spread = _WAY // max(64, math.gcd(estimate(x.strides[1]) * x.dtype.itemsize, _WAY))
    single = y.taps == z.taps == z.step == 1 and x.strides[4] == 1 and in_place(product.axes)
    return single and rows <= _ROWS_IN_PLACE and depth <= _WAYS * spread


def _tasks(program: Program, product: Product, depth: int, unit: int = 1) -> Tasks:
    """The split that should take the least time. depth: channels of a chain of additions; unit: of pixels, of which a
    task has whole ones.

    Times are cycles of a thread. A task packs the windows of its columns (again for every block of rows), reads its
    filters once and multiplies; its panels should stay in the second-level cache.
    """
    x, _, out, channels, _, axes, groups = product
    threads, size, tile = program.backend.num_threads(), out.dtype.itemsize, block(out.dtype)
    rows, columns = out.shape[1] // groups, x.shape[0] * math.prod(a.out for a in axes)
    k, taps = channels * math.prod(a.taps for a in axes), axes[1].taps * axes[2].taps
    panels, blocks = -(-columns // tile.width), -(-rows // tile.rows)
    most = max(1, min(_PANELS, _PANEL_BYTES // (depth * taps * tile.width * size)))
    runs, fetch = -(-tile.width // min(tile.lanes, axes[2].out)), size / 8
    packed, step, call = 1.0 * runs * _PACK, tile.vectors / 2 * _MULTIPLY, 0
    if not has_masked_memory():
        call = _CALL_LINES * -(-channels // depth) * axes[0].taps
        packed = runs * (_PACK_LINES * min(axes[2].step, 2) + _TOUCH / taps)
        step, fetch = tile.vectors / 2 * _MULTIPLY_LINES, size / 16
    step_in_place = tile.vectors / 2 * _MULTIPLY_IN_PLACE
    best = Tasks(1, 1, 1, math.inf)
    least = 1 if program.chunks(threads, groups * tile.work(rows, columns, k)) == 1 else threads
    for splits in (1, 2, 4, 8):
        for pieces in (1, 2, 4, 8, 16):
            wide = -(-panels // max(-(-panels // most), -(-(pieces * least) // (splits * groups))))
            high = -(-blocks // splits)
            strip = whole_units(wide * tile.width, unit)
            wide = -(-strip // tile.width)
            count = groups * -(-columns // strip) * -(-blocks // high)
            stays = _stays(product, depth, high * tile.rows)
            packing, multiply = (0, step_in_place) if stays else (packed, step)
            cycles = wide * k * (packing + high * tile.rows * multiply) + high * tile.rows * k * fetch + 2000
            cycles += wide * high * call
            total = (-(-count // least) + _HELD_UP * (least > 1)) * cycles
            if total < best.cycles:
                chunks = min(count, 4 * least) if least > 1 else 1
                best = Tasks(high * tile.rows, strip, chunks, total)
    return best


def _fused(epilogue: Epilogue | None, out: Operand) -> FusedEpilogue | None:
    if epilogue is None:
        return None
    pool = None
    if epilogue.pooling is not None:
        pool = conv_pool.make(out.shape, epilogue.pooling, epilogue.outputs[0])
    # The plain result may stand in a strip buffer: it is stored like any other output.
    columns = math.prod(out.shape[2:])
    return fuse(
        epilogue, (1, 1, out.shape[0]), out.shape[1], columns, out.dtype, 0 if pool else -1, out.shape, pool
    )


def _pooled(
    program: Program, inputs: Sequence[Operand], out: Operand, named: dict[str, Any], epilogue: Epilogue
) -> None:
    """Append conv and what `epilogue` does, pooling too: in one kernel, or in two."""
    made = epilogue.pooling
    assert made is not None
    fused = None
    root = epilogue.roots[0]
    wide = any(node.op == "arg" and node.value == 0 for node in walk([root]))
    if wide and not conv_pool_rules.refusal(inputs, out, named, made, epilogue.outputs[0].shape):
        fused = _fused(epilogue, out)
    if fused is not None and fused.pool is not None:
        # The plain result is nowhere but in the tasks' memory, without the lines that are in no window. Both numbers of
        # lines are enough for Winograd's tiles, or none.
        to = epilogue.outputs[0]
        x, w = inputs
        product = product_of(x, w, out._replace(source=to.source, offset=to.offset), **named)
        front, y, z = product.axes
        y = y._replace(out=y.out - y.out % fused.pool.window[0])
        _shared(program, product._replace(axes=(front, y, z)), fused)
        return
    whole = program.scratch_operand(out.dtype, out.shape)
    conv(program, inputs, [out], **named, epilogue=epilogue._replace(outputs=(whole,), pooling=None))
    program.wave()
    kernel = pooling.max_pool if made.op == "max_pool" else pooling.avg_pool
    kernel(program, [whole], epilogue.outputs, **made.named)


def _in_registers(
    program: Program, inputs: Sequence[Operand], out: Operand, epilogue: Epilogue | None
) -> tuple[Operand, Operand, Operand, Epilogue | None]:
    """Operands, result and epilogue in dtypes of registers: 16-bit floats are widened in memory, rounded at the end."""
    x, w = (widened(program, x) for x in inputs)
    program.wave()
    return x, w, out._replace(dtype=out.dtype.computed), halved(epilogue, out)


@takes_casts
def conv(
    program: Program, inputs: Sequence[Any], outputs: Sequence[Operand], *, stride: Row,
    padding: tuple[Pair, ...], dilation: Row, groups: int, epilogue: Epilogue | None = None,
) -> None:  # fmt: skip
    """Append conv. x: [N, C, ...], w: [K, C / groups, ...], of any strides; out: [N, K, ...]."""
    out = outputs[0]
    named: dict[str, Any] = {"stride": stride, "padding": padding, "dilation": dilation, "groups": groups}
    if epilogue is not None and epilogue.pooling is not None:
        _pooled(program, inputs, out, named, epilogue)
        return
    if out.size == 0:
        return
    x, w, out, epilogue = _in_registers(program, inputs, out, epilogue)
    if epilogue is not None:
        out, _ = result_buffer(program, epilogue, out)
    fused = None
    product = product_of(x, w, out, **named)
    if product.channels == 0:
        fill_zero(program, out)
    else:
        fused = _fused(epilogue, out)
        append = conv_direct.windowed if conv_direct.applies(groups, out.shape[1] // groups) else _shared
        append(program, product, fused)
    if epilogue is not None and fused is None:
        apply_after(program, epilogue, out)


@takes_casts
def conv_x_grad(
    program: Program, inputs: Sequence[Any], outputs: Sequence[Operand], *, stride: Row,
    padding: tuple[Pair, ...], dilation: Row, groups: int, size: Row = (), epilogue: Epilogue | None = None,
) -> None:  # fmt: skip
    """Append the image gradient. g: [N, K, ...], w: [K, C / groups, ...], out: [N, C, ...]."""
    out = outputs[0]
    if out.size == 0:
        return
    *row, out, epilogue = _in_registers(program, inputs, out, epilogue)
    if epilogue is not None:
        out, _ = result_buffer(program, epilogue, out)
    fused = None
    out_, (g, w) = lift(out), map(lift, row)
    if g.size == 0:
        fill_zero(program, out)
    else:
        window = lift_window(stride, padding, dilation)
        by_axis = [
            phases(n, r, p, s, pads[0], d)
            for n, p, r, s, pads, d in zip(out_.shape[2:], g.shape[2:], w.shape[2:], *window)
        ]
        append = conv_direct.windowed if conv_direct.applies(groups, w.shape[1]) else _shared
        if set(stride) == {1}:
            fused = _fused(epilogue, out)
        if math.prod(sum(a.out for a in each) for each in by_axis) < math.prod(out_.shape[2:]):
            fill_zero(program, out)
            program.wave()
        rows = w.shape[0] // groups
        filters = w.strides[1], w.strides[0], rows * w.strides[0]
        windows = list(itertools.product(*by_axis))
        # Those that each keep all threads busy follow each other, and their working memory serves in turns.
        busy = program.backend.serial_work * program.backend.num_threads()
        large = 2.0 * g.size * w.size / w.shape[0] > busy * len(windows)
        for k, (z, y, a) in enumerate(windows):
            if k and large:
                program.wave()
            append(program, Product(g, w, out_, rows, filters, (z, y, a), groups), fused)
    if epilogue is not None and fused is None:
        apply_after(program, epilogue, out)


KERNELS = {"conv": conv, "conv_x_grad": conv_x_grad}
