"""Pooling of any window over three spatial axes: a line of results at a time, tap by tap.

Windows, strides and dilations are slots here, so that one kernel serves all that are too rare to be unrolled
(pooling.py). One or two spatial axes are seen with axes of size 1 before them. Results do not depend on chunks.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence

from ...core.backend import Arg, Operand, Program
from ...core.types import DType, int64
from .conv_axes import Pair, Row, lift, lift_window

# In the texts T stands for the dtype's short name and NAME for its long one.
_HEAD = """
def kernel(args, chunk, nchunks):
    planes = args[0]
    d, o, taps_z, step_z, tap_z, front = args[1], args[2], args[3], args[4], args[5], args[6]
    h, p, taps_y, step_y, tap_y, top = args[7], args[8], args[9], args[10], args[11], args[12]
    w, q, taps_x, step_x, tap_x, left = args[13], args[14], args[15], args[16], args[17], args[18]
    x, out = args[19], args[20]
"""

# For each tap of the window: the results [low, high) whose element lies in the image; that of e is at + e * step_x.
# Only taps that meet the image are looked at: a window may be wider than any memory.
_TAPS = """
z0, y0 = fore * step_z - front, line * step_y - top
first_z, first_y = max(0, -(z0 // tap_z)), max(0, -(y0 // tap_y))
first_x = max(0, -(((q - 1) * step_x - left) // tap_x))
some_y = max(0, min(taps_y, -((y0 - h) // tap_y)) - first_y)
some_x = max(0, min(taps_x, -((-left - w) // tap_x)) - first_x)
tap, taps = 0, max(0, min(taps_z, -((z0 - d) // tap_z)) - first_z) * some_y * some_x
while tap < taps:
    tx = tap % some_x
    x0 = (first_x + tx) * tap_x - left
    low, high = max(0, -(x0 // step_x)), min(q, -((x0 - w) // step_x))
    if low >= high:  # on to the first tap that the result before `low` has in the image
        ahead = max(1, -((x0 + (min(low, q) - 1) * step_x) // tap_x))
        tap += min(ahead, some_x - tx)
        continue
    tz, ty = first_z + tap // (some_y * some_x), first_y + tap // some_x % some_y
    at = ((z0 + tz * tap_z) * h + y0 + ty * tap_y) * w + x0
    tap += 1
"""

_MAX = """# max_pool of any window T
HEAD
    items = planes * o * p
    for item in range(items * chunk // nchunks, items * (chunk + 1) // nchunks):
        line, fore, base = item % p, item // p % o, item // (o * p) * d * h * w
        to = item * q
        for e in range(q):
            store_T(out, to + e, types.NAME(-1e999))
TAPS8
            for e in range(low, high):
                m, v = load_T(out, to + e), load_in_T(x, base + at + e * STEP)
                store_out_T(out, to + e, v if (v > m) | (v != v) else m, 0)
"""

_INDEX = """# max_pool_index of any window T
HEAD
    best = args[21] + chunk * args[22]
    items = planes * o * p
    for item in range(items * chunk // nchunks, items * (chunk + 1) // nchunks):
        line, fore, base = item % p, item // p % o, item // (o * p) * d * h * w
        to = item * q
        for e in range(q):
            store_T(best, e, types.NAME(-1e999))
        for e in range(q):
            store_i64(out, to + e, -1)
TAPS8
            for e in range(low, high):
                m, v, i = load_T(best, e), load_in_T(x, base + at + e * STEP), load_i64(out, to + e)
                better = (v > m) | ((v != v) & (m == m)) | (i < 0)
                store_out_T(best, e, v if better else m, 0)
                store_out_i64(out, to + e, at + e * STEP if better else i, 1)
"""

# Divides a line by how many elements each window counts: along an axis, those from `low` below `high`.
_DIVIDE = """
inner, end, count = 0, q, divisor
if divisor == 0:
    first_z, first_y = fore * step_z - front, line * step_y - top
    count = min(taps_z, -((first_z - high_z) // tap_z)) - max(0, -((first_z - low_z) // tap_z))
    count *= min(taps_y, -((first_y - high_y) // tap_y)) - max(0, -((first_y - low_y) // tap_y))
    # Windows from `inner` below `end` lie between the limits.
    inner = min(q, max(0, -(-(low_x + left) // step_x)))
    end = max(inner, min(q, (high_x - 1 + left - (taps_x - 1) * tap_x) // step_x + 1))
    for part in range(2):
        for e in range(0 if part == 0 else end, inner if part == 0 else q):
            first_x = e * step_x - left
            some = min(taps_x, -((first_x - high_x) // tap_x)) - max(0, -((first_x - low_x) // tap_x))
            store_T(RESULT + e, load_T(TOTAL + e) / types.NAME(count * some))
    count *= taps_x
for e in range(inner, end):
    store_out_T(RESULT + e, load_T(TOTAL + e) / types.NAME(count), 0)
"""

_LIMITS = """
    divisor, low_z, low_y, low_x = args[21], args[22], args[23], args[24]
    high_z, high_y, high_x = args[25], args[26], args[27]
"""

_MEAN = """# avg_pool of any window T
HEAD
LIMITS
    items = planes * o * p
    for item in range(items * chunk // nchunks, items * (chunk + 1) // nchunks):
        line, fore, base = item % p, item // p % o, item // (o * p) * d * h * w
        to = item * q
        for e in range(q):
            store_T(out, to + e, types.NAME(0))
TAPS8
            for e in range(low, high):
                store_out_T(out, to + e, load_T(out, to + e) + load_in_T(x, base + at + e * STEP), 0)
DIVIDE8
"""

# Here x is the gradient of the results and out that of the image.
_SPREAD = """# avg_pool_x_grad of any window T
HEAD
LIMITS
    share = args[28] + chunk * args[29]
    for plane in range(planes * chunk // nchunks, planes * (chunk + 1) // nchunks):
        base = plane * d * h * w
        for e in range(d * h * w):
            store_T(out, base + e, types.NAME(0))
        for item in range(o * p):
            line, fore = item % p, item // p
            source = (plane * o * p + item) * q
DIVIDE12
TAPS12
                for e in range(low, high):
                    total = load_T(out, base + at + e * STEP) + load_in_T(share, e)
                    store_out_T(out, base + at + e * STEP, total, 0)
"""

_PICK = """# pick_pixels T
def kernel(args, chunk, nchunks):
    planes, channels, shared, count, size = args[0], args[1], args[2], args[3], args[4]
    x, index, out = args[5], args[6], args[7]
    for plane in range(planes * chunk // nchunks, planes * (chunk + 1) // nchunks):
        places = (plane // channels if shared else plane) * count
        for e in range(count):
            i = load_i64(index, places + e)
            if 0 <= i < size:
                store_T(out, plane * count + e, load_T(x, plane * size + i))
            else:
                store_T(out, plane * count + e, MISSING)
"""

_PUT = """# put_pixels T
def kernel(args, chunk, nchunks):
    planes, channels, shared, count, size = args[0], args[1], args[2], args[3], args[4]
    v, index, out, add = args[5], args[6], args[7], args[8]
    for plane in range(planes * chunk // nchunks, planes * (chunk + 1) // nchunks):
        places = (plane // channels if shared else plane) * count
        to = plane * size
        for e in range(size):
            store_T(out, to + e, ZERO)
        if add:
            for e in range(count):
                i = load_i64(index, places + e)
                if 0 <= i < size:
                    store_T(out, to + i, SUM)
        else:
            for e in range(count):
                i = load_i64(index, places + e)
                if 0 <= i < size:
                    store_T(out, to + i, load_T(v, plane * count + e))
"""


def _block(text: str, depth: int) -> str:
    return "".join(f"{' ' * depth}{line}\n" for line in text.strip("\n").splitlines()).rstrip()


def _divide(result: str, total: str) -> str:
    return _DIVIDE.replace("RESULT", result).replace("TOTAL", total)


@functools.cache
def head_and_taps(template: str, dtype: DType, step: int) -> str:
    """The kernel; results one or two columns apart are known to LLVM, which then uses whole vectors."""
    text = template.replace("HEAD", _HEAD.strip("\n")).replace("LIMITS", _LIMITS.strip("\n"))
    for depth in (8, 12, 16):
        text = text.replace(f"TAPS{depth}", _block(_TAPS, depth))
        line = ("out, to", "out, to") if depth == 8 else ("share, 0", "x, source")
        text = text.replace(f"DIVIDE{depth}", _block(_divide(*line), depth))
    text = text.replace(" * STEP", {1: "", 2: " * 2"}.get(step, " * step_x"))
    return (
        text.replace("_T(", f"_{dtype.char}(").replace(" T\n", f" {dtype.char}\n").replace("NAME", dtype.name)
    )


Window = tuple[Row, Row, tuple[Pair, ...], Row]  # size, stride, padding, dilation


def slots(image: Operand, result: Operand, window: Window) -> list[Arg]:
    size, stride, padding, dilation = window
    image, result = lift(image), lift(result)
    stride, padding, dilation = lift_window(stride, padding, dilation)
    size = (1,) * (3 - len(size)) + size
    args: list[Arg] = [image.shape[0] * image.shape[1]]
    for n, p, k, s, d, (before, _) in zip(image.shape[2:], result.shape[2:], size, stride, dilation, padding):
        args += [n, p, k, s, d, before]
    return args


def windows_of(x: Operand, sizes: Sequence[int]) -> Operand:
    """x with the shape of pooled images, to tell how many windows there are along each axis."""
    return x._replace(shape=(*x.shape[:2], *sizes), strides=(0,) * (2 + len(sizes)))


def _work(result: Operand, window: Window) -> float:
    return 1.0 * result.size * math.prod(window[0])


def _lines(result: Operand) -> int:
    return math.prod(result.shape[:-1])


def maximum(program: Program, x: Operand, out: Operand, window: Window) -> None:
    """Append the maximum of each window; x and out are contiguous."""
    text = head_and_taps(_MAX, x.dtype, window[1][-1])
    args = [*slots(x, out, window), x.slot, out.slot]
    program.launch(text, args, program.chunks(_lines(out), _work(out, window)))


def index(program: Program, x: Operand, out: Operand, window: Window) -> None:
    """Append the place of each window's first maximum in the flattened image."""
    chunks = program.chunks(_lines(out), 2 * _work(out, window))
    pitch = -(-out.shape[-1] * x.dtype.itemsize // 64) * 64
    args = [*slots(x, out, window), x.slot, out.slot, program.scratch(chunks * pitch), pitch]
    program.launch(head_and_taps(_INDEX, x.dtype, window[1][-1]), args, chunks)


def maximum_gradient(program: Program, g: Operand, x: Operand, dx: Operand, window: Window) -> None:
    """Append the gradient of the maxima: g to the places of the maxima."""
    places = program.scratch_operand(int64, g.shape)
    index(program, x, places, window)
    program.wave()
    put(program, g, places, dx, True)


def _limits(image: Operand, window: Window, include: bool, divisor: int | None) -> list[Arg]:
    n = 3 - len(window[0])
    padding = ((0, 0),) * n + window[2]
    sizes = lift(image).shape[2:]
    low = [-before if include else 0 for before, _ in padding]
    high = [m + after if include else m for m, (_, after) in zip(sizes, padding)]
    return [divisor or 0, *low, *high]


def mean(
    program: Program, x: Operand, out: Operand, window: Window, include: bool, divisor: int | None
) -> None:
    """Append the mean of each window."""
    text = head_and_taps(_MEAN, x.dtype, window[1][-1])
    args = [*slots(x, out, window), x.slot, out.slot, *_limits(x, window, include, divisor)]
    program.launch(text, args, program.chunks(_lines(out), _work(out, window)))


def mean_gradient(
    program: Program, g: Operand, dx: Operand, window: Window, include: bool, divisor: int | None
) -> None:
    """Append the gradient of the means."""
    planes = dx.shape[0] * dx.shape[1]
    chunks = program.chunks(planes, _work(g, window) + dx.size)
    pitch = -(-g.shape[-1] * g.dtype.itemsize // 64) * 64
    args = [*slots(dx, g, window), g.slot, dx.slot, *_limits(dx, window, include, divisor)]
    args += [program.scratch(chunks * pitch), pitch]
    program.launch(head_and_taps(_SPREAD, g.dtype, window[1][-1]), args, chunks)


def _places(x: Operand, places: Operand, spatial: Sequence[int]) -> list[Arg]:
    channels = x.shape[1]
    shared = int(places.shape[1] == 1 and channels != 1)
    return [x.shape[0] * channels, channels, shared, math.prod(places.shape[2:]), math.prod(spatial)]


def _constants(text: str, dtype: DType) -> str:
    zero = "False" if dtype.kind == "bool" else f"types.{dtype.name}(0)"
    missing = f"types.{dtype.name}(1e999) - types.{dtype.name}(1e999)" if dtype.is_float else zero
    value = f"types.{dtype.name}(load_{dtype.char}(out, to + i) + load_{dtype.char}(v, plane * count + e))"
    if dtype.kind == "bool":
        value = value.removeprefix("types.bool").replace(" + ", " | ")
    return text.replace("ZERO", zero).replace("MISSING", missing).replace("SUM", value)


@functools.cache
def _pixel_text(template: str, dtype: DType) -> str:
    return _constants(head_and_taps(template, dtype, 1), dtype)


def pick(program: Program, x: Operand, places: Operand, out: Operand) -> None:
    """Append out[n, c, e] = x[n, c, places[n, c, e]]."""
    args = [*_places(x, places, x.shape[2:]), x.slot, places.slot, out.slot]
    chunks = program.chunks(x.shape[0] * x.shape[1], 16.0 * out.size)
    program.launch(_pixel_text(_PICK, x.dtype), args, chunks)


def put(program: Program, v: Operand, places: Operand, out: Operand, add: bool) -> None:
    """Append out[n, c, places[n, c, e]] (+)= v[n, c, e], from zeros."""
    args = [*_places(v, places, out.shape[2:]), v.slot, places.slot, out.slot, int(add)]
    chunks = program.chunks(v.shape[0] * v.shape[1], 16.0 * v.size + 4.0 * out.size)
    program.launch(_pixel_text(_PUT, v.dtype), args, chunks)
