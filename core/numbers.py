"""Functions of Python numbers that graph mode works out at each call, where it stands for a number that changes.

C code (`float`, `math.cos`) takes the value of such a number, so that a trace holds for that value alone; these do not.
"""

from __future__ import annotations

import math
from typing import Any


def is_live(x: Any) -> bool:
    """Whether x stands for a number, which asking for its hash would read."""
    return hasattr(type(x), "_live_worked")


def real(x: Any) -> float:
    """`float(x)`; of a tensor too."""
    item = getattr(x, "item", None)
    x = x if item is None else item()
    work = getattr(type(x), "_live_worked", None)
    return float(x) if work is None else work(x, "float")


def cos(x: float) -> float:
    """`math.cos(x)`."""
    work = getattr(type(x), "_live_worked", None)
    return math.cos(x) if work is None else work(x, "cos")
