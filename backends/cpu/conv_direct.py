"""Convolution with few channels per group (depthwise): lines of images times single filter elements.

There is nothing to share between the rows of a matrix product here. Bands of padded lines are copied to a
scratch area in the first-level cache, columns that are a stride apart side by side, so that the sums over
taps are whole vectors without bounds. No value depends on bands or chunks.
"""

from __future__ import annotations

import functools
import math

from ...core.backend import Arg, Operand, Program
from ...core.types import DType
from . import conv_lines
from .conv_axes import Axes, Product, output_steps
from .epilogue import FusedEpilogue, indent
from .panels import IMPORT, block
from .target import target

_MIN_ROWS = 4
#: lines of a band, which should stay in the first-level cache
_BAND_BYTES = 1 << 15
#: lines of windows that are unrolled, and their steps
_LINES, _STEPS = (3, 5, 7), (1, 2)
#: elements of windows whose columns are unrolled too, and lines of results that are summed up together
_UNROLLED, _ROWS = 9, 4
#: whole vectors of a line that are summed up together
_VECTORS = 4


def applies(groups: int, rows: int) -> bool:
    """Whether a grouped convolution with `rows` outputs per group is done here."""
    return groups > 1 and rows < _MIN_ROWS


# In the texts below T stands for the dtype's short name, SIZE for its bytes, LANES for the vector's width.
# The head reads the slots that both kernels share.
_HEAD = f"""
{IMPORT}from duograd.backends.cpu.lines import *

def kernel(args, chunk, nchunks):
    images, groups, rows, channels = args[0], args[1], args[2], args[3]
    d, o, step_z, taps_z, tap_z, origin_z = args[4], args[5], args[6], args[7], args[8], args[9]
    h, p, step_y, taps_y, tap_y, origin_y = args[10], args[11], args[12], args[13], args[14], args[15]
    w, q, step_x, taps_x, tap_x, origin_x = args[16], args[17], args[18], args[19], args[20], args[21]
    x, x_n, x_c, x_z, x_y, x_x = args[22], args[23], args[24], args[25], args[26], args[27]
    f, f_row, f_c, f_z, f_y, f_x, f_group = args[28], args[29], args[30], args[31], args[32], args[33], args[34]
    band, line_pitch, plane_pitch, split = args[35], args[36], args[37], args[38]
    table = args[39] + chunk * args[40]
    taps = taps_z * taps_y * taps_x
    lines_at = table + (taps * 16 + 63) // 64 * 64
    # The first source line and column that a tap reaches, from that of result 0.
    back_y, back_x = min(0, (taps_y - 1) * tap_y), min(0, (taps_x - 1) * tap_x)
    for tap in range(taps):
        tz, ty, tx = tap // (taps_y * taps_x), tap // taps_x % taps_y, tap % taps_x
        column = tx * tap_x - back_x
        offset = (ty * tap_y - back_y) * line_pitch + column % step_x * split + column // step_x * SIZE
        store_i64(table, tap * 2, tz * plane_pitch + offset)
    bands = (p + band - 1) // band
    # Where all bands lie alike, the zeros around one stay for the next.
    alike, stages = bands * o == 1, 3
    # Columns of a phase that windows read, in whole vectors; what lies beyond them, sums read but nobody wants.
    filled = (((q - 1) * step_x + (taps_x - 1) * abs(tap_x)) // step_x // LANES + 1) * LANES
    copy_lanes_T(lines_at, LANES * SIZE, lines_at, 0, taps_z * plane_pitch // (LANES * SIZE), LANES, 0, 0, LANES)
"""

# Copies the band of one channel: lines of every plane that a tap of z reaches, split by column phase.
_COPY = """
lines = (count - 1) * step_y + (taps_y - 1) * abs(tap_y) + 1
low_y = line0 * step_y + origin_y + back_y
first = min(lines, max(0, -low_y))
last = max(first, min(lines, h - low_y))
pairs = step_x == 2 and x_x == SIZE
phases = 1 if pairs else step_x
tz, phase = 0, 0
while tz < taps_z:
    z = front * step_z + tz * tap_z + origin_z
    inside = 0 <= z < d
    start = origin_x + back_x + phase
    source = x + image * x_n + channel * x_c + z * x_z + low_y * x_y + start * x_x
    to = lines_at + tz * plane_pitch + phase * split
    low0, high0 = -start, w - start
    if step_x > 1 and not pairs:
        low0, high0 = -(start // step_x), -((start - w) // step_x)
    for j in range(0, filled, LANES):
        low, high = low0 - j, high0 - j
        line = 0 if stages == 3 else first
        for stage in range(0 if stages == 3 else 1, stages):
            end = first if stage == 0 else last if stage == 1 else lines
            right = high if inside and stage == 1 else 0
            here = source + j * step_x * x_x + line * x_y
            there = to + j * SIZE + line * line_pitch
            if pairs:
                low, right = -(start + 2 * j), w - (start + 2 * j) if right else 0
                split_pairs_T(there, there + split, line_pitch, here, x_y, end - line, low, right, LANES)
            elif step_x * x_x == SIZE:
                copy_lanes_T(there, line_pitch, here, x_y, end - line, LANES, low, right, LANES)
            else:
                gather_lanes_T(there, line_pitch, here, x_y, step_x * x_x, end - line, LANES, low, right, LANES)
            line = end
    phase += 1
    if phase == phases:
        tz, phase = tz + 1, 0
stages = 2 if alike else 3
"""

_SUM = """# conv with few channels T
HEAD
EPILOGUE_SLOTS
    out_z, out_y, out_x = args[41], args[42], args[43]
    out_area, out_line, out_plane, out_first = args[44], args[45], args[46], args[47]
    out, result_at = args[48], lines_at + args[49]
    pitch = args[50]
    items = images * groups * o * bands
    item, end_item = div_i64(items * chunk, nchunks), div_i64(items * (chunk + 1), nchunks)
    rest = div_i64(item, bands)
    line0, front, rest = (item - rest * bands) * band, mod_i64(rest, o), div_i64(rest, o)
    group, image = mod_i64(rest, groups), div_i64(rest, groups)
    # Divisions would take as long as a small image.
    while item < end_item:
        item += 1
        count = min(band, p - line0)
        for c in range(channels):
            channel = group * channels + c
COPY
            for row in range(rows):
                numbers = f + group * f_group + row * f_row + c * f_c
NUMBERS
                at = (image * groups * rows + group * rows + row) * out_plane + out_first
                at += front * out_z * out_area + line0 * out_y * out_line
                to, to_step = out + at * SIZE, out_y * out_line * SIZE
                if out_x != 1:
                    to, to_step = result_at + row * pitch * band, pitch
                column = 0
                while column < q:
                    here, there = lines_at + column * SIZE, to + column * SIZE
SUMS
                    column += length
                if out_x != 1 and c == channels - 1:
                    for line in range(count):
                        for e in range(q):
                            value = load_T(to + line * pitch, e)
                            store_T(out, at + line * out_y * out_line + e * out_x, value)
FINISH
        line0 += band
        if line0 >= p:
            line0, front = 0, front + 1
            if front == o:
                front, group = 0, group + 1
                if group == groups:
                    group, image = 0, image + 1
"""

# Any window: numbers come beside the offsets of their taps.
_NUMBERS_OF_TAPS = """
tap = 0
for tz in range(taps_z):
    for ty in range(taps_y):
        for tx in range(taps_x):
            store_T(table, tap * PER_ENTRY + PER_NUMBER, load_T(numbers + tz * f_z + ty * f_y + tx * f_x, 0))
            tap += 1
"""
_SUM_TAPS = """
step = step_y * line_pitch
if q - column > 2 * LANES:
    length = min(q - column, VECTORS * LANES)
    sum_taps_T(there, to_step, here, step, count, length, table, taps, c, 2, VECTORS, LANES)
else:
    length = min(q - column, LANES)
    sum_taps_T(there, to_step, here, step, count, length, table, taps, c, 4, 1, LANES)
"""
# Windows of neighbouring lines, upwards: where taps go downwards, the last of them comes first.
_NUMBERS_OF_WINDOW = """
first_tap = (taps_y - 1) * (tap_y < 0)
numbers += first_tap * f_y
offsets, number_step = table + first_tap * taps_x * 16, f_y * tap_y
"""
_SUM_WINDOW = """
if q - column > LANES:
    length = min(q - column, 2 * LANES)
    sum_windows_T(
        there, to_step, here, line_pitch, count, length, offsets, numbers, number_step, f_x, taps_x, c,
        TAPS, STEP, ROWS, 2, LANES,
    )
else:
    length = min(q - column, LANES)
    sum_windows_T(
        there, to_step, here, line_pitch, count, length, offsets, numbers, number_step, f_x, taps_x, c,
        TAPS, STEP, ROWS, 1, LANES,
    )
"""

_DOT = """# conv_w_grad with few channels T
HEAD
    g, g_n, g_k, g_z, g_y = args[41], args[42], args[43], args[44], args[45]
    sums = lines_at + args[46]
    for channel in range(groups * channels * chunk // nchunks, groups * channels * (chunk + 1) // nchunks):
        group, c = channel // channels, channel % channels
        for k in range(rows * taps * LANES):
            store_T(sums, k, types.NAME(0))
        line0, front, image = 0, 0, 0
        while image < images:
            count = min(band, p - line0)
COPY
            for row in range(rows):
                other = g + image * g_n + (group * rows + row) * g_k + front * g_z + line0 * g_y
DOTS
            line0 += band
            if line0 >= p:
                line0, front = 0, front + 1
                if front == o:
                    front, image = 0, image + 1
        for k in range(rows * taps):
            row, tap = k // taps, k % taps
            tz, ty, tx = tap // (taps_y * taps_x), tap // taps_x % taps_y, tap % taps_x
            total = types.NAME(0)
            for lane in range(LANES):
                total += load_T(sums, k * LANES + lane)
            store_T(f + group * f_group + row * f_row + c * f_c + tz * f_z + ty * f_y + tx * f_x, 0, total)
"""

# Any window: tap by tap.
_DOT_TAPS = """
for tap in range(taps):
    here = lines_at + load_i64(table, tap * 2)
    to = sums + (row * taps + tap) * LANES * SIZE
    column = 0
    while column < q:
        at, beside = here + column * SIZE, other + column * SIZE
        if q - column > 2 * LANES:
            length = min(q - column, VECTORS * LANES)
            dot_lines_T(to, at, step_y * line_pitch, beside, g_y, count, length, VECTORS, LANES)
        else:
            length = min(q - column, LANES)
            dot_lines_T(to, at, step_y * line_pitch, beside, g_y, count, length, 1, LANES)
        column += length
"""
# Windows of neighbouring lines: lines of g share what they read, in the same order of sums.
_DOT_WINDOW = """
to = sums + row * taps * LANES * SIZE
column = 0
while column < q:
    at, beside = lines_at + column * SIZE, other + column * SIZE
    if q - column > 2 * LANES:
        length = min(q - column, VECTORS * LANES)
        dot_windows_T(
            to, taps_x * LANES * SIZE, at, line_pitch, beside, g_y, count, length, table, taps_x,
            TAPS, WIDE_UNROLLED, STEP, ROWS, VECTORS, LANES,
        )
    else:
        length = min(q - column, LANES)
        dot_windows_T(
            to, taps_x * LANES * SIZE, at, line_pitch, beside, g_y, count, length, table, taps_x,
            TAPS, UNROLLED, STEP, ROWS, 1, LANES,
        )
    column += length
"""

_FIRST_SLOT = 51
# A band of the result of one filter, while it is in the cache.
_FINISH = """for row in range(rows):
    batch0, batch1, batch2 = 0, 0, image
    first_row, first_column = group * rows + row, front * out_area + line0 * out_line
    block_rows, block_cols = 1, count * q
    result, result_step, result_at = out, 0, (image * groups * rows + first_row) * out_plane + first_column
    out_at, out_step = result_at, 0
"""


@functools.lru_cache(maxsize=256)
def _text(
    template: str,
    dtype: DType,
    lanes: int,
    head: str = "",
    finish: str = "",
    window: tuple[int, int, int] = (0, 0, 0),
) -> str:
    """window: its lines, unrolled columns and step, by `_window`."""
    size = dtype.itemsize
    numbers, sums = (_NUMBERS_OF_WINDOW, _SUM_WINDOW) if window[0] else (_NUMBERS_OF_TAPS, _SUM_TAPS)
    sums = sums.replace("TAPS, STEP, ROWS", f"{window[0]}, {window[1]}, {window[2]}, {_ROWS}")
    template = template.replace("NUMBERS\n", indent(numbers.strip().splitlines(), 16))
    template = template.replace("SUMS\n", indent(sums.strip().splitlines(), 20))
    template = template.replace("DOTS\n", indent(_dots(window).strip().splitlines(), 16))
    copied = "".join(f"            {line}\n" for line in _COPY.strip().splitlines()).rstrip()
    text = template.replace("HEAD", _HEAD.strip("\n")).replace("COPY", copied)
    text = text.replace("PER_ENTRY", str(16 // size)).replace("PER_NUMBER", str(8 // size))
    text = (
        text.replace("_T(", f"_{dtype.char}(").replace(" T\n", f" {dtype.char}\n").replace("NAME", dtype.name)
    )
    text = text.replace("SIZE", str(size)).replace("LANES", str(lanes)).replace("VECTORS", str(_VECTORS))
    return text.replace("EPILOGUE_SLOTS\n", head).replace("FINISH\n", finish)


def _dots(window: tuple[int, int, int]) -> str:
    """The lines that add up products for each tap of a window, or of any."""
    taps, columns, step = window
    if not taps:
        return _DOT_TAPS
    many = target().registers == 32
    # Sums of all taps and the lines of g fill the registers.
    rows = 4 if many and taps < 7 else 2
    unrolled = columns if columns * taps <= _UNROLLED or (many and columns * taps <= 25) else 0
    return _DOT_WINDOW.replace("TAPS, UNROLLED, STEP, ROWS", f"{taps}, {unrolled}, {step}, {rows}").replace(
        "TAPS, WIDE_UNROLLED, STEP, ROWS", f"{taps}, 0, {step}, {rows}"
    )


def _window(axes: Axes) -> tuple[int, int, int]:
    """Lines, unrolled columns and step of a window for which there is a loop that loads each line once, or zeros."""
    front, y, x = axes
    if front.taps != 1 or abs(y.tap_step) != 1 or y.taps not in _LINES or y.step not in _STEPS:
        return 0, 0, 0
    return y.taps, x.taps if y.taps * x.taps <= _UNROLLED else 0, y.step


class _Band:
    """How lines stand in the scratch area: bytes of a line, a plane, a column phase; lines of results in a band."""

    def __init__(self, axes: Axes, dtype: DType):
        (_, y, z), size, lanes = axes, dtype.itemsize, block(dtype).lanes
        reach = (z.out - 1) * z.step + (z.taps - 1) * abs(z.tap_step) + 1
        # Sums read whole vectors, the last of them past the line's end.
        columns = -(-reach // z.step)
        self.split = (-(-columns // lanes) + _VECTORS) * lanes * size
        self.line = self.split * z.step
        if self.line % 1024 == 0:
            self.line += lanes * size  # so few lines would share all ways of a set of the first-level cache
        more = (y.taps - 1) * abs(y.tap_step) + 1
        lines = _BAND_BYTES // (self.line * axes[0].taps)
        self.lines = min(y.out, max(4, 1 + (lines - more) // y.step))
        summed = -(-self.lines // _ROWS) * _ROWS
        self.plane = self.line * ((summed - 1) * y.step + more)
        self.bytes = self.plane * axes[0].taps


def _slots(product: Product, band: _Band, table: Arg, pitch: int) -> list[Arg]:
    x, w, out, channels, filters, axes, groups = product
    size = out.dtype.itemsize
    f_row, f_channel, f_group = (s * size for s in filters)
    steps = [s * size for s in w.strides[2:]]
    shifted = w.offset + sum(a.filter_origin * s for a, s in zip(axes, steps))
    args: list[Arg] = [x.shape[0], groups, out.shape[1] // groups, channels]
    for a in axes:
        args += [a.size, a.out, a.step, a.taps, a.tap_step, a.origin]
    args += [x.slot, *(s * size for s in x.strides), w._replace(offset=shifted).slot, f_row, f_channel]
    args += [*(a.filter_step * s for a, s in zip(axes, steps)), f_group]
    return [*args, band.lines, band.line, band.plane, band.split, table, pitch]


def windowed(program: Program, product: Product, fused: FusedEpilogue | None = None) -> None:
    """Append one launch of the windowed product. fused: for a result without gaps."""
    if conv_lines.applies(product):
        conv_lines.windowed(program, product, fused)
        return
    out, axes = product.out, product.axes
    dtype, band = out.dtype, _Band(axes, out.dtype)
    images, rows = out.shape[0], out.shape[1] // product.groups
    items = images * product.groups * axes[0].out * -(-axes[1].out // band.lines)
    columns = images * math.prod(a.out for a in axes)
    taps = math.prod(a.taps for a in axes)
    chunks = program.chunks(items, 1.0 * columns * out.shape[1] * product.channels * taps)
    line = -(-axes[2].out * dtype.itemsize // 64) * 64 + 64 * _VECTORS
    table = -(-taps * 16 // 64) * 64
    pitch = table + band.bytes + (line * band.lines * rows if axes[2].out_step != 1 else 0) + 64
    pitch = -(-pitch // 64) * 64
    args = _slots(product, band, program.scratch(chunks * pitch), pitch)
    args += [*(a.out_step for a in axes), *output_steps(out, axes), out.slot, band.bytes, line]
    head = finish = ""
    if fused is not None:
        head = indent(fused.head(_FIRST_SLOT), 4)
        finish = indent([*_FINISH.splitlines(), *("    " + line for line in fused.block())], 8)
        args += fused.slots()
    program.launch(_text(_SUM, dtype, block(dtype).lanes, head, finish, _window(axes)), args, chunks)


def filter_gradient(program: Program, g: Operand, product: Product) -> None:
    """Append the gradient for the filters: g's lines are contiguous, product.w is the result."""
    w, axes, groups = product.w, product.axes, product.groups
    dtype, band = w.dtype, _Band(axes, w.dtype)
    lanes, size, rows = block(dtype).lanes, dtype.itemsize, g.shape[1] // groups
    taps = math.prod(a.taps for a in axes)
    table = -(-taps * 16 // 64) * 64
    pitch = -(-(table + band.bytes + rows * taps * lanes * size + 64) // 64) * 64
    chunks = program.chunks(groups * product.channels, 1.0 * g.size * product.channels * taps)
    args = _slots(product, band, program.scratch(chunks * pitch), pitch)
    args += [g.slot, *(s * size for s in g.strides[:4]), band.bytes]
    window = _window(axes)[0], axes[2].taps, axes[1].step
    program.launch(_text(_DOT, dtype, lanes, window=window if window[0] else (0, 0, 0)), args, chunks)
