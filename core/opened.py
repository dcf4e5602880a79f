"""Pointwise ops with attributes as inputs: one kernel for all their values."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from .op import Attrs, Op
from .types import TensorType


def twin_of(op: Op, types: Sequence[Any], names: tuple[str, ...], rest: Attrs) -> Op | None:
    """The op with the attributes `names` as further inputs, Python floats; None where that gives other bits.

    types: of the inputs, numbers as they are; rest: the attributes that stay.
    """
    dtypes = [t.dtype if isinstance(t, TensorType) else t.__class__ for t in types]
    if (
        op.kind != "pointwise"
        or op.type_rule is not None
        or not all(d is float or getattr(d, "is_float", False) for d in dtypes)
    ):
        return None
    twin = op.opened(names)
    try:
        twin.form((*dtypes, *(float for _ in names)), rest)
    except Exception:  # it chooses by them
        return None
    return twin
