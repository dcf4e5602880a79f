"""3 x 3 convolution of stride 1 by Winograd's transform: a quarter of the products, in 36 matrix products.

For convolutions that are worth the transforms, whose transformed filters (four times the filters' bytes) are not too
many, and whose images have enough tiles. Which these are depends on the sizes of filters and images alone, so both
modes and every batch compute the same bits. A task transforms the sources of some rows of tiles, which stay in the
cache, and takes a panel of filters after the other: for each position a product [tile, channel] x [channel, filter],
whose filters come in one stream, then the way back. No value depends on how tiles and filters are divided.

The result's error is ten to twenty times that of the direct sum (bound and measurement: `tests/test_conv_winograd.py`).
"""

from __future__ import annotations

import functools
import math
from typing import NamedTuple

from ...core.backend import Arg, Program
from ...core.types import DType, float32
from . import conv_pool
from .blocks import apart
from .conv_axes import Product
from .epilogue import FusedEpilogue, indent
from .panels import Block, block, narrow

#: channels and filters are at least so many; their product is at least, and at most, for their memory, so much
_LEAST, _PRODUCTS = 16, (32 * 32, 256 * 256)
#: lines and columns of results are at least this many
_SIZE = 12
#: lines of results of a tile
LINES = 4
_POSITIONS = 36
#: Bytes of a task's sources and products, which should stay in the second-level cache.
_TASK_BYTES = 3 << 18
#: Cycles of a vector of the three steps of the transforms: lines and columns of one channel, results of a tile.
_LINES, _COLUMNS, _RESULT = 30, 150, 110
#: Filters of so many bytes come from farther than the second-level cache; cycles of fetching a vector of them.
_FAR_BYTES, _NEAR, _FAR = 1 << 20, 2, 12
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
        and _PRODUCTS[0] <= channels * rows <= _PRODUCTS[1]
        and front.size == front.out == front.taps == 1
        and all(
            a.step == a.out_step == 1 and a.taps == 3 and abs(a.tap_step) == 1 and a.out >= _SIZE
            for a in plane
        )
        and x.strides[4] == 1
    )


@functools.cache
def _filter_source(dtype: DType, tile: Block) -> str:
    char, size, width, lanes = dtype.char, dtype.itemsize, tile.width, tile.lanes
    return f"""# winograd filters {char} in panels of {width}
{_IMPORT}
def kernel(args, chunk, nchunks):
    f, f_row, f_c, f_y, f_x = args[0], args[1], args[2], args[3], args[4]
    out, rows, channels = args[5], args[6], args[7]
    step = channels * {width * size}
    items = div_i64(rows + {width - 1}, {width}) * {tile.vectors} * channels
    for item in range(div_i64(items * chunk, nchunks), div_i64(items * (chunk + 1), nchunks)):
        row, c = div_i64(item, channels) * {lanes}, mod_i64(item, channels)
        panel = div_i64(row, {width})
        to = out + panel * {_POSITIONS} * step + c * {width * size} + (row - panel * {width}) * {size}
        winograd_filter_{char}(to, step, f + row * f_row + c * f_c, f_y, f_x, f_row, rows - row, {lanes})
"""


@functools.lru_cache(maxsize=256)
def _source(dtype: DType, tile: Block, head: str, finish: str, pools: str) -> str:
    """The kernel. finish: what becomes of a task's results; pools: of those of a row of tiles, in the task's memory."""
    char, size = dtype.char, dtype.itemsize
    rows, width, lanes = tile.rows, tile.width, tile.lanes
    row = width * size
    multiply = apart(f"multiply_later_{char}", tile.rows, tile.vectors, tile.lanes)
    place = f"c + ((image * rows_all + k) * area + line * q) * {size}, area * {size}"
    if pools:
        place = f"(turned + (4 * q + 4) * {lanes * size} + 63) // 64 * 64, (4 * q + {lanes}) * {size}"
    return f"""# winograd conv {char} in blocks of {rows} x {width}
{_IMPORT}
def kernel(args, chunk, nchunks):
    images, channels, rows_all, h, w, p, q = args[0], args[1], args[2], args[3], args[4], args[5], args[6]
    origin_y, origin_x, x, x_n, x_c, x_y = args[7], args[8], args[9], args[10], args[11], args[12]
    f, c, band, part_rows, line_step = args[13], args[14], args[15], args[16], args[17]
    v_row, v_step, m_step = args[18], args[19], args[20]
    row_table = args[21] + chunk * args[22]
{head}    tiles_x, tiles_y = div_i64(q + 3, 4), div_i64(p + 3, 4)
    line_tiles, total, area = 4 * tiles_x, images * tiles_y, p * q
    k_table = row_table + 8 * (band * tiles_x + {rows})
    v = k_table + (8 * channels + 63) // 64 * 64
    m = v + {_POSITIONS} * v_step
    near = m + {_POSITIONS} * m_step
    far = near + 6 * line_step + 64
    turned = far + 6 * line_step + 64
    fill_offsets(k_table, 0, channels, 0, 1, 1, v_row, 0, 0)
    parts = div_i64(rows_all + part_rows - 1, part_rows)
    tasks = div_i64(total + band - 1, band) * parts
    filled = -1
    for task in range(div_i64(tasks * chunk, nchunks), div_i64(tasks * (chunk + 1), nchunks)):
        row0 = div_i64(task, parts) * band
        # The filters of this task.
        from_row = mod_i64(task, parts) * part_rows
        to_row = min_i64(rows_all, from_row + part_rows)
        count = min_i64(band, total - row0)
        tiles = count * tiles_x
        if filled != row0:
            filled = row0
            # Missing tiles of the last block repeat the last one.
            fill_offsets(row_table, 0, tiles, {rows - 1}, 1, 1, {size}, 0, 0)
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
                        to, here = v + 6 * i * v_step + channel * v_row + t * {size}, i * line_step + 4 * t * {size}
                        winograd_columns_{char}(to, v_step, near + here, far + here, {lanes})
        # A panel of filters at a time, whose products stay in the cache.
        for part_row in range(from_row, to_row, {width}):
            filters = f + div_i64(part_row, {width}) * {_POSITIONS} * channels * {row}
            for position in range({_POSITIONS}):
                for i in range(0, tiles, {rows}):
                    # Each block fetches a line of every row of the filters of the next position.
                    {multiply}(
                        channels, v + position * v_step, row_table + 8 * i, k_table, filters, {row},
                        m + position * m_step + i * {row}, {row}, min_i64({rows}, tiles - i), {width}, 0,
                        filters + channels * {row} + mod_i64(div_i64(i, {rows}) * 64, {row}), {row},
                    )
                filters += channels * {row}
            for k in range(part_row, min_i64(part_row + {width}, to_row), {lanes}):
                have = min_i64({lanes}, to_row - k)
                for r in range(count):
                    image, line = div_i64(row0 + r, tiles_y), mod_i64(row0 + r, tiles_y) * 4
                    # Lines stand one behind the other: columns past the end of one make place for the next.
                    for t in range(tiles_x):
                        tile = tiles_x - 1 - t
                        winograd_result_{char}(
                            turned + tile * {4 * lanes * size}, q * {lanes * size}, {lanes * size},
                            m + (r * tiles_x + tile) * {row} + (k - part_row) * {size}, m_step, {lanes},
                        )
                    pixels = min_i64(4, p - line) * q
                    to, to_step = {place}
                    for j in range(0, pixels, {lanes}):
                        length = min_i64({lanes}, pixels - j)
                        transpose_lanes_{char}(
                            to + j * {size}, to_step, turned + j * {lanes * size}, {lanes * size},
                            length, have, length, {lanes},
                        )
{pools}{finish}"""


_FIRST_SLOT = 23

# A row of tiles is some whole lines of the result.
_PLACE = """image, first_column = div_i64(row0 + r, tiles_y), mod_i64(row0 + r, tiles_y) * 4 * q
batch0, batch1, batch2, first_row = 0, 0, image, from_row
block_rows, block_cols = to_row - from_row, min_i64(4 * q, area - first_column)
result, result_step, result_at = c, area, (image * rows_all + from_row) * area + first_column
out_at, out_step = result_at, area
"""
# The same before it is pooled.
_PLACE_POOLED = """batch0, batch1, batch2, first_row, first_column = 0, 0, image, k, line * q
block_rows, block_cols = have, pixels
result, result_step, result_at = to, 4 * q + LANES, 0
"""


class _Split(NamedTuple):
    """Rows of tiles and filters of a task, how many tasks."""

    band: int
    filters: int
    tasks: int


def _split(program: Program, product: Product, tile: Block) -> _Split:
    """The split that should take the least time. Times are cycles of a thread."""
    x, _, out, channels, _, (_, y, z), _ = product
    threads, size, rows, lanes = program.backend.num_threads(), out.dtype.itemsize, out.shape[1], tile.lanes
    tiles_x, total, panels = -(-z.out // 4), x.shape[0] * -(-y.out // 4), -(-rows // tile.width)
    fetch = _NEAR if _POSITIONS * channels * panels * tile.width * size <= _FAR_BYTES else _FAR
    best, least = _Split(1, panels * tile.width, total), math.inf
    for band in range(1, total + 1):
        tiles = band * tiles_x
        nbytes = _POSITIONS * size * (channels * _up(tiles, lanes) + tiles * tile.width)
        if band > 1 and nbytes > _TASK_BYTES:
            break
        for parts in (1, 2, 4, 8):
            some = -(-panels // parts)
            tasks = -(-total // band) * -(-panels // some)
            mine = -(-tasks // threads)
            multiply = _POSITIONS * channels * (_up(tiles, tile.rows) + fetch) + tiles * _RESULT
            source = band * -(-(4 * tiles_x + 2) // lanes) * _LINES + -(-tiles // lanes) * _COLUMNS
            cycles = mine * (some * tile.vectors * multiply + 2000) + -(-mine // parts) * channels * source
            if cycles < least:
                best, least = _Split(band, some * tile.width, tasks), cycles
    return best


def _up(n: int, step: int) -> int:
    return -(-n // step) * step


def windowed(program: Program, product: Product, fused: FusedEpilogue | None) -> None:
    """Append the windowed product: the filters' transform, then the rest."""
    x, w, out, channels, filters, axes, _ = product
    dtype, size, rows = out.dtype, out.dtype.itemsize, out.shape[1]
    tile = narrow(block(dtype))
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
    padded = _up(rows, tile.width)
    with program.prepared(w):
        f = program.scratch(_POSITIONS * channels * padded * size)
        args: list[Arg] = [w._replace(offset=first).slot, f_row, f_c, *steps, f, rows, channels]
        items = padded // tile.lanes * channels
        program.launch(_filter_source(dtype, tile), args, program.chunks(items, 64.0 * rows * channels))
    program.wave()
    split = _split(program, product, tile)
    tiles_x, total = -(-z.out // 4), x.shape[0] * -(-y.out // 4)
    tiles = split.band * tiles_x
    v_row = _up(tiles, tile.lanes) * size
    # Positions are not a power of two apart.
    v_step, m_step = channels * v_row + 2 * 64, tiles * tile.width * size + 2 * 64
    line_step = (4 * _up(tiles, tile.lanes) + 2 * tile.lanes) * size + 64
    nbytes = 8 * (tiles + tile.rows) + 8 * channels + 64 + _POSITIONS * (v_step + m_step)
    nbytes = _up(nbytes + 12 * line_step + 128 + (4 * z.out + 4) * tile.lanes * size, 64)
    if fused is not None and fused.pool is not None:
        nbytes += _up(tile.lanes * (4 * z.out + tile.lanes) * size, 64) + 64
    work = 9.0 * total * tiles_x * channels * rows
    # Each chunk has memory of its own, of which a thread's should stay in its cache.
    threads = program.backend.num_threads()
    chunks = min(program.chunks(split.tasks, work), threads * max(1, _TASK_BYTES // nbytes))
    args = [x.shape[0], channels, rows, y.size, z.size, y.out, z.out, *origins]
    args += [
        x.slot,
        *(x.strides[k] * size for k in (0, 1, 3)),
        f,
        out.slot,
        split.band,
        split.filters,
        line_step,
    ]
    args += [v_row, v_step, m_step, program.scratch(chunks * nbytes), nbytes]
    if fused is None:
        program.launch(_source(dtype, tile, "", "", ""), args, chunks)
    elif fused.pool is not None:
        place = _PLACE_POOLED.replace("LANES", str(tile.lanes)).splitlines()
        pools = indent([*place, *fused.block()], 20)
        source = _source(dtype, tile, indent(fused.head(_FIRST_SLOT), 4), "", pools)
        program.launch(conv_pool.source(source, fused.pool), args + fused.slots(), chunks)
    else:
        lines = ["for r in range(count):", *("    " + s for s in (*_PLACE.splitlines(), *fused.block()))]
        source = _source(dtype, tile, indent(fused.head(_FIRST_SLOT), 4), indent(lines, 8), "")
        program.launch(source, args + fused.slots(), chunks)
