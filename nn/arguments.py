"""Checks of constructor arguments that several layers share."""

from __future__ import annotations

from typing import Any

from ..core.errors import ArgumentError, ArgumentTypeError
from ..core.numbers import real


def size(op: str, name: str, value: Any, low: int = 1) -> int:
    """`value` as an int from `low`. Raises: ArgumentTypeError, ArgumentError."""
    if isinstance(value, bool) or not hasattr(value, "__index__"):
        raise ArgumentTypeError(op, f"{name}={value!r} is not an int", f"pass an int from {low}")
    value = value.__index__()
    if value < low:
        raise ArgumentError(op, f"{name}={value} is too small", f"pass an int from {low}")
    return int(value)


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


def only(op: str, name: str, value: Any, allowed: Any) -> None:
    """Refuse a PyTorch setting that is missing here, unless it has its default. Raises: ArgumentError."""
    if value != allowed:
        raise ArgumentError(op, f"{name}={value!r} is not supported", f"leave it out ({name}={allowed!r})")
