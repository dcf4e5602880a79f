"""One reduction inside a generated loop: its accumulators, their update and their result, as lines of source.

Order of a float sum or product along a row (a function of the loop sizes alone): element i of a row goes to
lane i % 64, as 4 accumulators of 16 lanes that take turns; lanes are combined by halves at the latest when
they hold BLOCK elements, and those partial results add up in float64. Across columns, each column adds
BLOCK_ROWS elements one after the other, and those partial results add up in float64. So the rounding error
grows with the length of a block, not of the row. Everything else does not depend on the order.
"""

from __future__ import annotations

import numpy as np

from ...core.scalar import Expr
from ...core.types import DType, bool_
from .emit_expression import constant

BLOCK = 4096
#: accumulators of a row
TURNS = 4
BLOCK_ROWS = 256
#: columns whose accumulators lie in the first-level cache together
TILE = 1024

_COMBINE = {
    "sum": "add", "prod": "mul", "max": "maximum", "any": "maximum", "argmax": "maximum",
    "min": "minimum", "all": "minimum", "argmin": "minimum",
}  # fmt: skip


class Reduction:
    """The source lines of one `reduce` node; names in the source start with `name`."""

    def __init__(self, node: Expr, name: str):
        self.node, self.name = node, name
        self.operand = node.args[0]
        self.indexed = node.value in ("argmax", "argmin")
        dtype = self.operand.dtype if self.indexed else node.dtype
        self.char, self.combine = dtype.char, _COMBINE[node.value]
        self.identity = constant(_identity(self.combine, dtype), dtype)
        #: partial results of blocks add up in float64
        self.blocked = dtype.is_float and node.value in ("sum", "prod")

    def term(self, value: str) -> str:
        """The operand's value in the dtype of the accumulator."""
        source = self.operand.dtype.char
        return value if source == self.char else f"w_cast_{source}_{self.char}({value})"

    # ---- along a row: lanes in registers

    def start(self) -> list[str]:
        """Before the row."""
        n = self.name
        if self.indexed:
            return [f"{n}_best = w_fill_{self.char}({self.identity})", f"{n}_at = w_fill_i64(0)"]
        return [f"{n}_total = {_START[self.combine]}"] if self.blocked else self.reset()

    def reset(self) -> list[str]:
        """Empty lanes."""
        return [] if self.indexed else [f"{self.name}_turns = w_turns_{self.char}({self.identity})"]

    def update(self, value: str, index: str) -> list[str]:
        """Take in sixteen elements under the mask m; `index` is the number of the first one."""
        n, char, term = self.name, self.char, self.term(value)
        if not self.indexed:
            return [f"{n}_turns = w_turns_{self.combine}_{char}({n}_turns, {term}, m)"]
        return [
            f"{n}_new = w_better_{self.combine}_{char}({term}, {n}_best, m)",
            f"{n}_best = w_where_{char}({n}_new, {term}, {n}_best)",
            f"{n}_at = w_where_i64({n}_new, w_index({index}, 1), {n}_at)",
        ]

    def fold(self) -> list[str]:
        """After a block: combine the lanes into the total."""
        n, op = self.name, f"v_{self.combine}_f64"
        lanes = f"w_total_{self.combine}_{self.char}({n}_turns)"
        return [f"{n}_total = {op}({n}_total, {_widened(lanes, self.char)})"]

    def finish(self) -> list[str]:
        """After the row: `name` is the result."""
        n, char = self.name, self.char
        if self.blocked:
            return [f"{n} = {n}_total" if char == "f64" else f"{n} = v_cast_f64_{char}({n}_total)"]
        if self.indexed:
            return [f"{n} = w_first_{self.combine}_{char}({n}_best, {n}_at)"]
        return [f"{n} = w_total_{self.combine}_{char}({n}_turns)"]

    # ---- rows in groups of sixteen: what brings their lanes to one number is done for all at once

    def memory_of_rows(self) -> list[str]:
        """Areas of the kernel's stack: for each row its lanes, or its result; and the total of its blocks."""
        n = self.name
        each = 8 if self.indexed else 16 * self.node.dtype.itemsize
        lines = [f"{n}_rows = stack({16 * each})"]
        if self.blocked:
            lines += [f"{n}_totals = stack({16 * 8})", f"w_write_f64({n}_totals, 0, {_START[self.combine]})"]
        return lines

    def take_turn(self, turn: int, value: str) -> list[str]:
        """Take in sixteen elements under the mask m, of a row that has no more than one such vector for each turn."""
        n, op, char = f"{self.name}_{turn}", self.combine, self.char
        empty = f"w_fill_{char}({self.identity})"
        return [f"{n} = w_where_{char}(m, w_{op}_{char}({empty}, {self.term(value)}), {empty})"]

    def keep_short_row(self) -> list[str]:
        """After row `g` of a group, all of whose turns are taken; the total of its blocks is that of none."""
        n, op = self.name, f"w_{self.combine}_{self.char}"
        lanes = f"{op}({op}({n}_0, {n}_2), {op}({n}_1, {n}_3))"
        return [f"w_write_{self.char}({n}_rows, g * 16, {lanes})"]

    def keep_row(self) -> list[str]:
        """After row `g` of a group."""
        n, op = self.name, f"{self.combine}_{self.char}"
        if self.indexed:
            return [*self.finish(), f"store_i64({n}_rows, g, {n})"]
        lines = [f"w_write_{self.char}({n}_rows, g * 16, w_joined_{op}({n}_turns))"]
        return lines + ([f"store_f64({n}_totals, g, {n}_total)"] if self.blocked else [])

    def finish_rows(self) -> list[str]:
        """After a group: the wide value of its results."""
        n, char, name = self.name, self.char, f"{self.name}_all"
        if self.indexed:
            return [f"{name} = w_read_i64({n}_rows, 0)"]
        lanes = f"w_totals_{self.combine}_{char}({n}_rows)"
        if not self.blocked:
            return [f"{name} = {lanes}"]
        total = f"w_{self.combine}_f64(w_read_f64({n}_totals, 0), {_widened(lanes, char, 'w')})"
        return [f"{name} = {total}" if char == "f64" else f"{name} = w_cast_f64_{char}({total})"]


_START = {"add": "0.0", "mul": "1.0"}


def _widened(text: str, char: str, letter: str = "v") -> str:
    return text if char == "f64" else f"{letter}_cast_{char}_f64({text})"


def _identity(combine: str, dtype: DType) -> float | int | bool:
    if combine in ("add", "mul"):
        return 0 if combine == "add" else 1
    if dtype is bool_:
        return combine == "minimum"
    if dtype.is_float:
        return float("-inf") if combine == "maximum" else float("inf")
    info = np.iinfo(dtype.np)
    return int(info.min if combine == "maximum" else info.max)


class ColumnReduction(Reduction):
    """The same across columns: one accumulator per column, in working memory of TILE columns."""

    def memory(self) -> list[str]:
        """Areas of the kernel's stack."""
        n = self.name
        dtype = self.operand.dtype if self.indexed else self.node.dtype
        lines = [f"{n} = stack({TILE * dtype.itemsize})"]
        if self.blocked:
            lines.append(f"{n}_total = stack({TILE * 8})")
        if self.indexed:
            lines.append(f"{n}_at = stack({TILE * 8})")
        return lines

    def clear(self) -> list[str]:
        """Sixteen columns at v made ready, at the start or after a block."""
        n = self.name
        lines = [f"w_write_{self.char}({n}, v, {self.identity})"]
        if self.indexed:
            lines.append(f"w_write_i64({n}_at, v, 0)")
        return lines

    def update(self, value: str, index: str) -> list[str]:
        """Take in an element of each of sixteen columns at v; `index`: its number along the reduced axes."""
        n, char, term = self.name, self.char, self.term(value)
        before = f"w_read_{char}({n}, v)"
        if not self.indexed:
            return [f"w_write_{char}({n}, v, w_{self.combine}_{char}({before}, {term}))"]
        return [
            f"{n}_best = {before}",
            f"{n}_new = w_better_{self.combine}_{char}({term}, {n}_best, m)",
            f"w_write_{char}({n}, v, w_where_{char}({n}_new, {term}, {n}_best))",
            f"w_write_i64({n}_at, v, w_where_i64({n}_new, {index}, w_read_i64({n}_at, v)))",
        ]

    def fold(self) -> list[str]:
        """After a block: add sixteen columns at v to the totals, which the first block starts."""
        return self._fold(f"w_read_{self.char}({self.name}, v)")

    def _fold(self, sums: str) -> list[str]:
        before = f"w_where_f64(blocks > 0, w_read_f64({self.name}_total, v), {_START[self.combine]})"
        total = f"w_{self.combine}_f64({before}, {_widened(sums, self.char, 'w')})"
        return [f"w_write_f64({self.name}_total, v, {total})"]

    # ---- few columns: accumulator `k` is a value

    def start_value(self, k: int) -> list[str]:
        """Sixteen columns, empty."""
        return [f"{self.name}_{k} = w_fill_{self.char}({self.identity})"]

    def update_value(self, k: int, value: str) -> list[str]:
        """Take in an element of each."""
        name = f"{self.name}_{k}"
        return [f"{name} = w_{self.combine}_{self.char}({name}, {self.term(value)})"]

    def fold_value(self, k: int) -> list[str]:
        """`fold`, and empty again."""
        return [*self._fold(f"{self.name}_{k}"), *self.start_value(k)]

    def keep_value(self, k: int) -> list[str]:
        """To where other columns have theirs."""
        return [f"w_write_{self.char}({self.name}, v, {self.name}_{k})"]

    def finish(self) -> list[str]:
        """After blocks and a rest: sixteen results at v take the place of the accumulators."""
        total = self._sum(f"w_read_f64({self.name}_total, v)")
        text = total if self.char == "f64" else f"w_cast_f64_{self.char}({total})"
        return [f"w_write_{self.char}({self.name}, v, {text})"]

    def _sum(self, before: str) -> str:
        block = _widened(f"w_read_{self.char}({self.name}, v)", self.char, "w")
        return f"w_{self.combine}_f64({before}, {block})"

    def result(self) -> str:
        """The text that reads sixteen results at v."""
        return f"w_read_i64({self.name}_at, v)" if self.indexed else f"w_read_{self.char}({self.name}, v)"
