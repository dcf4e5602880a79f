"""Live numbers as attributes of pointwise ops."""

from __future__ import annotations

from typing import Any

from ..core.numbers import real
from ..core.op import Attrs, Op
from ..core.opened import twin_of
from .live import Live, settled


def opened(op: Op, inputs: Any, types: list[Any], attrs: Attrs) -> Any:
    """A pointwise op of floats whose attributes are live numbers as one that takes these as inputs, where it can."""
    names = tuple(n for n, a in zip(op.attr_names, attrs) if type(a) is Live)
    rest = tuple(a for a in attrs if type(a) is not Live)
    twin = twin_of(op, types, names, settled(rest))
    if twin is None:
        return op, inputs, types, attrs
    numbers = [real(a) for a in attrs if type(a) is Live]
    return twin, (*inputs, *numbers), [*types, *numbers], rest
