"""Convolution with few channels per group (depthwise): lines of images times single filter elements.

There is nothing to share between the rows of a matrix product here; each output plane is summed up tap by
tap, in the order (channel, r, s), with a rounding after each product.
"""

from __future__ import annotations

import functools

from ...core.backend import Arg, Operand, Program
from .panels import IMPORT, block

Pair = tuple[int, int]
_MIN_ROWS = 4


def applies(groups: int, rows: int) -> bool:
    """Whether a grouped convolution with `rows` outputs per group is done here."""
    return groups > 1 and rows < _MIN_ROWS


# In the texts below T stands for the dtype's short name. The head reads the slots that all three share:
# x[image, channel, line, column], g[image, row, line, column] and f[row, channel, tap, tap].
_HEAD = """
def kernel(args, chunk, nchunks):
    images, groups, rows, channels = args[0], args[1], args[2], args[3]
    h, w, p, q = args[4], args[5], args[6], args[7]
    taps_y, taps_x, step_y, step_x = args[8], args[9], args[10], args[11]
    tap_y, tap_x, top, left = args[12], args[13], args[14], args[15]
    x, x_n, x_c, x_y, x_x = args[16], args[17], args[18], args[19], args[20]
    g, g_n, g_k, g_y, g_x = args[21], args[22], args[23], args[24], args[25]
    f, f_k, f_c, f_y, f_x = args[26], args[27], args[28], args[29], args[30]
"""

# Of a tap (ty, tx): results [first, last) x [low, high) whose source lies inside the image.
_RANGES = """
            y0, x0 = ty * tap_y - top, tx * tap_x - left
            first, last = max(0, -(y0 // step_y)), min(p, -((y0 - h) // step_y))
            low, high = max(0, -(x0 // step_x)), min(q, -((x0 - w) // step_x))
"""

_FORWARD = f"""# conv2d with few channels T
{_HEAD}
    items = images * groups * rows
    for item in range(items * chunk // nchunks, items * (chunk + 1) // nchunks):
        row, image = item % (groups * rows), item // (groups * rows)
        plane = g + (image * g_n + row * g_k) * SIZE
        for e in range(p * q):
            store_T(plane, e, types.NAME(0))
        for k in range(channels * taps_y * taps_x):
            c, ty, tx = k // (taps_y * taps_x), k // taps_x % taps_y, k % taps_x
            weight = load_in_T(f, row * f_k + c * f_c + ty * f_y + tx * f_x)
            source = image * x_n + (row // rows * channels + c) * x_c{_RANGES}
            for line in range(first, last):
                at = source + (line * step_y + y0) * x_y + x0 * x_x
                for e in range(low, high):
                    total = load_T(plane, line * q + e) + weight * load_in_T(x, at + e * step_x * x_x)
                    store_out_T(plane, line * q + e, total, 0)
"""

_IMAGE_GRADIENT = f"""# conv2d_x_grad with few channels T
{_HEAD}
    items = images * groups * channels
    for item in range(items * chunk // nchunks, items * (chunk + 1) // nchunks):
        channel, image = item % (groups * channels), item // (groups * channels)
        plane = x + (image * x_n + channel * x_c) * SIZE
        group = channel // channels
        for e in range(h * w):
            store_T(plane, e, types.NAME(0))
        for k in range(rows * taps_y * taps_x):
            row, ty, tx = group * rows + k // (taps_y * taps_x), k // taps_x % taps_y, k % taps_x
            weight = load_in_T(f, row * f_k + channel % channels * f_c + ty * f_y + tx * f_x)
            source = image * g_n + row * g_k{_RANGES}
            for line in range(first, last):
                to = (line * step_y + y0) * w + x0
                for e in range(low, high):
                    value = load_in_T(g, source + line * g_y + e * g_x)
                    store_out_T(plane, to + e * step_x, load_T(plane, to + e * step_x) + weight * value, 0)
"""

_FILTER_GRADIENT = f"""# conv2d_w_grad with few channels T
{IMPORT}{_HEAD}
    partial = args[31] + chunk * 64
    items = groups * rows * channels
    for item in range(items * chunk // nchunks, items * (chunk + 1) // nchunks):
        row, c = item // channels, item % channels
        for k in range(taps_y * taps_x):
            ty, tx = k // taps_x, k % taps_x{_RANGES}
            total = types.NAME(0)
            for image in range(images):
                source = x + (image * x_n + (row // rows * channels + c) * x_c + x0 * x_x) * SIZE
                other = g + (image * g_n + row * g_k) * SIZE
                for line in range(first, last):
                    at = source + (line * step_y + y0) * x_y * SIZE
                    if step_x * x_x == 1 and g_x == 1 and low < high:
                        dot_rows_T(
                            partial, at + low * SIZE, 0, 1, other + (line * g_y + low) * SIZE, high - low,
                            1, LANES,
                        )
                        total += load_T(partial, 0)
                    else:
                        for e in range(low, high):
                            total += load_T(at, e * step_x * x_x) * load_T(other, line * g_y + e * g_x)
            store_T(f, row * f_k + c * f_c + ty * f_y + tx * f_x, total)
"""


@functools.cache
def _text(template: str, char: str, size: int, lanes: int) -> str:
    text = template.replace("_T(", f"_{char}(").replace(" T\n", f" {char}\n")
    return text.replace("SIZE", str(size)).replace("LANES", str(lanes)).replace("NAME", f"float{8 * size}")


def _launch(
    program: Program, template: str, x: Operand, g: Operand, f: Operand, items: int, stride: Pair,
    padding: tuple[Pair, Pair], dilation: Pair, groups: int,
) -> None:  # fmt: skip
    size, lanes = x.dtype.itemsize, block(x.dtype).lanes
    rows, channels = f.shape[0] // groups, f.shape[1]
    args: list[Arg] = [x.shape[0], groups, rows, channels, *x.shape[2:], *g.shape[2:], *f.shape[2:]]
    args += [*stride, *dilation, padding[0][0], padding[1][0]]
    args += [x.slot, *x.strides, g.slot, *g.strides, f.slot, *f.strides]
    chunks = program.chunks(items, 1.0 * g.size * channels * f.shape[2] * f.shape[3])
    if template is _FILTER_GRADIENT:
        args.append(program.scratch(64 * chunks))
    program.launch(_text(template, x.dtype.char, size, lanes), args, chunks)


Window = tuple[Pair, tuple[Pair, Pair], Pair, int]


def forward(program: Program, x: Operand, w: Operand, out: Operand, window: Window) -> None:
    """Append out = conv2d(x, w). window: stride, padding, dilation, groups."""
    _launch(program, _FORWARD, x, out, w, out.shape[0] * out.shape[1], *window)


def image_gradient(program: Program, g: Operand, w: Operand, out: Operand, window: Window) -> None:
    """Append the gradient for the image."""
    _launch(program, _IMAGE_GRADIENT, out, g, w, out.shape[0] * out.shape[1], *window)


def filter_gradient(program: Program, g: Operand, x: Operand, out: Operand, window: Window) -> None:
    """Append the gradient for the filters."""
    _launch(program, _FILTER_GRADIENT, x, g, out, out.shape[0] * out.shape[1], *window)
