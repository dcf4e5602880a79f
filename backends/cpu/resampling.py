"""Weighted picks along an axis, and their transpose; windows laid side by side (unfold) and added up (fold)."""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from typing import Any

from ...core.backend import Arg, Kernel, Operand, Program
from ...core.lower import copy
from ...core.types import DType
from .conv_axes import Pair, Row
from .panels import fill_zero
from .pooling_lines import head_and_taps, slots, windows_of

#: taps whose places and weights lie in working memory, and lines for which these are brought together once
_FEW, _BAND = 16, 32


def _dense(program: Program, x: Operand) -> Operand:
    if x.is_contiguous:
        return x
    full = program.scratch_operand(x.dtype, x.shape)
    copy(program, x, full)
    return full


# In the texts T stands for the dtype's short name and NAME for its long one. Slots: x [lead, n, rest], index and
# weight [m, taps], out [lead, m, rest].
_HEAD = """
def kernel(args, chunk, nchunks):
    x, index, weight, out = args[0], args[1], args[2], args[3]
    lead, n, m, rest, taps = args[4], args[5], args[6], args[7], args[8]
"""

_SUM = """# resample T
HEAD
    rows = lead * m
    for item in range(rows * chunk // nchunks, rows * (chunk + 1) // nchunks):
        i, base, to = item % m, item // m * n, item * rest
        # Two taps at a time, so that the line is written half as often; the order of additions stays.
        for t in range(taps % 2):
            w, at = load_T(weight, i * taps), (base + min(max(load_i64(index, i * taps), 0), n - 1)) * rest
            for e in range(rest):
                store_out_T(out, to + e, w * load_in_T(x, at + e), 0)
        for t in range(taps % 2, taps, 2):
            k = i * taps + t
            w, v = load_T(weight, k), load_T(weight, k + 1)
            at = (base + min(max(load_i64(index, k), 0), n - 1)) * rest
            beside = (base + min(max(load_i64(index, k + 1), 0), n - 1)) * rest
            if t == 0:
                for e in range(rest):
                    store_out_T(out, to + e, w * load_in_T(x, at + e) + v * load_in_T(x, beside + e), 0)
            else:
                for e in range(rest):
                    total = load_T(out, to + e) + w * load_in_T(x, at + e)
                    store_out_T(out, to + e, total + v * load_in_T(x, beside + e), 0)
"""

_SUM_LAST = """# resample the last axis T
HEAD
    for item in range(lead * chunk // nchunks, lead * (chunk + 1) // nchunks):
        for i in range(m):
            total = types.NAME(0)
            for t in range(taps):
                j = min(max(load_i64(index, i * taps + t), 0), n - 1)
                total += load_T(weight, i * taps + t) * load_T(x, item * n + j)
            store_T(out, item * m + i, total)
"""

# Of few taps: sixteen results side by side, whose places and weights serve a band of lines.
_SUM_LAST_WIDE = """# resample the last axis on wide values T
HEAD
    places, numbers = stack(FEW * 128), stack(FEW * 16 * SIZE)
    first, end = lead * chunk // nchunks, lead * (chunk + 1) // nchunks
    for band in range(first, end, BAND):
        for i in range(0, m, 16):
            mask = w_mask(m, i)
            for t in range(taps):
                j = w_gather_i64(index, i * taps + t, taps, mask)
                w_write_i64(places, t * 16, w_minimum_i64(w_maximum_i64(j, 0), n - 1))
                w_write_T(numbers, t * 16, w_gather_T(weight, i * taps + t, taps, mask))
            for item in range(band, min(band + BAND, end)):
                total = w_fill_T(types.NAME(0))
                for t in range(taps):
                    v = w_find_T(x + item * n * SIZE, w_read_i64(places, t * 16), mask)
                    total = w_add_T(total, w_mul_T(w_read_T(numbers, t * 16), v))
                w_store_T(out, item * m + i, total, mask)
"""

# x is the gradient of the result here, [lead, m, rest], and out that of x, [lead, n, rest].
_SPREAD = """# resample_x_grad T
HEAD
    items = lead * parts
    for item in range(items * chunk // nchunks, items * (chunk + 1) // nchunks):
        before, part = item // parts, item % parts
        first, last = rest * part // parts, rest * (part + 1) // parts
        for k in range(n):
            for e in range(first, last):
                store_T(out, (before * n + k) * rest + e, types.NAME(0))
        for i in range(m):
            at = (before * m + i) * rest
            for t in range(taps):
                to = (before * n + min(max(load_i64(index, i * taps + t), 0), n - 1)) * rest
                w = load_T(weight, i * taps + t)
                for e in range(first, last):
                    store_out_T(out, to + e, load_T(out, to + e) + w * load_in_T(x, at + e), 0)
"""

_SPREAD_LAST = """# resample_x_grad of the last axis T
HEAD
    for before in range(lead * chunk // nchunks, lead * (chunk + 1) // nchunks):
        for k in range(n):
            store_T(out, before * n + k, types.NAME(0))
        for i in range(m):
            g = load_T(x, before * m + i)
            for t in range(taps):
                to = before * n + min(max(load_i64(index, i * taps + t), 0), n - 1)
                store_T(out, to, load_T(out, to) + load_T(weight, i * taps + t) * g)
"""


@functools.cache
def _text(template: str, dtype: DType) -> str:
    text = template.replace("HEAD", _HEAD.strip("\n"))
    text = text.replace("FEW", str(_FEW)).replace("BAND", str(_BAND)).replace("SIZE", str(dtype.itemsize))
    text = text.replace("    items = lead * parts\n", "    parts = args[9]\n    items = lead * parts\n")
    return (
        text.replace("_T(", f"_{dtype.char}(").replace(" T\n", f" {dtype.char}\n").replace("NAME", dtype.name)
    )


def _slots(x: Operand, index: Operand, weight: Operand, out: Operand, n: int, axis: int) -> list[Arg]:
    lead, rest = math.prod(x.shape[:axis]), math.prod(x.shape[axis + 1 :])
    m, taps = index.shape
    return [x.slot, index.slot, weight.slot, out.slot, lead, n, m, rest, taps]


def resample(program: Program, inputs: Sequence[Any], outputs: Sequence[Operand], *, axis: int) -> None:
    """Append the weighted sums of picks along an axis."""
    out = outputs[0]
    if out.size == 0:
        return
    x, index, weight = (_dense(program, v) for v in inputs)
    program.wave()
    args = _slots(x, index, weight, out, x.shape[axis], axis)
    lead, rest = math.prod(x.shape[:axis]), math.prod(x.shape[axis + 1 :])
    last = _SUM_LAST_WIDE if index.shape[1] <= _FEW else _SUM_LAST
    template = last if rest == 1 else _SUM
    items = lead if rest == 1 else lead * out.shape[axis]
    chunks = program.chunks(items, 4.0 * out.size * index.shape[1])
    program.launch(_text(template, x.dtype), args, chunks)


def resample_x_grad(
    program: Program, inputs: Sequence[Any], outputs: Sequence[Operand], *, size: int, axis: int
) -> None:
    """Append the transpose of resample."""
    out = outputs[0]
    if inputs[0].size == 0:
        fill_zero(program, out)
        return
    dy, index, weight = (_dense(program, v) for v in inputs)
    program.wave()
    args = _slots(dy, index, weight, out, size, axis)
    lead, rest = math.prod(dy.shape[:axis]), math.prod(dy.shape[axis + 1 :])
    work = 4.0 * dy.size * index.shape[1] + 4.0 * out.size
    if rest == 1:
        program.launch(_text(_SPREAD_LAST, dy.dtype), args, program.chunks(lead, work))
    else:
        # Columns are shared out where there are few slices: an element's sum stays with one thread.
        parts = max(1, min(rest // 64, 64 // lead))
        chunks = program.chunks(lead * parts, work)
        program.launch(_text(_SPREAD, dy.dtype), [*args, parts], chunks)


_UNFOLD = """# unfold T
HEAD
    items = planes * taps_z * taps_y * taps_x
    for item in range(items * chunk // nchunks, items * (chunk + 1) // nchunks):
        tap, base = item % (taps_z * taps_y * taps_x), item // (taps_z * taps_y * taps_x) * d * h * w
        tz, ty, tx = tap // (taps_y * taps_x), tap // taps_x % taps_y, tap % taps_x
        for place in range(o * p):
            fore, line, to = place // p, place % p, (item * o * p + place) * q
            for e in range(q):
                store_T(out, to + e, types.NAME(0))
            z, y, x0 = fore * step_z + tz * tap_z - front, line * step_y + ty * tap_y - top, tx * tap_x - left
            if 0 <= z < d and 0 <= y < h:
                low, high = max(0, -(x0 // step_x)), min(q, -((x0 - w) // step_x))
                at = base + (z * h + y) * w + x0
                for e in range(low, high):
                    store_out_T(out, to + e, load_in_T(x, at + e * STEP), 0)
"""

# x holds the windows here, out the image that they add up to.
_FOLD = """# fold T
HEAD
    taps = taps_z * taps_y * taps_x
    for plane in range(planes * chunk // nchunks, planes * (chunk + 1) // nchunks):
        base = plane * d * h * w
        for e in range(d * h * w):
            store_T(out, base + e, types.NAME(0))
        for place in range(taps * o * p):
            fore, line, tap = place // p % o, place % p, place // (o * p)
            source = (plane * taps * o * p + place) * q
            tz, ty, tx = tap // (taps_y * taps_x), tap // taps_x % taps_y, tap % taps_x
            z, y, x0 = fore * step_z + tz * tap_z - front, line * step_y + ty * tap_y - top, tx * tap_x - left
            if 0 <= z < d and 0 <= y < h:
                low, high = max(0, -(x0 // step_x)), min(q, -((x0 - w) // step_x))
                at = base + (z * h + y) * w + x0
                for e in range(low, high):
                    total = load_T(out, at + e * STEP) + load_in_T(x, source + e)
                    store_out_T(out, at + e * STEP, total, 0)
"""


def unfold(
    program: Program, inputs: Sequence[Any], outputs: Sequence[Operand], *, window: Row, stride: Row,
    padding: tuple[Pair, ...], dilation: Row,
) -> None:  # fmt: skip
    """Append the elements of all windows, [N, C * taps, positions]."""
    out = outputs[0]
    if out.size == 0:
        return
    x = _dense(program, inputs[0])
    program.wave()
    sizes = positions(x.shape[2:], window, stride, padding, dilation)
    args = [*slots(x, windows_of(x, sizes), (window, stride, padding, dilation)), x.slot, out.slot]
    items = x.shape[0] * x.shape[1] * math.prod(window)
    program.launch(head_and_taps(_UNFOLD, x.dtype, stride[-1]), args, program.chunks(items, 8.0 * out.size))


def fold(
    program: Program, inputs: Sequence[Any], outputs: Sequence[Operand], *, size: Row, window: Row, stride: Row,
    padding: tuple[Pair, ...], dilation: Row,
) -> None:  # fmt: skip
    """Append the sum of windows, [N, C, *size]."""
    out = outputs[0]
    if out.size == 0:
        return
    x = _dense(program, inputs[0])
    program.wave()
    sizes = positions(size, window, stride, padding, dilation)
    args = [*slots(out, windows_of(out, sizes), (window, stride, padding, dilation)), x.slot, out.slot]
    chunks = program.chunks(out.shape[0] * out.shape[1], 8.0 * x.size)
    program.launch(head_and_taps(_FOLD, x.dtype, stride[-1]), args, chunks)


def positions(
    sizes: Sequence[int], window: Row, stride: Row, padding: tuple[Pair, ...], dilation: Row
) -> Row:
    """How many windows there are along each axis."""
    return tuple(
        (n + sum(pads) - d * (k - 1) - 1) // s + 1
        for n, k, s, pads, d in zip(sizes, window, stride, padding, dilation)
    )


KERNELS: dict[str, Kernel] = {
    "resample": resample, "resample_x_grad": resample_x_grad, "unfold": unfold, "fold": fold,
}  # fmt: skip
