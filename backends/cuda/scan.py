"""Running sums, products, extremes and recurrences along an axis on a GPU: `scan.cuh` says how.

Additions have the CPU's order, by shape alone: a few long rows are cut into blocks whose totals are combined first.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from typing import Any

from ...core.backend import Arg, Kernel, Operand, Program
from ...core.types import DTYPES, DType
from ..cpu.scan import BLOCKS, FEW, LONG
from .written import dense, memory, per_block, per_item, start

_STATES = {
    "cumsum": "CumSum",
    "cumprod": "CumProd",
    "linear_scan": "LinearScan",
    "logcumsumexp": "LogCumSumExp",
}
#: threads of a block by those of a row
_CHAINS = 256 // 16


def _accumulation(name: str, dtype: DType) -> DType:
    """Floats are summed and multiplied in float64."""
    return DTYPES["float64"] if dtype.is_float and name in _STATES else dtype


def _state(name: str, dtype: DType) -> str:
    """The structure of scan.cuh."""
    if name in _STATES:
        return f"{_STATES[name]}<{memory(_accumulation(name, dtype))}>"
    return f"Extreme<{memory(dtype)}, {'true' if name == 'cummax' else 'false'}>"


@functools.cache
def _source(name: str, form: str, source: DType, target: DType) -> str:
    state = _state(name, target)
    x, y, wide = memory(source), memory(target), memory(_accumulation(name, target))
    slots = ["line: Line 5", f"x: const {x}*", f"x1: const {x}*", f"out: {y}*", "second: i64*"]
    title = f"{name}, {form}: {source} to {target}"
    if form == "columns":
        body = f"scan_column<{state}, {wide}>(line, number, x, x1, out, second);"
        return per_item(title, "scan", slots, body)
    only = "true" if form == "totals" else "false"
    body = f"scan_row<{state}, {only}, {wide}>(line, number, x, x1, out, second, totals);"
    return per_block(title, "scan", [*slots, f"totals: {state}*"], body)


def _scan(name: str) -> Kernel:
    def run(program: Program, inputs: Sequence[Any], outputs: Sequence[Operand], *, axis: Any, reverse: bool = False,
            **_: Any) -> None:  # fmt: skip
        # Truths and floats that become integers are converted as a cast does, widening is left to the kernel.
        target = outputs[0].dtype
        converts = inputs[0].dtype.is_float != target.is_float or inputs[0].dtype.kind == "bool"
        xs = [dense(program, x, target if converts else None) for x in inputs]
        shape = xs[0].shape if axis is not None else (xs[0].size,)
        axis = 0 if axis is None else axis
        lead, n, rest = math.prod(shape[:axis]), shape[axis] if shape else 1, math.prod(shape[axis + 1 :])
        if lead * n * rest == 0:
            return
        program.wave()
        few = rest == 1 and lead < FEW and n >= LONG
        blocks = BLOCKS if few else 1
        second: Arg = outputs[1].slot if len(outputs) > 1 else 0
        args: list[Arg] = [
            lead,
            n,
            rest,
            blocks,
            int(reverse),
            xs[0].slot,
            xs[-1].slot,
            outputs[0].slot,
            second,
        ]
        if rest > 1:
            start(program, _source(name, "columns", xs[0].dtype, target), lead * rest, args)
            return
        # A state has at most two numbers of 8 bytes.
        args.append(program.scratch(16 * lead * blocks))
        for form in ("totals", "rows") if few else ("rows",):
            start(program, _source(name, form, xs[0].dtype, target), -(-lead * blocks // _CHAINS), args)
            program.wave()

    return run


KERNELS: dict[str, Kernel] = {name: _scan(name) for name in (*_STATES, "cummax", "cummin")}
