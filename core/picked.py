"""Reading and writing by integer tensors: one table of the ops that do, over two launches that each backend has.

Two structures: slices (one index for all of `rest`) and elements (an index each).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, TypeAlias

from .backend import Kernel, Operand, Program, takes_halves
from .types import DType, Shape

#: NaN by the size of an element; complex numbers are pairs
NAN = {
    "float16": 0x7E00, "bfloat16": 0x7FC0, "float32": 0x7FC00000, "float64": 0x7FF8000000000000,
    "complex64": 0x7FC000007FC00000, "complex128": 0x7FF8000000000000,
}  # fmt: skip


def carrier(dtype: DType) -> tuple[str, int]:
    """The unsigned integer that moves an element, and how many of them one element is."""
    return f"u{8 * min(dtype.itemsize, 8)}", max(1, dtype.itemsize // 8)


class Picks(NamedTuple):
    """[lead, n, rest] by index[picks], or (each) index[lead, picks, rest]: [lead, picks, rest]. tail: axes of rest."""

    lead: int
    n: int
    picks: int
    rest: int
    tail: int
    each: bool

    @classmethod
    def of_slices(cls, shape: Shape, axis: int, depth: int, count: int) -> Picks:
        tail = shape[axis + depth :]
        n = math.prod(shape[axis : axis + depth])
        return cls(math.prod(shape[:axis]), n, count, math.prod(tail), len(tail), False)

    @classmethod
    def of_elements(cls, n: int, index: Shape, axis: int) -> Picks:
        tail = index[axis + 1 :]
        return cls(math.prod(index[:axis]), n, index[axis], math.prod(tail), len(tail), True)


Row: TypeAlias = Sequence[Any]
Outs: TypeAlias = Sequence[Operand]
#: appends the read of x at an index; what is outside is NaN (integers: 0)
Pick = Callable[[Program, Operand, Operand, Operand, Picks], None]
#: (program, how, out, before, index, values, picks): appends a write; before: what is in it, None for zeros
Put = Callable[[Program, str, Operand, "Operand | None", Operand, Any, Picks], None]


def kernels(pick: Pick, put: Put) -> dict[str, Kernel]:
    """The kernels of all these ops."""

    @takes_halves
    def take(program: Program, inputs: Row, outputs: Outs, *, axis: int, depth: int = 1) -> None:
        x, index = inputs
        pick(program, x, index, outputs[0], Picks.of_slices(x.shape, axis, depth, index.size))

    @takes_halves
    def take_elements(program: Program, inputs: Row, outputs: Outs, *, axis: int) -> None:
        x, index = inputs
        pick(program, x, index, outputs[0], Picks.of_elements(x.shape[axis], index.shape, axis))

    def slices(
        program: Program, inputs: Row, outputs: Outs, *, axis: int, depth: int, add: bool = False, reduce: str = ""
    ) -> None:  # fmt: skip
        x, index, v = inputs
        picks = Picks.of_slices(outputs[0].shape, axis, depth, index.size)
        put(program, reduce or ("add" if add else "set"), outputs[0], x, index, v, picks)

    def elements(
        program: Program, inputs: Row, outputs: Outs, *, axis: int, add: bool = False, reduce: str = ""
    ) -> None:
        x, index, v = inputs
        picks = Picks.of_elements(outputs[0].shape[axis], index.shape, axis)
        put(program, reduce or ("add" if add else "set"), outputs[0], x, index, v, picks)

    def take_x_grad(program: Program, inputs: Row, outputs: Outs, *, size: int, axis: int) -> None:
        dy, index = inputs
        picks = Picks.of_slices(outputs[0].shape, axis, 1, index.size)
        put(program, "add", outputs[0], None, index, dy, picks)

    def take_elements_x_grad(program: Program, inputs: Row, outputs: Outs, *, size: int, axis: int) -> None:
        dy, index = inputs
        put(program, "add", outputs[0], None, index, dy, Picks.of_elements(size, index.shape, axis))

    return {
        "take": take, "take_placed": take, "take_elements": take_elements, "take_elements_placed": take_elements,
        "take_x_grad": take_x_grad, "take_elements_x_grad": take_elements_x_grad, "put_slices": slices,
        "combine_slices": slices, "put_elements": elements, "combine_elements": elements,
    }  # fmt: skip
