"""Maxima and means of small windows whose columns are one or two apart: sixteen windows at a time, at the border too.

Elements outside the image are not read, and what stands in their place does not count: so lines and columns at a border
take the same few instructions as those inside. A line of the image is taken across the columns of its windows once, for
all lines of results that it reaches. Window and stride are part of the source, sizes are not.
"""

from __future__ import annotations

import functools
from collections.abc import Callable

from ...core.types import DType
from .conv_axes import Pair
from .epilogue import indent

#: bytes that the image is asked for ahead: of so few elements at a time a CPU asks too late by itself
AHEAD = 1 << 13
#: bytes of images that may come from farther than the second-level cache
FAR = 1 << 18

_HEAD = """from duograd.backends.cpu.wide_pairs import *
def kernel(args, chunk, nchunks):
    planes, h, w, p, q, top, left = args[0], args[1], args[2], args[3], args[4], args[5], args[6]
    x, out = args[7], args[8]
    far = planes * h * w > FAR
    item, end = planes * p * chunk // nchunks, planes * p * (chunk + 1) // nchunks
    while item < end:
        plane, first = item // p, item % p
        count = min(p - first, end - item)
        item += count
        for column in range(0, q, 16):
            z, mask = column * STEP - left, w_mask(q, column)
"""


class Taps:
    """How the columns of sixteen windows are read: in vectors of neighbours, which are taken apart."""

    def __init__(self, t: str, columns: int, step: int) -> None:
        self.t, self.columns, self.step = t, columns, step
        # Where vectors of a line begin: a tap's of each window, or neighbours that are taken apart.
        self.starts = [16 * k for k in range(-(-(15 * step + columns) // 16))]
        if step == 1:
            self.starts = list(range(columns))

    def inside(self) -> list[str]:
        """Lines that say which elements of each vector lie in the image's columns."""
        low, high = "w_mask(max(0, -z), {0})", "w_mask(max(0, w - z), {0})"
        text = f"inside{{0}} = w_logical_and_b1({high}, w_logical_not_b1({low}))"
        return [text.format(k) for k in self.starts]

    def apart(self, kind: str, value: str) -> tuple[list[str], list[str]]:
        """Lines, and the text of each tap behind them. value: the text of the vector that begins at {0}."""
        lines = [f"v{k} = {value.format(k)}" for k in self.starts]
        if self.step == 1:
            return lines, [f"v{k}" for k in self.starts]
        taps = [f"w_even_{kind}(v0, v16)", f"w_odd_{kind}(v0, v16)"]
        if self.columns > 2:
            lines.append(f"even = {taps[0]}")
            taps = ["even", taps[1], f"w_from1_{kind}(even, v32)"]
        return lines, taps


class _Shape(Taps):
    """How windows of a size and a stride are taken together. merge: the text that merges two texts of wide values."""

    def __init__(self, dtype: DType, size: Pair, stride: Pair, merge: Callable[[str, str], str]) -> None:
        super().__init__(dtype.char, size[1], stride[1])
        self.size, self.merge, self.lines, self.step_y = dtype.itemsize, merge, size[0], stride[0]

    def across(self, to: str, value: str) -> list[str]:
        """Lines that merge a line's columns. value: the text of the vector that begins at {0}."""
        lines, taps = self.apart(self.t, value)
        return [*lines, f"{to} = {functools.reduce(self.merge, taps)}"]

    def ahead(self) -> list[str]:
        """Lines that ask for what later lines of windows read and write."""
        size, here = self.size, "((plane * h + y + {0}) * w + z)"
        lines = [
            f"    prefetch(x + {here.format(r)} * {size} + {AHEAD + k})"
            for r in range(self.step_y) for k in range(0, 16 * self.step * size, 64)
        ]  # fmt: skip
        part = AHEAD // (self.step_y * self.step)
        lines.append(f"    prefetch(out + ((plane * p + line) * q + column) * {size} + {part})")
        return ["if far:", *lines]

    def kernel(self, title: str, outside: str, value: str, start: list[str], result: str) -> str:
        """The kernel's text. outside: what an element outside counts as; start, result: lines for all windows of a
        column, and the text of a line's result, of the merged value `m`."""
        t, kept = self.t, max(0, self.lines - self.step_y)

        def take(lines: range) -> list[str]:
            text = []
            for r in lines:
                text += [f"h{r} = w_fill_{t}({outside})", f"if 0 <= y + {r} < h:"]
                text += [f"    at = (plane * h + y + {r}) * w + z"]
                text += ["    " + line for line in self.across(f"h{r}", value)]
            return text

        body = [*self.inside(), *start, f"y = first * {self.step_y} - top", *take(range(kept))]
        loop = [f"y = line * {self.step_y} - top", *self.ahead(), *take(range(kept, self.lines))]
        loop += [f"m = {functools.reduce(self.merge, [f'h{r}' for r in range(self.lines)])}"]
        loop += [f"w_store_{t}(out, (plane * p + line) * q + column, {result}, mask)"]
        loop += [f"h{r} = h{r + self.step_y}" for r in range(kept)]
        title = f"# {title} {t} window {self.lines}x{self.columns} stride {self.step_y}x{self.step}\n"
        text = _HEAD.replace("STEP", str(self.step)).replace("FAR", str(FAR // self.size)) + indent(body, 12)
        return title + text + indent(["for line in range(first, first + count):"], 12) + indent(loop, 16)


@functools.cache
def maximum_source(dtype: DType, size: Pair, stride: Pair) -> str:
    """Kernel: the maximum of each window, or NaN. Slots: see `_HEAD`."""
    t, lowest = dtype.char, f"types.{dtype.name}(-1e999)"
    shape = _Shape(dtype, size, stride, lambda a, b: f"w_larger_{t}({a}, {b})")
    value = f"w_where_{t}(inside{{0}}, w_load_{t}(x, at + {{0}}, inside{{0}}), {lowest})"
    return shape.kernel("max_pool", lowest, value, [], "m")


@functools.cache
def mean_source(dtype: DType, size: Pair, stride: Pair, include_pad: bool) -> str:
    """Kernel: the mean of each window, of all its elements or of those in the image. Slots: see `_HEAD`."""
    t, number, (lines, columns) = dtype.char, f"types.{dtype.name}", size
    shape = _Shape(dtype, size, stride, lambda a, b: f"w_add_{t}({a}, {b})")
    zero, value = f"{number}(0)", f"w_load_{t}(x, at + {{0}}, inside{{0}})"
    if include_pad:
        share = f"w_mul_{t}(m, {number}({dtype.array(1.0 / (lines * columns)).item()!r}))"
        return shape.kernel("avg_pool", zero, value, [], share)
    counted = shape.across("counted", f"w_where_{t}(inside{{0}}, {number}(1), {zero})")
    high = f"{number}(min(h, y + {lines}) - max(0, y))"
    share = f"w_div_{t}(m, w_mul_{t}(counted, {high}))"
    if max(size) == 2:
        # Reciprocals of one, two and four are exact.
        counted.append(f"counted = w_div_{t}({number}(1), counted)")
        share = f"w_mul_{t}(m, w_mul_{t}(counted, {number}(1) / {high}))"
    return shape.kernel("avg_pool without padding", zero, value, counted, share)
