"""What rows are made of: the decorator, a class whose objects they read and change, and how errors are seen."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

#: rows by module
MADE: dict[str, list[Callable[[Any], Any]]] = {}


def row(fn: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """Add a row."""
    MADE.setdefault(fn.__module__, []).append(fn)
    return fn


@dataclass
class Config:
    scale: float = 2.0
    sizes: list[int] = field(default_factory=lambda: [1, 2])
    weight: Any = None


def raises(fn):
    """The name of the error that a call raises."""
    try:
        fn()
    except Exception as e:
        return type(e).__name__
    return "nothing"
