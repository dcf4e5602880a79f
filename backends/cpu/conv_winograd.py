"""3 x 3 convolution of stride 1 by Winograd's transform: a quarter of the products, in 36 matrix products.

For convolutions whose transformed filters fit a second-level cache and whose images have enough tiles. Which these
are depends on the sizes of filters and images alone, so both modes and every batch compute the same bits. A task
transforms the sources of some rows of tiles, multiplies, and transforms back; its numbers stay in the cache.

The result's error is ten to twenty times that of the direct sum (bound and measurement: `tests/test_conv_winograd.py`).
"""

from __future__ import annotations

import functools

from ...core.backend import Arg, Program
from ...core.types import DType, float32
from .blocks import apart
from .conv_axes import Product, fewer_chunks
from .epilogue import FusedEpilogue, indent
from .panels import Block, block

#: channels and filters are at least this many; their product is at most that, for the cache
_LEAST, _MOST = 32, 128 * 128
#: lines and columns of results are at least this many
_SIZE = 12
_POSITIONS = 36
#: filters that are multiplied with before their results are transformed back
_ROWS = 32
_IMPORT = """from duograd.backends.cpu.microkernel import *
from duograd.backends.cpu.packing import *
from duograd.backends.cpu.winograd import *
"""


def applies(product: Product) -> bool:
    """Whether a windowed product is done here."""
    x, _, out, channels, _, axes, groups = product
    front, *plane = axes
    rows = out.shape[1]
    return (
        out.dtype is float32
        and groups == 1
        and min(channels, rows) >= _LEAST
        and channels * rows <= _MOST
        and front.size == front.out == front.taps == 1
        and all(
            a.step == a.out_step == 1 and a.taps == 3 and abs(a.tap_step) == 1 and a.out >= _SIZE
            for a in plane
        )
        and x.strides[4] == 1
    )


@functools.cache
def _filter_source(dtype: DType, lanes: int) -> str:
    char, size = dtype.char, dtype.itemsize
    return f"""# winograd filters {char}
{_IMPORT}
def kernel(args, chunk, nchunks):
    f, f_row, f_c, f_y, f_x = args[0], args[1], args[2], args[3], args[4]
    out, step, rows, channels = args[5], args[6], args[7], args[8]
    for row in range(div_i64(rows * chunk, nchunks), div_i64(rows * (chunk + 1), nchunks)):
        for c in range(0, channels, {lanes}):
            winograd_filter_{char}(
                out + (row * channels + c) * {size}, step, f + row * f_row + c * f_c, f_y, f_x, f_c,
                min_i64({lanes}, channels - c), {lanes},
            )
"""


@functools.lru_cache(maxsize=256)
def _source(dtype: DType, tile: Block, head: str, finish: str) -> str:
    char, size = dtype.char, dtype.itemsize
    rows, width, lanes = tile.rows, tile.width, tile.lanes
    row = width * size
    multiply = apart(f"multiply_later_{char}", tile.rows, tile.vectors, tile.lanes)
    return f"""# winograd conv {char} in blocks of {rows} x {width}
{_IMPORT}
def kernel(args, chunk, nchunks):
    images, channels, rows_all, h, w, p, q = args[0], args[1], args[2], args[3], args[4], args[5], args[6]
    origin_y, origin_x, x, x_n, x_c, x_y = args[7], args[8], args[9], args[10], args[11], args[12]
    f, f_step, c, band, line_step = args[13], args[14], args[15], args[16], args[17]
    v_step, m_step = args[18], args[19]
    row_table, part_rows = args[20] + chunk * args[21], args[22]
{head}    k_table = row_table + 8 * (rows_all + {2 * rows})
    v = k_table + (8 * channels + 63) // 64 * 64
    m = v + {_POSITIONS} * v_step
    near = m + {_POSITIONS} * m_step
    far = near + 6 * line_step + 64
    fill_offsets(row_table, 0, rows_all, {rows - 1}, 1, 1, channels * {size}, 0, 0)
    fill_offsets(k_table, 0, channels, 0, 1, 1, {size}, 0, 0)
    tiles_x, tiles_y = div_i64(q + 3, 4), div_i64(p + 3, 4)
    line_tiles, total, area = 4 * tiles_x, images * tiles_y, p * q
    parts = div_i64(rows_all + part_rows - 1, part_rows)
    tasks = div_i64(total + band - 1, band) * parts
    for task in range(div_i64(tasks * chunk, nchunks), div_i64(tasks * (chunk + 1), nchunks)):
        row0 = div_i64(task, parts) * band
        # The filters of this task.
        from_row = mod_i64(task, parts) * part_rows
        to_row = min_i64(rows_all, from_row + part_rows)
        count = min_i64(band, total - row0)
        tiles = count * tiles_x
        for channel in range(channels):
            for r in range(count):
                image, line = div_i64(row0 + r, tiles_y), mod_i64(row0 + r, tiles_y) * 4 + origin_y
                source = x + image * x_n + channel * x_c + line * x_y
                for column in range(0, line_tiles + 2, {lanes}):
                    to, start = (r * line_tiles + column) * {size}, column + origin_x
                    winograd_lines_{char}(
                        near + to, far + to - {4 * size}, line_step, source + start * {size}, x_y, -line, h - line,
                        -start, w - start, 4 - column, {lanes},
                    )
            for i in range(6):
                for t in range(0, tiles, {lanes}):
                    to = div_i64(t, {width}) * channels * {row} + channel * {row} + mod_i64(t, {width}) * {size}
                    here = i * line_step + 4 * t * {size}
                    winograd_columns_{char}(v + 6 * i * v_step + to, v_step, near + here, far + here, {lanes})
        # Some filters at a time, whose products stay in the cache.
        for part_row in range(from_row, to_row, {_ROWS}):
            end = min_i64(part_row + {_ROWS}, to_row)
            for position in range({_POSITIONS}):
                for t in range(0, tiles, {width}):
                    panel = div_i64(t, {width}) * {row}
                    for i in range(part_row, end, {rows}):
                        # The next position's filters come meanwhile: rows too short for the CPU to see what follows.
                        {multiply}(
                            channels, f + position * f_step, row_table + 8 * i, k_table,
                            v + position * v_step + panel * channels, {row},
                            m + position * m_step + panel * {_ROWS} + (i - part_row) * {row}, {row},
                            min_i64({rows}, end - i), min_i64({width}, tiles - t), 0,
                            f + (position + 1) * f_step + i * channels * {size}, {rows * size},
                        )
            for k in range(part_row, end):
                for t in range(0, tiles, {lanes}):
                    here = div_i64(t, {width}) * {_ROWS * row} + (k - part_row) * {row} + mod_i64(t, {width}) * {size}
                    winograd_result_{char}(near + 4 * t * {size}, line_step, m + here, m_step, {lanes})
                for r in range(count):
                    image, line = div_i64(row0 + r, tiles_y), mod_i64(row0 + r, tiles_y) * 4
                    to = c + ((image * rows_all + k) * area + line * q) * {size}
                    for column in range(0, q, {lanes}):
                        copy_lanes_{char}(
                            to + column * {size}, q * {size}, near + (r * line_tiles + column) * {size}, line_step,
                            min_i64(4, p - line), min_i64({lanes}, q - column), 0, {lanes}, {lanes},
                        )
{finish}"""


_FIRST_SLOT = 23

# A row of tiles is some whole lines of the result.
_PLACE = """image, first_column = div_i64(row0 + r, tiles_y), mod_i64(row0 + r, tiles_y) * 4 * q
batch0, batch1, batch2, first_row = 0, 0, image, from_row
block_rows, block_cols = to_row - from_row, min_i64(4 * q, area - first_column)
result, result_step, result_at = c, area, (image * rows_all + from_row) * area + first_column
out_at, out_step = result_at, area
"""


def windowed(program: Program, product: Product, fused: FusedEpilogue | None) -> None:
    """Append the windowed product: the filters' transform, then the rest."""
    x, w, out, channels, filters, axes, _ = product
    dtype, size, rows = out.dtype, out.dtype.itemsize, out.shape[1]
    tile = block(dtype)
    f_row, f_c, _ = (s * size for s in filters)
    _, y, z = axes
    steps, origins, first = [], [], w.offset
    for a, stride in zip((y, z), w.strides[3:]):
        step = stride * size * a.filter_step
        first += stride * size * a.filter_origin
        turned = a.tap_step < 0
        # Taps that walk backwards are walked from the last one.
        first += 2 * step if turned else 0
        steps.append(-step if turned else step)
        origins.append(a.origin - 2 if turned else a.origin)
    f_step = rows * channels * size + 64
    with program.prepared(w):
        f = program.scratch(_POSITIONS * f_step)
        args: list[Arg] = [w._replace(offset=first).slot, f_row, f_c, *steps, f, f_step, rows, channels]
        program.launch(_filter_source(dtype, tile.lanes), args, program.chunks(rows, 64.0 * rows * channels))
    program.wave()
    tiles_x, tiles_y = -(-z.out // 4), -(-y.out // 4)
    total = x.shape[0] * tiles_y
    band = min(total, max(1, tile.width // tiles_x))
    panels = -(-band * tiles_x // tile.width)
    # Positions are not a power of two apart.
    v_step, m_step = (panels * n * tile.width * size + 2 * 64 for n in (channels, _ROWS))
    line_step = (4 * panels * tile.width + 2 * tile.lanes) * size + 64
    nbytes = 8 * (rows + 2 * tile.rows) + 8 * channels + 64 + _POSITIONS * (v_step + m_step)
    nbytes = -(-(nbytes + 12 * line_step + 128) // 64) * 64
    tasks = -(-total // band)
    # Where there are few tiles, tasks share them and divide the filters.
    parts = 1 if tasks >= program.backend.num_threads() else program.backend.num_threads()
    part_rows = -(-rows // (parts * tile.rows)) * tile.rows
    tasks *= -(-rows // part_rows)
    chunks = fewer_chunks(program, program.chunks(tasks, 9.0 * total * tiles_x * channels * rows), nbytes)
    args = [x.shape[0], channels, rows, y.size, z.size, y.out, z.out, *origins]
    args += [x.slot, *(x.strides[k] * size for k in (0, 1, 3)), f, f_step, out.slot, band, line_step]
    args += [v_step, m_step, program.scratch(chunks * nbytes), nbytes, part_rows]
    if fused is None:
        program.launch(_source(dtype, tile, "", ""), args, chunks)
    else:
        lines = ["for r in range(count):", *("    " + s for s in (*_PLACE.splitlines(), *fused.block()))]
        source = _source(dtype, tile, indent(fused.head(_FIRST_SLOT), 4), indent(lines, 8))
        program.launch(source, args + fused.slots(), chunks)
