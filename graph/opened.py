"""Live numbers as attributes of pointwise ops."""

from __future__ import annotations

from typing import Any

from ..core.numbers import real
from ..core.op import Attrs, Op
from ..core.types import TensorType
from .live import Live, settled


def opened(op: Op, inputs: Any, types: list[Any], attrs: Attrs) -> Any:
    """A pointwise op of floats whose attributes are live numbers as one that takes these as inputs, where it can."""
    names = tuple(n for n, a in zip(op.attr_names, attrs) if type(a) is Live)
    dtypes = [t.dtype if isinstance(t, TensorType) else t.__class__ for t in types]
    if (
        op.kind != "pointwise"
        or op.type_rule is not None
        or not all(d is float or getattr(d, "is_float", False) for d in dtypes)
    ):
        return op, inputs, types, attrs
    twin, rest = op.opened(names), tuple(a for a in attrs if type(a) is not Live)
    try:
        twin.form((*dtypes, *(float for _ in names)), settled(rest))
    except Exception:  # it chooses by them
        return op, inputs, types, attrs
    numbers = [real(a) for a in attrs if type(a) is Live]
    return twin, (*inputs, *numbers), [*types, *numbers], rest
