"""Gradients of windows that overlap, one or two columns apart: gathered, sixteen elements at a time.

A band of lines of windows goes in two steps. First what each window adds is kept, sixteen windows at a time; for maxima
the number of the tap that holds it stands beside it. Then each line of the image adds up, for each window that reaches
an element, what it adds, for maxima where the number is that of the element's tap: windows in row-major order, so that
sums have the bits of a walk over the windows, however the lines are shared out. Window, stride and whether the padding
before a line is odd are part of the source, sizes are not.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence

from ...core.backend import Arg, Operand, Program
from ...core.types import DType
from .conv_axes import Pair
from .epilogue import indent
from .pooling_wide import AHEAD, FAR, Taps

#: lines of windows in a band, and for how many there is room: those, and the ones before that reach into the band
BAND, ROOM = 6, 8
#: elements of room before and behind a kept line
MARGIN = 16

_HEAD = """from duograd.backends.cpu.wide_pairs import *
def kernel(args, chunk, nchunks):
    planes, h, w, p, q, top, left = args[0], args[1], args[2], args[3], args[4], args[5], args[6]
    x, out, g, dx, pitch = args[7], args[8], args[9], args[10], args[11]
    # Kept lines: what windows add, or 0, and the taps of their maxima, or -1 where there is no window.
    shares = args[12] + chunk * (pitch * SIZE * ROOM * 2)
    taps = shares + pitch * SIZE * ROOM
    for e in range(0, pitch * ROOM, 16):
        w_write_T(shares, e, types.NAME(0))
        w_write_T(taps, e, types.NAME(-1))
    far, ahead = planes * h * w > FAR, max(AHEAD, BAND * STEP * w * SIZE)
    lines = (h - 1 + top) // STEP + 1
    item, end = planes * lines * chunk // nchunks, planes * lines * (chunk + 1) // nchunks
    while item < end:
        plane, first = item // lines, item % lines
        last = min(lines, first + end - item)
        item += last - first
        for band in range(first - BEFORE, last, BAND):
            behind = min(band + BAND, last)
FIND
            for line in range(max(band, first), behind):
ADD
"""


def _ahead(size: int, stride: Pair, results: Sequence[str]) -> list[str]:
    """Lines that ask for what the next band reads: of the image, too, if `results` are more than one."""
    here = "((plane * h + y + {0}) * w + z)"
    asked = [
        f"    prefetch(x + {here.format(r)} * {size} + ahead + {k})"
        for r in range(stride[0]) for k in range(0, 16 * stride[1] * size, 64) if len(results) > 1
    ]  # fmt: skip
    asked += [
        f"    prefetch({name} + to * {size} + ahead // {stride[0] * stride[1]} + {k})"
        for name in results for k in range(0, 16 * size, 64)
    ]  # fmt: skip
    return ["if far:", *asked]


def _find(dtype: DType, size: Pair, stride: Pair) -> list[str]:
    """Lines that keep the taps of the maxima of a band, and its gradients."""
    t, number = dtype.char, f"types.{dtype.name}"
    across = Taps(t, size[1], stride[1])
    split, places = across.apart("b1", "inside{0}")
    body = [f"z, mask = column * {stride[1]} - left, w_mask(q, column)", *across.inside(), *split]
    body += [f"counts{s} = {place}" for s, place in enumerate(places)]
    find = [f"y, to = line * {stride[0]} - top, (plane * p + line) * q + column"]
    find += _ahead(dtype.itemsize, stride, ("out", "g"))
    find += [f"m = w_load_{t}(out, to, mask)", f"w_write_{t}(shares, at, w_load_{t}(g, to, mask))"]
    # Elements outside are 0, and no hits: they are compared with 1. Backwards, so that the first hit stays.
    find += [f"m{s} = w_where_{t}(counts{s}, m, {number}(1))" for s in range(size[1])]
    for r in reversed(range(size[0])):
        find += [f"if 0 <= y + {r} < h:", f"    e = (plane * h + y + {r}) * w + z"]
        split, places = across.apart(t, f"w_load_{t}(x, e + {{0}}, inside{{0}})")
        find += [f"    {text}" for text in split]
        for s in reversed(range(size[1])):
            find += [f"    v = {places[s]}", f"    hit = w_logical_or_b1(w_eq_{t}(v, m{s}), w_isnan_{t}(v))"]
            find += [f"    tap = w_where_{t}(hit, {number}({r * size[1] + s}), tap)"]
    line = [f"at, tap = (line & {ROOM - 1}) * pitch + column + {MARGIN}, w_fill_{t}({number}(-1))"]
    line += ["if 0 <= line < p:", *(f"    {text}" for text in find), f"w_write_{t}(taps, at, tap)"]
    body += ["for line in range(band, behind):", *(f"    {text}" for text in line)]
    return ["for column in range(0, q, 16):", *(f"    {text}" for text in body)]


def _share(dtype: DType, size: Pair, stride: Pair, include_pad: bool) -> list[str]:
    """Lines that keep what the means of a band add: to all elements of their windows, or to those in the image."""
    t, number = dtype.char, f"types.{dtype.name}"
    across = Taps(t, size[1], stride[1])
    body = [f"z, mask = column * {stride[1]} - left, w_mask(q, column)"]
    value = f"w_mul_{t}(share, {number}({dtype.array(1.0 / (size[0] * size[1])).item()!r}))"
    if not include_pad:
        split, places = across.apart(t, f"w_where_{t}(inside{{0}}, {number}(1), {number}(0))")
        counted = functools.reduce(lambda a, b: f"w_add_{t}({a}, {b})", places)
        body += [*across.inside(), *split, f"counted = {counted}"]
        value = f"w_div_{t}(share, w_mul_{t}(counted, {number}(min(h, y + {size[0]}) - max(0, y))))"
    line = [f"y, to = line * {stride[0]} - top, (plane * p + line) * q + column"]
    line += [*_ahead(dtype.itemsize, stride, ("g",)), f"share = w_load_{t}(g, to, mask)"]
    line += [f"share = w_where_{t}(mask, {value}, {number}(0))"]
    body += [
        "for line in range(band, behind):",
        f"    share = w_fill_{t}({number}(0))",
        "    if 0 <= line < p:",
    ]
    body += [*(f"        {text}" for text in line)]
    body += [f"    w_write_{t}(shares, (line & {ROOM - 1}) * pitch + column + {MARGIN}, share)"]
    return ["for column in range(0, q, 16):", *(f"    {text}" for text in body)]


def _add(dtype: DType, size: Pair, stride: Pair, odd: int, maxima: bool) -> list[str]:
    """Lines that add up the lines of the image at which a line of windows begins, and on to the next."""
    step, lines = stride[1], [f"zero = w_fill_{dtype.char}(types.{dtype.name}(0))"]
    for y in range(stride[0]):
        before = (size[0] - 1 - y) // stride[0]
        line = [f"line{k} = (line - {k} & {ROOM - 1}) * pitch + left // {step}" for k in range(before + 1)]
        line.append(f"for column in range(0, (w + {step - 1}) // {step}, 16):")
        line += [f"    {text}" for text in _sums(dtype, size, stride, odd, y, before, maxima)]
        lines += [f"y = line * {stride[0]} - top + {y}", "if 0 <= y < h:", *(f"    {text}" for text in line)]
    return lines


def _sums(
    dtype: DType, size: Pair, stride: Pair, odd: int, y: int, before: int, maxima: bool
) -> list[str]:  # fmt: skip
    """Lines for sixteen elements, or sixteen pairs: their sums over `before` lines of windows and the one that begins y
    lines above; what a window adds is read at its tap's distance."""
    t, number, step = dtype.char, f"types.{dtype.name}", stride[1]
    reads: dict[str, None] = {}
    sums = []
    for b in range(step):
        total = "zero"
        for k in reversed(range(before + 1)):
            for s in reversed(range((b + odd) % step, size[1], step)):
                name, at = f"{k}_{s + 1 - b}", f"line{k} + column + {(b + odd - s) // step + MARGIN}"
                reads |= {f"share{name} = w_read_{t}(shares, {at})": None}
                sums.append(f"d{b} = w_add_{t}({total}, share{name})")
                if maxima:
                    reads |= {f"tap{name} = w_read_{t}(taps, {at})": None}
                    hit = f"w_eq_{t}(tap{name}, {number}({(y + k * stride[0]) * size[1] + s}))"
                    sums[-1] = f"d{b} = w_where_{t}({hit}, w_add_{t}({total}, share{name}), {total})"
                total = f"d{b}"
    ahead = range(AHEAD, AHEAD + 16 * step * dtype.itemsize, 64)
    asked = ["if far:", *(f"    prefetch(dx + to * {dtype.itemsize} + {end})" for end in ahead)]
    values = ["d0"] if step == 1 else [f"w_low_{t}(d0, d1)", f"w_high_{t}(d0, d1)"]
    stores = [f"w_store_{t}(dx, to, {values[0]}, w_mask(w, {step} * column))"]
    if step == 2:
        stores += ["if 2 * column + 16 < w:"]
        stores += [f"    w_store_{t}(dx, to + 16, {values[1]}, w_mask(w, 2 * column + 16))"]
    return [f"to = (plane * h + y) * w + {step} * column", *asked, *reads, *sums, *stores]


@functools.cache
def gradient_source(dtype: DType, size: Pair, stride: Pair, odd: int, means: str = "") -> str:
    """Kernel: the gradient of the maxima of each window. odd: left % the step of columns. Slots: see `_HEAD`.

    means: of their means instead, over "all" elements of a window or over those "inside" the image.
    """
    find = _share(dtype, size, stride, means == "all") if means else _find(dtype, size, stride)
    text = _HEAD.replace("FIND", indent(find, 12).rstrip("\n"))
    text = text.replace("ADD", indent(_add(dtype, size, stride, odd, not means), 16).rstrip("\n"))
    for name, value in (
        ("BEFORE", (size[0] - 1) // stride[0]), ("BAND", BAND), ("AHEAD", AHEAD), ("ROOM", ROOM), ("STEP", stride[0]),
        ("FAR", FAR // dtype.itemsize), ("SIZE", dtype.itemsize), ("_T(", f"_{dtype.char}("), ("NAME", dtype.name),
    ):  # fmt: skip
        text = text.replace(name, str(value))
    title = f"# {'avg' if means else 'max'}_pool_x_grad {dtype.char} window {size[0]}x{size[1]}"
    title += f" stride {stride[0]}x{stride[1]}{', odd padding' if odd else ''}"
    return f"{title}{' without padding' if means == 'inside' else ''}\n{text}"


def applies(size: Pair, stride: Pair) -> bool:
    """Whether windows overlap and are one or two columns apart."""
    return stride[1] < 3 and (stride[0] < size[0] or stride[1] < size[1])


def maximum_gradient(
    program: Program, g: Operand, out: Operand, x: Operand, dx: Operand, size: Pair, stride: Pair,
    padding: Sequence[Pair],
) -> None:  # fmt: skip
    """Append the gradient for x of maxima `out`; all are contiguous."""
    _launch(program, g, (x.slot, out.slot), dx, size, stride, padding, "")


def mean_gradient(
    program: Program,
    g: Operand,
    dx: Operand,
    size: Pair,
    stride: Pair,
    padding: Sequence[Pair],
    include: bool,
) -> None:
    """Append the gradient of means; both are contiguous."""
    _launch(program, g, (0, 0), dx, size, stride, padding, "all" if include else "inside")


def _launch(
    program: Program, g: Operand, forward: Sequence[Arg], dx: Operand, size: Pair, stride: Pair,
    padding: Sequence[Pair], means: str,
) -> None:  # fmt: skip
    planes, (h, w), (p, q), bytes_of = dx.shape[0] * dx.shape[1], dx.shape[2:], g.shape[2:], dx.dtype.itemsize
    top, left = padding[0][0], padding[1][0]
    lines = (h - 1 + top) // stride[0] + 1
    chunks = program.chunks(planes * lines, 2.0 * bytes_of * (dx.size + g.size) * (1 if means else 2))
    pitch = -(-max(q, -(-w // stride[1])) // 16) * 16 + 2 * MARGIN
    kept = program.scratch(chunks * pitch * bytes_of * ROOM * 2)
    args: list[Arg] = [planes, h, w, p, q, top, left, *forward, g.slot, dx.slot, pitch, kept]
    program.launch(gradient_source(dx.dtype, size, stride, left % stride[1], means), args, chunks)
