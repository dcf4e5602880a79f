"""Functions of Python numbers that graph mode works out at each call, where it stands for a number that changes.

C code (`float`, `math.cos`) takes the value of such a number, so that a trace holds for that value alone; these do not.
"""

from __future__ import annotations

import math
from typing import Any


def is_live(x: Any) -> bool:
    """Whether x stands for a number, which asking for its hash would read."""
    return hasattr(type(x), "_live_worked")


def holds_live(x: Any) -> bool:
    """Whether x is such a number, or a tuple with one in it."""
    if type(x) is tuple:
        return any(map(holds_live, x)) if set(map(type, x)) - _PLAIN else False
    return type(x) not in _PLAIN and is_live(x)


_PLAIN = frozenset((int, float, bool, str, type(None)))


class _Any:
    """What stands for a live number where nothing may be made of it."""


ANY = _Any()


def without_live(x: Any) -> Any:
    """x, or a tuple, with `ANY` in the place of such numbers."""
    if x.__class__ is tuple:
        return tuple(map(without_live, x))
    return ANY if is_live(x) else x


def real(x: Any) -> float:
    """`float(x)`; of a tensor too."""
    item = getattr(x, "item", None)
    x = x if item is None else item()
    work = getattr(type(x), "_live_worked", None)
    return float(x) if work is None else work(x, "float")


def whole(x: Any) -> int:
    """`int(x)` of an integer."""
    return x if x.__class__ is int else int(x)


def estimate(x: Any) -> Any:
    """A number as it is now, for a choice by cost: what is right for others, too."""
    return getattr(x, "_live_value", x)


def most(x: Any) -> Any:
    """What a size is at most: what memory is planned for."""
    return x if type(x) is int else x._live_most() if hasattr(x, "_live_most") else x


def cos(x: float) -> float:
    """`math.cos(x)`."""
    work = getattr(type(x), "_live_worked", None)
    return math.cos(x) if work is None else work(x, "cos")
