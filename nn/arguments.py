"""Checks of constructor arguments that several layers share."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, TypeAlias

from ..core.errors import ArgumentError
from ..core.kinds import Count, Natural
from ..core.numbers import real
from ..core.strangers import size

__all__ = [
    "LAYERS", "Counts", "Floats", "Ints", "Naturals", "Pads", "Sizes", "choice", "only", "probability", "reduction",
    "size",
]  # fmt: skip

#: one value for all axes, or one for each; of counts, and from 0
Ints: TypeAlias = "int | Sequence[int]"
Counts: TypeAlias = "Count | Sequence[Count]"
Naturals: TypeAlias = "Natural | Sequence[Natural]"
Floats: TypeAlias = "float | Sequence[float]"
#: also pairs, before and after
Pads: TypeAlias = "int | Sequence[Any]"
#: None: the size that there is
Sizes: TypeAlias = "Natural | Sequence[Natural | None] | None"
#: most layers of one kind in a row: what is above is a slip, and would be made until memory ends
LAYERS = 2**20


def probability(op: str, p: Any) -> float:
    """`p` as a float from 0 to 1. Raises: ArgumentError."""
    if not isinstance(p, (int, float)) or not 0 <= p <= 1:
        raise ArgumentError(op, f"p={p!r} is not a probability", "use a number from 0 to 1")
    return real(p)


def reduction(op: str, value: Any) -> str:
    """`value` if it names a reduction. Raises: ArgumentError."""
    if value not in ("mean", "sum", "none"):
        raise ArgumentError(op, f"reduction={value!r}", 'use "mean", "sum" or "none"')
    return str(value)


def choice(op: str, name: str, value: Any, allowed: Iterable[str]) -> Any:
    """`value` if it is one of the allowed. Raises: ArgumentError."""
    if value not in allowed:
        raise ArgumentError(op, f"{name}={value!r}", f"use {', '.join(map(repr, allowed))}")
    return value


def only(op: str, name: str, value: Any, allowed: Any) -> None:
    """Refuse a PyTorch setting that is missing here, unless it has its default. Raises: ArgumentError."""
    if value != allowed:
        raise ArgumentError(op, f"{name}={value!r} is not supported", f"leave it out ({name}={allowed!r})")
