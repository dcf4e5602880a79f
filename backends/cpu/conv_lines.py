"""Depthwise convolution with small windows on wide values: sixteen columns at a time, read where the image stands.

Lines and columns outside the image are zeros under masks, which cost nothing to read on the CPUs that come here. Each
line of the image is loaded once for the lines of results that it reaches, and an epilogue finishes these in registers.
Windows and steps are part of the source, sizes are not. Chains of additions are those of `conv_direct.py`.
"""

from __future__ import annotations

import functools
import math
from typing import NamedTuple

from ...core.backend import Arg, Program
from ...core.types import DType
from .conv_axes import Product, by_place, output_steps
from .epilogue import FusedEpilogue, indent
from .target import has_masked_loads, target

#: lines and columns of windows, and their steps
_WINDOWS, _STEPS = ((3, 3), (5, 5)), (1, 2)
#: windows that have steps of 1: large ones, and those that gradients of windows in steps of 2 are made of
_BY_ONE = ((7, 7), (1, 1), (1, 2), (2, 1), (2, 2), (1, 3), (2, 3), (3, 2))
#: lines of results that may be summed up together: small images have multiples of seven
_ROWS = 4, 7
#: with 16 registers
_FEWER = 4
#: bytes of a channel's results that are one piece of work
_BAND_BYTES = 1 << 13
#: numbers of a window that stay in registers
_KEPT = 9
#: elements of a line of zeros: those before its first, and all
_BEFORE, _ZEROS = 8, 64

_HEAD = """from duograd.backends.cpu.wide_pairs import *
def kernel(args, chunk, nchunks):
    images, groups, rows, band = args[0], args[1], args[2], args[3]
    d, o, step_z, origin_z = args[4], args[5], args[6], args[7]
    h, p, tap_y, origin_y = args[8], args[9], args[10], args[11]
    w, q, tap_x, origin_x = args[12], args[13], args[14], args[15]
    x, x_n, x_c, x_z, x_y = args[16], args[17], args[18], args[19], args[20]
    f, f_row, f_y, f_x, f_group = args[21], args[22], args[23], args[24], args[25]
    out, out_z, out_y, out_x = args[26], args[27], args[28], args[29]
    out_area, out_line, out_plane, out_first = args[30], args[31], args[32], args[33]
    zeros = args[34] + chunk * ZEROS * SIZE
EPILOGUE_SLOTS
    for e in range(ZEROS):
        store_T(zeros, e, types.NAME(0))
    zeros += BEFORE * SIZE
    bands = (p + band - 1) // band
    items = images * groups * o * bands
    item, end_item = items * chunk // nchunks, items * (chunk + 1) // nchunks
    # Bands go to threads by their place, as in the layers before and after.
    group, rest = item % groups, item // groups
    line0, rest = rest % bands * band, rest // bands
    front, image = rest % o, rest // o
    batch0, batch1, block_row, lane = 0, 0, 0, 0
    while item < end_item:
        item += 1
        batch2 = image
        end_line = min(p, line0 + band)
        z = front * step_z + origin_z
        height = h if 0 <= z < d else 0
        source = x + image * x_n + group * x_c + z * x_z
        for row in range(rows):
            first_row = group * rows + row
            numbers = f + group * f_group + row * f_row
            result = (image * groups * rows + first_row) * out_plane + out_first + front * out_z * out_area
            first_column = 0
NUMBERS
            for column in range(0, q, COLUMNS):
                left = column * STEP_X + origin_x
                mask = w_mask(min(q, column + COLUMNS), column)
MASKS
                for line in range(line0, end_line, ROWS):
                    y = line * STEP_Y + origin_y + min(0, (TAPS_Y - 1) * tap_y)
SUMS
        group += 1
        if group == groups:
            group = 0
            line0 += band
            if line0 >= p:
                line0, front = 0, front + 1
                if front == o:
                    front, image = 0, image + 1
"""


def applies(product: Product) -> bool:
    """Whether a product with few rows is computed here."""
    front, y, x = product.axes
    steps, window = {y.step, x.step}, (y.taps, x.taps)
    return (
        has_masked_loads() and product.channels == front.taps == 1
        and (window in _WINDOWS or (window in _BY_ONE and steps == {1}))
        and product.x.strides[4] == 1 and all(a.step in _STEPS and abs(a.tap_step) == 1 for a in (y, x))
        and (x.step == 1 or x.tap_step == 1)
    )  # fmt: skip


class _Window(NamedTuple):
    """What the source depends on: sizes and steps, lines of results at a time, whether results have steps along x,
    whether there are 32 registers, whether the first tap stands alone, so that loads for two are whole vectors, and
    whether chains go line by line (two lines of taps), from the last line upwards."""

    taps_y: int
    taps_x: int
    step_y: int
    step_x: int
    rows: int
    apart: bool
    many: bool
    alone: bool
    upwards: bool


def _sums(char: str, window: _Window) -> tuple[list[str], list[str], list[str]]:
    """Lines that take numbers for a channel, that make masks for a column, and sums s0, s1, ... of lines of results."""
    taps_y, taps_x, step_y, step_x, rows, _, many, alone, upwards = window
    # Numbers go with the lines of the image upwards.
    at = f"numbers + ({taps_y - 1} * (tap_y < 0) + {{1}} * tap_y) * f_y + {{0}} * f_x"
    fill = f"n{{0}}_{{1}} = w_fill_{char}(load_{char}({at}, 0))"
    numbers = [[fill.format(tap, k) for k in range(taps_y)] for tap in range(taps_x)]
    lines = range((rows - 1) * step_y + taps_y)
    # Where vectors of a line begin: a tap's of each window, or neighbours that are taken apart.
    starts = [f"{k} * tap_x" for k in range(taps_x)]
    # Of two taps side by side the first has the even columns; a tap may stand alone before them.
    first = lambda tap: tap - (tap - alone) % 2 if tap else 0
    if step_x == 2:
        starts = [str(first(tap) + half) for tap in range(1 if many else taps_x) for half in (0, 16)]
    low, high = "w_mask(max(0, -left - {0}), 0)", "w_mask(max(0, w - left - {0}), 0)"
    masks = [
        f"inside{k} = w_logical_and_b1({high.format(s)}, w_logical_not_b1({low.format(s)}))"
        for k, s in enumerate(starts)
    ]
    text = [
        f"a{r} = source + (y + {r}) * x_y + left * SIZE if 0 <= y + {r} < height else zeros" for r in lines
    ]
    text += [f"s{i} = w_fill_{char}(types.NAME(0))" for i in range(rows)]
    if not many:
        # Lines of the next turn: a column's worth of each is no stream that the CPU would follow by itself.
        ahead = [r for r in lines if r >= taps_y - step_y]
        text.append(f"ahead = source + (y + {rows * step_y}) * x_y + left * SIZE")
        text += [f"prefetch(ahead + {r} * x_y + {k})" for r in ahead for k in range(0, 64 * step_x, 64)]
    # More numbers than there are registers are taken anew for each sum.
    early = taps_y * taps_x <= _KEPT
    few = early and step_x == 2 and many
    # Odd columns of few taps stay in registers for the next one.
    keeps = early and not many
    if taps_y == 2:
        pick = f"v{{0}}_{{1}} = w_pick_{char}(a{{0}}, {{1}} * tap_x, inside{{1}})"
        text += [pick.format(r, tap) for r in lines for tap in range(taps_x)]
        for k in (1, 0) if upwards else (0, 1):
            for tap in range(taps_x):
                text += [f"s{i} = w_fma_{char}(n{tap}_{k}, v{i + k}_{tap}, s{i})" for i in range(rows)]
        return [line for column in numbers for line in column], masks, text
    for tap in range(taps_x):
        text += [] if early else numbers[tap]
        for r in lines:
            if step_x == 1:
                text.append(f"v = w_pick_{char}(a{r}, {starts[tap]}, inside{tap})")
            elif not many and keeps and first(tap) < tap:
                text.append(f"v = odds{r}")
            elif not many:
                half, k = ("odds" if first(tap) < tap else "evens"), first(tap)
                text.append(f"u = w_pick_{char}(a{r}, {k}, inside{2 * tap})")
                text.append(f"t = w_pick_{char}(a{r}, {k + 16}, inside{2 * tap + 1})")
                text.append(f"v = w_{half}_{char}(u, t)")
                if keeps and tap + 1 < taps_x and first(tap + 1) == tap:
                    text.append(f"odds{r} = w_odds_{char}(u, t)")
            elif tap == 0:
                text += [f"u = w_pick_{char}(a{r}, 0, inside0)", f"v = w_pick_{char}(a{r}, 16, inside1)"]
                text += [f"odd{r} = w_odd_{char}(u, v)", f"even{r} = w_even_{char}(u, v)", f"v = even{r}"]
            else:
                # Lanes that come in from the end stand behind the columns that are wanted.
                half = f"{'odd' if tap % 2 else 'even'}{r}"
                text.append(f"v = w_from{tap // 2}_{char}({half}, {half})" if tap > 1 else f"v = {half}")
            for k in range(taps_y):
                i, rest = divmod(r - k, step_y)
                if rest == 0 and 0 <= i < rows:
                    text.append(f"s{i} = w_fma_{char}(n{tap}_{k}, v, s{i})")
        if not few:
            # Else LLVM sums up one line after the other, and what it has loaded meanwhile finds no room.
            text += [f"w_made_{char}(s{i})" for i in range(rows)]
    if step_x == 2 and not many:
        text += [f"s{i} = w_sorted_{char}(s{i})" for i in range(rows)]
    return [line for column in numbers for line in column] if early else [], masks, text


@functools.lru_cache(maxsize=256)
def _source(dtype: DType, window: _Window, head: str, row: tuple[str, ...], finish: tuple[str, ...]) -> str:
    """The kernel. head, row, finish: an epilogue's lines for the kernel, for a channel and for the wide value x0."""
    char = dtype.char
    numbers, masks, sums = _sums(char, window)
    for i in range(window.rows):
        at = f"result + (line + {i}) * out_y * out_line + column * out_x"
        if finish:
            line = [f"x0, lane = s{i}, front * out_area + (line + {i}) * out_line + column", *finish]
        elif window.apart:
            line = [f"w_scatter_{char}(out, {at}, out_x, s{i}, mask)"]
        else:
            line = [f"w_store_{char}(out, {at}, s{i}, mask)"]
        sums += [f"if line + {i} < end_line:", *("    " + text for text in line)]
    text = _HEAD.replace("NUMBERS\n", indent([*numbers, *row], 12))
    text = text.replace("MASKS\n", indent(masks, 16)).replace("SUMS\n", indent(sums, 20))
    text = text.replace("EPILOGUE_SLOTS\n", head)
    columns = 16 - (window.taps_x - 1) // 2 * (window.step_x == 2 and window.many)
    for name, value in (
        ("ZEROS", _ZEROS), ("BEFORE", _BEFORE), ("COLUMNS", columns), ("ROWS", window.rows), ("SIZE", dtype.itemsize),
        ("STEP_X", window.step_x), ("STEP_Y", window.step_y), ("TAPS_Y", window.taps_y), ("NAME", dtype.name),
    ):  # fmt: skip
        text = text.replace(name, str(value))
    title = f"# depthwise conv {char} {window.taps_y}x{window.taps_x} in steps of {window.step_y}x{window.step_x}\n"
    return title + text.replace("_T(", f"_{char}(")


_FIRST_SLOT = 35


def windowed(program: Program, product: Product, fused: FusedEpilogue | None = None) -> None:
    """Append one launch of the windowed product. fused: for a result without gaps."""
    x, w, out, _, filters, axes, groups = product
    (front, y, z), size, images = axes, out.dtype.itemsize, out.shape[0]
    # Each time loads taps_y - 1 lines more.
    few = y.taps * z.taps <= _KEPT and z.step == 2  # halves of lines take the registers
    many = target().registers == 32
    some = _ROWS[: 2 - few] if many else (_FEWER,)
    rows = min(some, key=lambda n: -(-y.out // n) * (n + (y.taps - 1) / 2))
    band = -(-_BAND_BYTES // (z.out * size * rows)) * rows
    if by_place(out):
        band = min(band, max(rows, -(-y.out * images * front.out // program.backend.num_threads())))
    items = images * groups * front.out * -(-y.out // band)
    chunks = program.chunks(
        items, 1.0 * math.prod(a.out for a in axes) * images * out.shape[1] * y.taps * z.taps
    )
    steps = [a.filter_step * s * size for a, s in zip(axes, w.strides[2:])]
    shifted = w.offset + size * sum(a.filter_origin * s for a, s in zip(axes, w.strides[2:]))
    args: list[Arg] = [images, groups, out.shape[1] // groups, band]
    args += [front.size, front.out, front.step, front.origin]
    for a in (y, z):
        args += [a.size, a.out, a.tap_step, a.origin]
    args += [x.slot, *(s * size for s in x.strides[:4])]
    args += [w._replace(offset=shifted).slot, filters[0] * size, *steps[1:], filters[2] * size]
    args += [
        out.slot,
        *(a.out_step for a in axes),
        *output_steps(out, axes),
        program.scratch(chunks * _ZEROS * size),
    ]
    end = FusedEpilogue.in_registers(fused, _FIRST_SLOT)
    row = () if fused is None else ("there = (image * groups * rows + first_row) * out_plane", *end.row)
    alone = not many and z.step == 2 and z.origin % 2 == 1
    upwards = y.taps == 2 and y.tap_step < 0
    window = _Window(y.taps, z.taps, y.step, z.step, rows, z.out_step != 1, many, alone, upwards)
    program.launch(_source(out.dtype, window, end.head, row, end.lines), [*args, *end.slots], chunks)
