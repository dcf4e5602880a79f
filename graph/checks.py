"""Checks of values that a trace puts off until the graph has run: what asks for them, whose line their errors name."""

from __future__ import annotations

import math
from collections.abc import Sequence
from types import CellType, FunctionType
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from ..core import dispatch
from ..core.errors import DuogradError, Place, line_of
from ..core.op import REGISTRY
from ..core.types import DType, Shape, TensorType
from .live import Formula, Live, RestartError, is_live, is_size
from .symbol import Symbol

if TYPE_CHECKING:
    from .trace import Trace


class Extent:
    """What `Op.values` rules ask a trace for: the range of an index, when the graph has run."""

    def __init__(self, trace: Trace):
        self.trace = trace

    def later(self, index: Symbol, refuse: Any) -> None:
        array = self.trace.constant_of(index)
        if array is not None:
            try:
                refuse(int(array.min()), int(array.max()))
                return
            except DuogradError:
                if self.trace.certain:
                    raise  # else where the call comes to it
        with dispatch.set_grad(False):
            for name, side in (
                (
                    "min",
                    lambda a: refuse(int(a), -1),
                ),  # each side alone, so that both modes name the same index
                ("max", lambda a: refuse(0, int(a))),
            ):
                self.trace.check(dispatch.apply(REGISTRY[name], (index,), REGISTRY[name].defaults), side)


def knows_sizes(refuse: Any) -> bool:
    """Whether a check has live sizes in its closure, which it could not ask after the trace."""
    cells = [c.cell_contents for c in getattr(refuse, "__closure__", None) or ()]
    return any(_knows(x) or (callable(x) and knows_sizes(x)) for x in cells)


def _knows(x: Any) -> bool:
    return any(map(is_size, x.shape)) if x.__class__ is Symbol else is_live(x)


class SizedCheck:
    """A check that knows live sizes. `at(live)` is the check for a call with these live numbers."""

    __slots__ = ("_kept",)
    placed, prints = True, False

    def __init__(self, refuse: Any):
        self._kept = _kept(refuse)

    def at(self, live: Any) -> Any:
        return _made(self._kept, live)


class _Shown(NamedTuple):
    """What a check may ask a tensor for."""

    type: TensorType

    @property
    def shape(self) -> Shape:
        return self.type.shape

    @property
    def dtype(self) -> DType:
        return self.type.dtype


class _Closure(NamedTuple):
    function: FunctionType
    cells: tuple[Any, ...]


def _kept(x: Any) -> Any:
    """x with formulas for live numbers. Raises: RestartError for what may hold some elsewhere."""
    if type(x) is Live:
        return x._formula()
    if x.__class__ is Symbol and _knows(x):
        return _Shown(_kept(x.type))
    if isinstance(x, tuple):
        row = map(_kept, x)
        return type(x)(*row) if hasattr(x, "_fields") else tuple(row)
    if type(x) is list:
        return [_kept(v) for v in x]
    if isinstance(x, FunctionType) and knows_sizes(x):
        return _Closure(x, tuple([_kept(c.cell_contents) for c in x.__closure__ or ()]))
    if is_live(x) or (callable(x) and knows_sizes(x)):
        raise RestartError
    return x


def _made(x: Any, live: Any) -> Any:
    """The same with numbers in the places of formulas."""
    if x.__class__ is Formula:
        return x.at(live)
    if x.__class__ is _Closure:
        f: Any = x.function
        cells = tuple([CellType(_made(c, live)) for c in x.cells])
        return FunctionType(f.__code__, f.__globals__, f.__name__, f.__defaults__, cells)
    if isinstance(x, tuple):
        row = [_made(v, live) for v in x]
        return type(x)(*row) if hasattr(x, "_fields") else tuple(row)
    return [_made(v, live) for v in x] if x.__class__ is list else x


def of_rows(parts: Sequence[tuple[Any, Shape]], reverse: bool) -> Any:
    """Checks of what the turns of a loop gave, side by side in a row for each turn, in their order."""
    ends = np.cumsum([math.prod(shape) for _, shape in parts])[:-1]

    def run(rows: Any) -> None:
        for row in rows[::-1] if reverse else rows:
            for (refuse, shape), part in zip(parts, np.split(row, ends)):
                refuse(part.reshape(shape))

    return _placed(run)


def of_branch(refuse: Any, shape: Shape, k: int) -> Any:
    """A check of a value that branch k alone has: that there is one stands before it."""

    def run(row: Any) -> None:
        if row[0] == 1 - k:
            refuse(row[1:].reshape(shape))

    return _placed(run)


def of_range(refuse: Any, shape: Shape, dtype: Any) -> Any:
    """A check of a value by the least and the most that it was in all turns: whether there were some, and both.

    What refuses values does so from some bound on, so that it refuses one of the two.
    """

    def run(row: Any) -> None:
        if row[0]:
            for part in np.split(row[1:], 2):
                refuse(part.reshape(shape).astype(dtype))

    return _placed(run)


def _placed(run: Any) -> Any:
    run.placed, run.prints = True, False
    return run


def at_place(place: Place | None, refuse: Any) -> Any:
    """`refuse`, whose error names the line where the trace met the check."""

    if hasattr(refuse, "placed"):
        return refuse

    def run(array: Any) -> None:
        try:
            refuse(array)
        except DuogradError as e:
            raise type(e)(e.op, e.message, e.fix, line_of(place)) from None

    run.placed = True  # type: ignore[attr-defined]
    run.prints = getattr(refuse, "prints", False)  # type: ignore[attr-defined]
    return run
