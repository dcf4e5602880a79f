"""Checks of values that a trace puts off until the graph has run: what asks for them, whose line their errors name."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ..core import dispatch
from ..core.errors import DuogradError, Place, line_of
from ..core.op import REGISTRY
from .live import is_live
from .symbol import Symbol

if TYPE_CHECKING:
    from .trace import Trace


class Extent:
    """What `Op.values` rules ask a trace for: the range of an index, when the graph has run."""

    def __init__(self, trace: Trace):
        self.trace = trace

    def later(self, index: Symbol, refuse: Any) -> None:
        source = self.trace._origin.get(index._value)
        if source is not None and source.key == "constant":
            array = source.tensor._array()
            refuse(int(array.min()), int(array.max()))
            return
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
    return any(is_live(x) or (callable(x) and knows_sizes(x)) for x in cells)


def at_place(place: Place | None, refuse: Any) -> Any:
    """`refuse`, whose error names the line where the trace met the check."""

    def run(array: Any) -> None:
        try:
            refuse(array)
        except DuogradError as e:
            raise type(e)(e.op, e.message, e.fix, line_of(place)) from None

    run.prints = getattr(refuse, "prints", False)  # type: ignore[attr-defined]
    return run
