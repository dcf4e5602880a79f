"""Pooling behind a convolution: a task's finished results stay in its own memory, and their windows alone are stored.

A task has whole lines of windows, so windows neither overlap nor meet padding. The bits are those of the pooling
kernels (`pooling_wide.py`, `pooling.py`, `pooling_lines.py`), which merge a window's elements in orders of their own.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

from ...core.backend import Arg, Operand, Pooling
from ...core.types import DType, Shape
from .conv_axes import Pair

#: windows of so many elements are unrolled
TAPS = 25


def source(text: str, pool: Pool | None) -> str:
    """A kernel's source with what pooling needs."""
    if pool is None:
        return text
    title, rest = text.split("\n", 1)
    return f"{title}, then {pool.op}\nfrom duograd.backends.cpu.wide_pairs import *\n{rest}"


class Pool(NamedTuple):
    """What is pooled: windows of some lines and columns. line: columns of the convolution's images; out: the result."""

    op: str
    window: Pair
    include_pad: bool
    line: int
    out: Operand

    @property
    def unit(self) -> int:
        """Pixels of a line of windows."""
        return self.window[0] * self.line

    @property
    def dtype(self) -> DType:
        return self.out.dtype

    def slots(self) -> list[Arg]:
        """Columns of an image's line and of a line of results, results of a channel and of an image."""
        plane = math.prod(self.out.shape[2:])
        return [self.line, self.out.shape[-1], plane, plane * self.out.shape[1]]

    def head(self, first: int) -> list[str]:
        """Lines that read the slots, which start at number `first`."""
        names = ("pool_line", "pool_columns", "pool_plane", "pool_image")
        return [f"{name} = args[{first + k}]" for k, name in enumerate(names)]

    @property
    def pairs(self) -> bool:
        """Whether sixteen windows are merged at a time, from results that are finished in registers."""
        return self.window == (2, 2)

    def of_pairs(self, row: Sequence[str], finish: Sequence[str], value: str) -> list[str]:
        """Lines that finish and pool a block of results (`FusedEpilogue.block`) in windows of 2 x 2.

        row, finish, value: lines for a row of the block and for a wide value of it, and the text of what that becomes.
        They see block_row; finish also lane, mask and here.
        """
        t = self.dtype.char
        body = []
        for r in (0, 1):
            for half in (0, 1):
                body += [
                    f"lane = (2 * pool_number + {r}) * pool_line + 2 * pool_column + {16 * half}",
                    f"mask = pool_mask{half}",
                    *finish,
                    f"pool_part{2 * r + half} = {value}",
                ]
        body += self.merge([f"pool_part{k}" for k in range(4)])
        body.append(f"w_store_{t}(f0, there + pool_number * pool_columns, pool_value, pool_mask)")
        return [
            *self._first(),
            "for pool_column in range(0, pool_columns, 16):",
            "    pool_mask = w_mask(pool_columns, pool_column)",
            "    pool_mask0 = w_mask(2 * pool_columns, 2 * pool_column)",
            "    pool_mask1 = w_mask(2 * pool_columns, 2 * pool_column + 16)",
            "    for block_row in range(block_rows):",
            "        here = result_at + block_row * result_step",
            "        there = pool_first + (first_row + block_row) * pool_plane + pool_column",
            *("        " + line for line in row),
            "        for pool_number in range(pool_lines):",
            *("            " + line for line in body),
        ]

    def merge(self, parts: Sequence[str]) -> list[str]:
        """Lines that make `pool_value` of two lines of 32 finished results, as texts of four wide values."""
        t, name = self.dtype.char, "larger" if self.op == "max_pool" else "add"
        lines = []
        for r in (0, 1):
            lines.append(f"pool_left, pool_right = {parts[2 * r]}, {parts[2 * r + 1]}")
            taps = f"w_even_{t}(pool_left, pool_right), w_odd_{t}(pool_left, pool_right)"
            lines.append(f"pool_line{r} = w_{name}_{t}({taps})")
        lines.append(f"pool_value = w_{name}_{t}(pool_line0, pool_line1)")
        if self.op == "avg_pool":
            lines.append(f"pool_value = w_mul_{t}(pool_value, types.{self.dtype.name}(0.25))")
        return lines

    def _first(self) -> list[str]:
        """Lines that say how many lines of windows a block has, and where the first goes in a channel."""
        unit = f"({self.window[0]} * pool_line)"
        return [
            f"pool_lines = div_i64(block_cols, {unit})",
            f"pool_first = batch2 * pool_image + div_i64(first_column, {unit}) * pool_columns",
        ]

    def lines(self) -> list[str]:
        """Lines that pool a block of finished results, at `result`, in windows of any size."""
        return [
            *self._first(),
            "for block_row in range(block_rows):",
            "    here = result_at + block_row * result_step",
            "    there = pool_first + (first_row + block_row) * pool_plane",
            "    for pool_number in range(pool_lines):",
            *("        " + line for line in self._windows()),
            f"        here += {self.window[0]} * pool_line",
            "        there += pool_columns",
        ]

    def _windows(self) -> list[str]:
        """Lines for a line of windows: their elements one after the other."""
        t, name, (lines, columns) = self.dtype.char, self.dtype.name, self.window
        taps = [
            f"load_in_{t}(result, at + {r} * pool_line + {s})" for r in range(lines) for s in range(columns)
        ]
        if self.op == "max_pool":
            body = [f"pool_value = {taps[0]}"]
            for tap in taps[1:]:
                larger = "(pool_tap > pool_value) | (pool_tap != pool_tap)"
                body += [f"pool_tap = {tap}", f"pool_value = pool_tap if {larger} else pool_value"]
        else:
            own = self.window == (3, 3)  # which pooling.py unrolls
            body = [f"pool_value = {taps[0]}" if own else f"pool_value = types.{name}(0) + {taps[0]}"]
            body += [f"pool_value = pool_value + {tap}" for tap in taps[1:]]
            share = f"pool_value / types.{name}({lines * columns})"
            if own and self.include_pad:
                share = f"pool_value * types.{name}({float(self.dtype.np.type(1.0 / 9))!r})"
            body.append(f"pool_value = {share}")
        body = [f"at = here + lane * {columns}", *body, f"store_out_{t}(f0, there + lane, pool_value, 0)"]
        return ["for lane in range(pool_columns):", *("    " + line for line in body)]


def make(shape: Shape, pooling: Pooling, out: Operand) -> Pool:
    """The pooling of a result of this shape into `out`."""
    window = (1, *pooling.named["window"])[-2:]
    return Pool(pooling.op, window, pooling.named.get("count_include_pad", True), shape[-1], out)
