"""How much memory there is: asked before something large is made, for a system promises more than it has."""

from __future__ import annotations

import operator
from typing import Any

from .errors import OutOfMemoryError

#: from this size on, the system is asked whether there is as much: it takes less time than a page of the block
LARGE = 1 << 30
#: the same for what is made in Python, in several steps
_TABLE = 1 << 26


def available() -> float:
    """The bytes that the system says are free for a new program; infinite where it does not say."""
    try:
        with open("/proc/meminfo") as file:
            row = dict(line.split()[:2] for line in file if line.startswith(("MemAvailable:", "SwapFree:")))
        return 1024 * (int(row["MemAvailable:"]) + int(row.get("SwapFree:", 0)))
    except (OSError, KeyError, ValueError):
        return float("inf")


def tables(op: str, entries: Any, what: str) -> None:
    """Refuse tables of so many numbers, made by NumPy with some copies on the way, for which there is no memory.

    what: the setting that asks for them, in words. Raises: OutOfMemoryError.
    """
    nbytes = 32 * operator.index(entries)
    if nbytes >= _TABLE and nbytes > available():
        raise OutOfMemoryError(
            op, f"{what} needs tables of about {nbytes:,} bytes: {available():,} are available", "use smaller sizes"
        )  # fmt: skip
