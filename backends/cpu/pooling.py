"""Pooling and its gradients: windows of 2 x 2 and 3 x 3 here, any other in pooling_lines.py.

One item is a line of results, or a plane in gradients. Windows one or two columns apart are in pooling_wide.py, the
gradients of those that overlap in pooling_overlap.py, other gradients here. Windows inside the image are
unrolled: two columns wide and two apart on wide values, others so that LLVM vectorises along the line. Windows that
meet the border take a loop with bounds. Window, stride and dilation are part of the source, sizes are not. A gradient
is added up window by window in row-major order, here one plane by one thread.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from typing import Any, NamedTuple

from ...core.backend import Operand, Program
from ...core.lower import copy, lower_reduce
from ...core.scalar import Expr, const
from ...core.types import DType
from . import pooling_lines, pooling_overlap
from .conv_axes import Pair, Row
from .epilogue import indent
from .panels import fill_zero
from .pooling_wide import AHEAD, FAR, maximum_source, mean_source


class Window(NamedTuple):
    """What is unrolled into the source."""

    size: Pair
    stride: Pair
    dilation: Pair

    @property
    def tiles(self) -> bool:
        """Whether neighbouring windows touch and never overlap."""
        return self.size == self.stride and self.dilation == (1, 1)

    @property
    def pairs(self) -> bool:
        """Whether windows are neighbouring pairs of columns, which wide values take apart."""
        return self.size[1] == self.stride[1] == 2 and self.dilation == (1, 1)

    @property
    def taps(self) -> list[Pair]:
        return [(r, s) for r in range(self.size[0]) for s in range(self.size[1])]

    @property
    def unrolls(self) -> bool:
        return len(self.taps) <= 25  # fewer lines than store scopes


_HEAD = """def kernel(args, chunk, nchunks):
    planes, h, w, p, q, top, left = args[0], args[1], args[2], args[3], args[4], args[5], args[6]
    x, out, g, dx = args[7], args[8], args[9], args[10]
    # Lines [first, last) and columns [low, high) hold windows that lie inside the image.
    first, last = (top + {sy_1}) // {sy}, min(p, max(0, h + top - {span_y}) // {sy} + 1)
    low, high = (left + {sx_1}) // {sx}, min(q, max(0, w + left - {span_x}) // {sx} + 1)
    if h + top < {span_y}:
        last = 0
    if w + left < {span_x}:
        high = 0
    high = max(low, high)
"""


def _text(name: str, dtype: DType, window: Window, over_planes: bool, inside: list[str], border: list[str],
          start: list[str], wide: bool = False) -> str:  # fmt: skip
    """A kernel: `inside` and `border` are the bodies for one window at `line`, `column`.

    They see `at`, the image element under the window's first tap (in `border` perhaps outside), y0 and x0,
    its position, `to`, the window's result element, and `base`, the plane's first image element. `inside` may
    be for sixteen windows on wide values: then `mask` is for results, `mask_a` and `mask_b` are for the first
    and the second sixteen image elements of a line.
    """
    (r, s), (sy, sx), (dy, dx) = window
    spans = {"span_y": (r - 1) * dy + 1, "span_x": (s - 1) * dx + 1}
    head = _HEAD.format(sy=sy, sx=sx, sy_1=sy - 1, sx_1=sx - 1, **spans)
    lines = [f"y0 = line * {sy} - top", "at0 = base + y0 * w - left", "to0 = (plane * p + line) * q"]
    lines += ["resume = high if first <= line < last else low", "column = 0", "while column < q:"]
    if window.unrolls:
        masks = [
            "mask = w_mask(resume, column)",
            "mask_a, mask_b = w_mask(resume * 2, column * 2), w_mask(resume * 2, column * 2 + 16)",
        ]
        lines += [
            "    if column == low and low < resume:",
            f"        for column in range(low, resume{', 16' if wide else ''}):",
            f"            at, to = at0 + column * {sx}, to0 + column",
            *(f"            {text}" for text in masks if wide),
            *(f"            {text}" for text in inside),
            "        column = resume",
            "        continue",
        ]
    lines += [
        f"    x0 = column * {sx} - left",
        f"    at, to = at0 + column * {sx}, to0 + column",
        *(f"    {text}" for text in border),
        "    column += 1",
    ]
    if over_planes:
        loop = [
            "for plane in range(planes * chunk // nchunks, planes * (chunk + 1) // nchunks):",
            "    base = plane * h * w",
            *(f"    {text}" for text in start),
            "    for line in range(p):",
            *(f"        {text}" for text in lines),
        ]
    else:
        loop = [
            "items = planes * p",
            "start, end = items * chunk // nchunks, items * (chunk + 1) // nchunks",
            "plane, line = start // p, start % p",
            "for item in range(start, end):",
            "    base = plane * h * w",
            *(f"    {text}" for text in lines),
            "    line += 1",
            "    if line == p:",
            "        line, plane = 0, plane + 1",
        ]
    title = f"{name} {dtype.char} window {r}x{s} stride {sy}x{sx} dilation {dy}x{dx}"
    imports = "from duograd.backends.cpu.wide_pairs import *\n" if wide else ""
    return f"# {title}\n{imports}{head}{indent(loop, 4)}"


def _offset(window: Window, r: int, s: int) -> str:
    return f"{r * window.dilation[0]} * w + {s * window.dilation[1]}"


def _bounded(window: Window, body: Sequence[str]) -> list[str]:
    """A loop over the taps inside the image; the body sees `e`, the tap's element."""
    return [
        f"for r in range({window.size[0]}):",
        f"    for s in range({window.size[1]}):",
        f"        y, z = y0 + r * {window.dilation[0]}, x0 + s * {window.dilation[1]}",
        "        if 0 <= y < h and 0 <= z < w:",
        "            e = base + y * w + z",
        *(f"            {text}" for text in body),
    ]


def _zero(dtype: DType) -> str:
    return f"types.{dtype.name}(0)"


@functools.cache
def _max_source(dtype: DType, window: Window) -> str:
    if window.stride[1] < 3:
        return maximum_source(dtype, window.size, window.stride)
    t = dtype.char
    inside = [f"m = load_in_{t}(x, at)"]
    for r, s in window.taps[1:]:
        inside += [f"v = load_in_{t}(x, at + {_offset(window, r, s)})", "m = v if (v > m) | (v != v) else m"]
    inside.append(f"store_out_{t}(out, to, m, 0)")
    border = [f"m = types.{dtype.name}(-1e999)"]
    border += _bounded(window, [f"v = load_in_{t}(x, e)", "m = v if (v > m) | (v != v) else m"])
    border.append(f"store_out_{t}(out, to, m, 0)")
    return _text("max_pool", dtype, window, False, inside, border, [])


def _rim(dtype: DType, window: Window) -> list[str]:
    """Lines that clear a plane where tiles do not cover it: a rim smaller than a window is inside it or outside."""
    return [
        f"if top + left > 0 or p * {window.stride[0]} != h or q * {window.stride[1]} != w:",
        "    for e in range(h * w):",
        f"        store_{dtype.char}(dx, base + e, {_zero(dtype)})",
    ]


@functools.cache
def _max_gradient_source(dtype: DType, window: Window) -> str:
    t, zero = dtype.char, _zero(dtype)
    start = []
    if window.tiles:
        start = _rim(dtype, window)
        inside = [f"m = load_in_{t}(out, to)", f"gradient = load_in_{t}(g, to)", "free = True"]
        for k, (r, s) in enumerate(window.taps):
            inside += [f"v = load_in_{t}(x, at + {_offset(window, r, s)})", "hit = (v == m) | (v != v)"]
            inside += [f"d{k} = gradient if hit & free else {zero}", "free = free & (not hit)"]
        if window.pairs:
            inside = _pair_gradient(dtype, window)
        for k, (r, s) in enumerate([] if window.pairs else window.taps):
            # The lines of a window are apart, which LLVM cannot know: a scope for each.
            inside.append(f"store_out_{t}(dx, at + {_offset(window, r, s)}, d{k}, {r})")
    else:
        start = ["for e in range(h * w):", f"    store_{t}(dx, base + e, {zero})"]
        inside = [f"m = load_in_{t}(out, to)", "spot = at"]
        # Backwards, so that the first hit stays.
        for r, s in reversed(window.taps):
            place = f"at + {_offset(window, r, s)}"
            inside += [f"v = load_in_{t}(x, {place})", f"spot = {place} if (v == m) | (v != v) else spot"]
        inside.append(f"store_{t}(dx, spot, load_{t}(dx, spot) + load_in_{t}(g, to))")
    border = [f"m = load_in_{t}(out, to)", "free = True"]
    border += _bounded(window, [
        f"v = load_in_{t}(x, e)",
        "if free and (v == m or v != v):",
        f"    store_{t}(dx, e, load_{t}(dx, e) + load_in_{t}(g, to))",
        "    free = False",
    ])  # fmt: skip
    wide = window.pairs and window.tiles
    return _text("max_pool_x_grad", dtype, window, True, inside, border, start, wide)


def _pair(t: str, r: int, s: int) -> list[str]:
    """Lines that put tap (r, s) of sixteen windows into `v`."""
    if s == 1:
        return [f"v = w_odd_{t}(a, b)"]
    here = f"at + {r} * w"
    load = f"a, b = w_load_{t}(x, {here}, mask_a), w_load_{t}(x, {here} + 16, mask_b)"
    return [load, f"v = w_even_{t}(a, b)"]


def _ahead(size: int, images: Sequence[str], results: Sequence[str]) -> list[str]:
    """Lines that ask for what later windows read and write: a CPU sees too late how far to read ahead."""
    lines = [
        f"    prefetch({name} + at * {size} + {AHEAD + k})"
        for name in images
        for k in range(0, 64 * size, 64)
    ]
    lines += [
        f"    prefetch({name} + to * {size} + {AHEAD // 4 + k})"
        for name in results
        for k in range(0, 16 * size, 64)
    ]
    return [f"if planes * h * w > {FAR // size}:", *lines]


def _pair_gradient(dtype: DType, window: Window) -> list[str]:
    """The gradient of sixteen windows that are tiles of pairs."""
    t, size = dtype.char, dtype.itemsize
    lines = _ahead(size, ("x", "dx"), ("out", "g"))
    lines += [f"m, gradient = w_load_{t}(out, to, mask), w_load_{t}(g, to, mask)", "free = mask"]
    for r, s in window.taps:
        lines += [*_pair(t, r, s), f"hit = w_logical_or_b1(w_eq_{t}(v, m), w_isnan_{t}(v))"]
        lines += [f"d{s} = w_where_{t}(w_logical_and_b1(hit, free), gradient, {_zero(dtype)})"]
        lines += ["free = w_logical_and_b1(free, w_logical_not_b1(hit))"]
        if s:
            lines.append(f"w_store_{t}(dx, at + {r} * w, w_low_{t}(d0, d1), mask_a)")
            lines.append(f"w_store_{t}(dx, at + {r} * w + 16, w_high_{t}(d0, d1), mask_b)")
    return lines


def _share(dtype: DType, window: Window, include_pad: bool, value: str, inside: bool) -> list[str]:
    """Lines that divide `value` by the window's number of elements."""
    number = window.size[0] * window.size[1]
    if include_pad:
        return [f"share = {value} * types.{dtype.name}({dtype.array(1.0 / number).item()!r})"]
    if inside:
        return [f"share = {value} / types.{dtype.name}({number})"]
    counted = []
    for name, start, size, taps, step in (
        ("ny", "y0", "h", window.size[0], window.dilation[0]),
        ("nx", "x0", "w", window.size[1], window.dilation[1]),
    ):
        counted += [f"{name} = 0", f"for r in range({taps}):", f"    if 0 <= {start} + r * {step} < {size}:"]
        counted.append(f"        {name} += 1")
    return [*counted, f"share = {value} / types.{dtype.name}(ny * nx)"]


@functools.cache
def _avg_source(dtype: DType, window: Window, include_pad: bool) -> str:
    if window.stride[1] < 3:
        return mean_source(dtype, window.size, window.stride, include_pad)
    t = dtype.char
    inside = [f"total = load_in_{t}(x, at)"]
    inside += [f"total = total + load_in_{t}(x, at + {_offset(window, r, s)})" for r, s in window.taps[1:]]
    inside += [*_share(dtype, window, include_pad, "total", True), f"store_out_{t}(out, to, share, 0)"]
    border = [f"total = {_zero(dtype)}", *_bounded(window, [f"total = total + load_in_{t}(x, e)"])]
    border += [*_share(dtype, window, include_pad, "total", False), f"store_out_{t}(out, to, share, 0)"]
    return _text(f"avg_pool{_counting(include_pad)}", dtype, window, False, inside, border, [])


@functools.cache
def _avg_gradient_source(dtype: DType, window: Window, include_pad: bool) -> str:
    t, zero = dtype.char, _zero(dtype)
    wide = window.pairs and window.tiles
    start = ["for e in range(h * w):", f"    store_{t}(dx, base + e, {zero})"]
    inside = _share(dtype, window, include_pad, f"load_in_{t}(g, to)", True)
    if wide:
        start = _rim(dtype, window)
        inside = _pair_share(dtype, window, include_pad)
    for r, s in [] if wide else window.taps:
        place = f"at + {_offset(window, r, s)}"
        if window.tiles:
            inside.append(f"store_out_{t}(dx, {place}, share, {r})")
        else:
            inside.append(f"store_{t}(dx, {place}, load_{t}(dx, {place}) + share)")
    border = _share(dtype, window, include_pad, f"load_in_{t}(g, to)", False)
    border += _bounded(window, [f"store_{t}(dx, e, load_{t}(dx, e) + share)"])
    title = f"avg_pool_x_grad{_counting(include_pad)}"
    return _text(title, dtype, window, True, inside, border, start, wide)


def _pair_share(dtype: DType, window: Window, include_pad: bool) -> list[str]:
    """The gradient of sixteen means that are tiles of pairs."""
    t = dtype.char
    number = dtype.array(1.0 / (2 * window.size[0])).item()
    lines = [*_ahead(dtype.itemsize, ("dx",), ("g",)), f"share = w_load_{t}(g, to, mask)"]
    if include_pad:
        lines.append(f"share = w_mul_{t}(share, types.{dtype.name}({number!r}))")
    else:
        lines.append(f"share = w_div_{t}(share, types.{dtype.name}({2 * window.size[0]}))")
    for r in range(window.size[0]):
        lines.append(f"w_store_{t}(dx, at + {r} * w, w_low_{t}(share, share), mask_a)")
        lines.append(f"w_store_{t}(dx, at + {r} * w + 16, w_high_{t}(share, share), mask_b)")
    return lines


def _counting(include_pad: bool) -> str:
    return "" if include_pad else " without padding"


def _dense(program: Program, x: Operand) -> Operand:
    if x.is_contiguous:
        return x
    out = program.scratch_operand(x.dtype, x.shape)
    copy(program, x, out)
    return out


def _launch(
    program: Program, source: str, planes_only: bool, image: Sequence[int], pooled: Sequence[int],
    padding: tuple[Pair, ...], buffers: Sequence[Operand | None],
) -> None:  # fmt: skip
    planes = image[0] * image[1]
    slots = [0 if b is None else b.slot for b in buffers]
    items = planes if planes_only else planes * pooled[2]
    work = 2.0 * sum(b.size * b.dtype.itemsize for b in buffers if b is not None)
    args = [planes, image[2], image[3], pooled[2], pooled[3], padding[0][0], padding[1][0], *slots]
    program.launch(source, args, program.chunks(items, work))


def _unrolled(window: Row, stride: Row, dilation: Row) -> Window | None:
    """The window when it is one of those that have kernels of their own."""
    common = window in ((2, 2), (3, 3)) and stride in ((1, 1), (2, 2), (3, 3)) and dilation == (1, 1)
    return Window((window[0], window[1]), (stride[0], stride[1]), (1, 1)) if common else None


def max_pool(
    program: Program, inputs: Sequence[Any], outputs: Sequence[Operand], *, window: Row, stride: Row,
    padding: tuple[Pair, ...], dilation: Row, ceil_mode: bool = False,
) -> None:  # fmt: skip
    """Append the maximum of each window of x: [N, C, ...]; padding counts as -inf, NaN wins."""
    out = outputs[0]
    if out.size == 0:
        return
    x = _dense(program, inputs[0])
    program.wave()
    unrolled = _unrolled(window, stride, dilation)
    if unrolled is None:
        pooling_lines.maximum(program, x, out, (window, stride, padding, dilation))
    else:
        source = _max_source(x.dtype, unrolled)
        _launch(program, source, False, x.shape, out.shape, padding, (x, out, None, None))


def max_pool_index(
    program: Program, inputs: Sequence[Any], outputs: Sequence[Operand], *, window: Row, stride: Row,
    padding: tuple[Pair, ...], dilation: Row, ceil_mode: bool = False,
) -> None:  # fmt: skip
    """Append the place of each window's first maximum."""
    if outputs[0].size == 0:
        return
    x = _dense(program, inputs[0])
    program.wave()
    pooling_lines.index(program, x, outputs[0], (window, stride, padding, dilation))


def _gradients(program: Program, inputs: Sequence[Operand], dx: Operand) -> list[Operand]:
    """The inputs of an image's gradient, contiguous; none of what has no results, whose gradient is zero."""
    if inputs[0].size == 0:
        fill_zero(program, dx)
        return []
    found = [_dense(program, b) for b in inputs]
    program.wave()
    return found


def max_pool_x_grad(
    program: Program, inputs: Sequence[Any], outputs: Sequence[Operand], *, window: Row, stride: Row,
    padding: tuple[Pair, ...], dilation: Row, ceil_mode: bool = False,
) -> None:  # fmt: skip
    """Append the gradient for x of inputs (g, out, x): to the first maximum in row-major order."""
    dx = outputs[0]
    found = _gradients(program, inputs, dx)
    if not found:
        return
    g, out, x = found
    unrolled = _unrolled(window, stride, dilation)
    if unrolled is None:
        pooling_lines.maximum_gradient(program, g, x, dx, (window, stride, padding, dilation))
    elif pooling_overlap.applies(unrolled.size, unrolled.stride):
        pooling_overlap.maximum_gradient(program, g, out, x, dx, unrolled.size, unrolled.stride, padding)
    else:
        source = _max_gradient_source(dx.dtype, unrolled)
        _launch(program, source, True, dx.shape, g.shape, padding, (x, out, g, dx))


def _means_unrolled(
    image: Operand, result: Operand, window: Row, stride: Row, padding: tuple[Pair, ...], dilation: Row,
    include: bool, divisor: int | None,
) -> Window | None:  # fmt: skip
    """The window with a kernel of its own; there is none for windows that end beyond counted padding."""
    if divisor is not None:
        return None
    ends = [(p - 1) * s + k - pads[0] for p, s, k, pads in zip(result.shape[2:], stride, window, padding)]
    beyond = any(e > n + pads[1] for e, n, pads in zip(ends, image.shape[2:], padding))
    return None if include and beyond else _unrolled(window, stride, dilation)


def _whole_mean(program: Program, x: Operand, out: Operand) -> None:
    """Append the mean of every image: a reduction by rows."""
    total = Expr("reduce", x.dtype, (Expr("arg", x.dtype, (), 0),), "sum")
    mean = Expr("div", x.dtype, (total, const(math.prod(x.shape[2:]), x.dtype)))
    lower_reduce(
        program, x.shape, tuple(range(2, len(x.shape))), [x], [mean], [out], ("avg_pool of whole images",)
    )


def avg_pool(
    program: Program, inputs: Sequence[Any], outputs: Sequence[Operand], *, window: Row, stride: Row,
    padding: tuple[Pair, ...], dilation: Row, ceil_mode: bool = False, count_include_pad: bool = True,
    divisor_override: int | None = None,
) -> None:  # fmt: skip
    """Append the mean of each window of x: [N, C, ...]."""
    out, include, divisor = outputs[0], count_include_pad, divisor_override
    if out.size == 0:
        return
    if divisor is None and window == inputs[0].shape[2:] and not any(any(pads) for pads in padding):
        return _whole_mean(program, inputs[0], out)
    x = _dense(program, inputs[0])
    program.wave()
    settings = window, stride, padding, dilation
    unrolled = _means_unrolled(x, out, *settings, include, divisor)
    if unrolled is None:
        pooling_lines.mean(program, x, out, settings, include, divisor)
    else:
        source = _avg_source(x.dtype, unrolled, include)
        _launch(program, source, False, x.shape, out.shape, padding, (x, out, None, None))


def avg_pool_x_grad(
    program: Program, inputs: Sequence[Any], outputs: Sequence[Operand], *, window: Row, stride: Row,
    padding: tuple[Pair, ...], dilation: Row, ceil_mode: bool = False, count_include_pad: bool = True,
    divisor_override: int | None = None, size: Row = (),
) -> None:  # fmt: skip
    """Append the gradient for x of inputs (g,): spread evenly over each window."""
    dx, include, divisor = outputs[0], count_include_pad, divisor_override
    found = _gradients(program, inputs, dx)
    if not found:
        return
    (g,) = found
    settings = window, stride, padding, dilation
    unrolled = _means_unrolled(dx, g, *settings, include, divisor)
    if unrolled is None:
        pooling_lines.mean_gradient(program, g, dx, settings, include, divisor)
    elif pooling_overlap.applies(unrolled.size, unrolled.stride):
        pooling_overlap.mean_gradient(program, g, dx, unrolled.size, unrolled.stride, padding, include)
    else:
        source = _avg_gradient_source(dx.dtype, unrolled, include)
        _launch(program, source, True, dx.shape, g.shape, padding, (None, None, g, dx))


def pick_pixels(program: Program, inputs: Sequence[Any], outputs: Sequence[Operand]) -> None:
    """Append the elements of each channel at places in its flattened spatial axes."""
    if outputs[0].size:
        x, places = (_dense(program, b) for b in inputs)
        program.wave()
        pooling_lines.pick(program, x, places, outputs[0])


def put_pixels(
    program: Program, inputs: Sequence[Any], outputs: Sequence[Operand], *, size: Row = (), add: bool = True
) -> None:
    """Append zeros with values at places in each channel's flattened spatial axes."""
    if outputs[0].size:
        v, places = (_dense(program, b) for b in inputs)
        program.wave()
        pooling_lines.put(program, v, places, outputs[0], add)


KERNELS = {
    "max_pool": max_pool,
    "max_pool_index": max_pool_index,
    "max_pool_x_grad": max_pool_x_grad,
    "avg_pool": avg_pool,
    "avg_pool_x_grad": avg_pool_x_grad,
    "pick_pixels": pick_pixels,
    "put_pixels": put_pixels,
}
