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
BLOCK_ROWS = 256
#: columns whose accumulators lie in the first-level cache together
TILE = 512
_TURNS = 4

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

    def better(self, value: str, than: str) -> list[str]:
        """Lines that set `<name>_new` where `value` should replace `than` (argmax, argmin): NaN beats all."""
        compare = "gt" if self.combine == "maximum" else "lt"
        lines = [f"{self.name}_new = w_{compare}_{self.char}({value}, {than})"]
        if self.char in ("f32", "f64"):
            nan = f"w_isnan_{self.char}"
            both = f"w_gt_b1({nan}({value}), {nan}({than}))"
            lines.append(f"{self.name}_new = w_or_b1({self.name}_new, {both})")
        return lines

    # ---- along a row: lanes in registers

    def start(self) -> list[str]:
        """Before the row."""
        n = self.name
        lines = self.reset()
        if self.blocked:
            lines.append(f"{n} = {_START[self.combine]}")
        if self.indexed:
            lines.append(f"{n}_at = w_fill_i64(0)")
        return lines

    def reset(self) -> list[str]:
        """Empty lanes."""
        n = self.name
        lines = [f"{n}_0 = w_fill_{self.char}({self.identity})"]
        return lines + ([f"{n}_{k} = {n}_0" for k in range(1, _TURNS)] if self.blocked else [])

    def update(self, value: str, index: str) -> list[str]:
        """Take in sixteen elements under the mask m; `index` is the number of the first one."""
        n, char = self.name, self.char
        masked = f"w_where_{char}(m, {self.term(value)}, {self.identity})"
        if self.indexed:
            return [
                f"{n}_y = {masked}",
                *self.better(f"{n}_y", f"{n}_0"),
                f"{n}_0 = w_where_{char}({n}_new, {n}_y, {n}_0)",
                f"{n}_at = w_where_i64({n}_new, w_index({index}, 1), {n}_at)",
            ]
        if not self.blocked:
            return [f"{n}_0 = w_{self.combine}_{char}({n}_0, {masked})"]
        turns = [f"{n}_{k} = {n}_{k + 1}" for k in range(_TURNS - 1)]
        return [f"{n}_y = w_{self.combine}_{char}({n}_0, {masked})", *turns, f"{n}_{_TURNS - 1} = {n}_y"]

    def fold(self) -> list[str]:
        """After a block: combine the lanes into the total."""
        n, char, op = self.name, self.char, f"w_{self.combine}_{self.char}"
        lanes = f"w_fold_{self.combine}_{char}({op}({op}({n}_0, {n}_1), {op}({n}_2, {n}_3)))"
        symbol = "+" if self.combine == "add" else "*"
        return [f"{n} = {n} {symbol} v_cast_{char}_f64({lanes})"]

    def finish(self) -> list[str]:
        """After the row: `name` is the result."""
        n, char = self.name, self.char
        if self.blocked:
            return self.fold() + ([] if char == "f64" else [f"{n} = v_cast_f64_{char}({n})"])
        if self.indexed:
            return [f"{n} = w_fold_arg_{self.combine}_{char}({n}_0, {n}_at)"]
        return [f"{n} = w_fold_{self.combine}_{char}({n}_0)"]


_START = {"add": "types.float64(0.0)", "mul": "types.float64(1.0)"}


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
        n, width = self.name, TILE * self.width
        lines = [f"{n} = stack({width})"]
        if self.blocked:
            lines.append(f"{n}_total = stack({TILE * 8})")
        if self.indexed:
            lines.append(f"{n}_at = stack({TILE * 8})")
        return lines

    @property
    def width(self) -> int:
        return 1 if self.char == "b1" else int(self.char[1:]) // 8

    def clear(self, first: bool = True) -> list[str]:
        """Sixteen columns at v made ready, at the start or after a block."""
        n = self.name
        lines = [f"w_store_{self.char}({n}, v, {self.identity}, w_mask(16))"]
        if self.blocked and first:
            lines.append(f"w_store_f64({n}_total, v, {_START[self.combine]}, w_mask(16))")
        if self.indexed:
            lines.append(f"w_store_i64({n}_at, v, 0, w_mask(16))")
        return lines

    def update(self, value: str, index: str) -> list[str]:
        """Take in one element of each of sixteen columns at v; `index`: its number along the reduced axes."""
        n, char = self.name, self.char
        before = f"w_load_{char}({n}, v, w_mask(16))"
        if not self.indexed:
            after = f"w_{self.combine}_{char}({before}, {self.term(value)})"
            return [f"w_store_{char}({n}, v, {after}, w_mask(16))"]
        return [
            f"{n}_y = {self.term(value)}",
            f"{n}_x = {before}",
            *self.better(f"{n}_y", f"{n}_x"),
            f"{n}_k = w_where_i64({n}_new, {index}, w_load_i64({n}_at, v, w_mask(16)))",
            f"w_store_{char}({n}, v, w_where_{char}({n}_new, {n}_y, {n}_x), w_mask(16))",
            f"w_store_i64({n}_at, v, {n}_k, w_mask(16))",
        ]

    def fold(self) -> list[str]:
        """After a block: add sixteen columns at v to the totals."""
        return [f"w_store_f64({self.name}_total, v, {self._sum()}, w_mask(16))"]

    def finish(self) -> list[str]:
        """After the last block: sixteen results at v take the place of the accumulators."""
        n, char = self.name, self.char
        total = self._sum() if char == "f64" else f"w_cast_f64_{char}({self._sum()})"
        return [f"w_store_{char}({n}, v, {total}, w_mask(16))"]

    def _sum(self) -> str:
        n, char = self.name, self.char
        block = f"w_cast_{char}_f64(w_load_{char}({n}, v, w_mask(16)))"
        return f"w_{self.combine}_f64(w_load_f64({n}_total, v, w_mask(16)), {block})"

    def result(self) -> str:
        """The text that reads sixteen results at v."""
        if self.indexed:
            return f"w_load_i64({self.name}_at, v, w_mask(16))"
        return f"w_load_{self.char}({self.name}, v, w_mask(16))"
