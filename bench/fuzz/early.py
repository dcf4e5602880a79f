"""Programs whose graphs are for any size after one size, and are entered quickly from their second call on.

What other programs come to after three sizes of an axis and three calls, which they hardly make: these are called
seven times more, with other sizes of the same axes, by graphs whose thresholds are lower while they run.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from ...core import hot
from ...graph import entry, growing

#: the temper's name; its programs are drawn like those of the others
EARLY = "early"


def set_thresholds(seen: int = 1, calls: int = 1, bodies: int = 2) -> tuple[int, int, int]:
    """Make graphs for any size after so many sizes of an axis, quick ways in at such a call of a graph, and programs of
    composites' bodies in eager mode at such a call of these. Returns what these were."""
    before = growing.SEEN, entry.CALLS, hot.CALLS
    growing.SEEN, entry.CALLS, hot.CALLS = seen, calls, bodies
    return before


@contextmanager
def thresholds(early: bool) -> Iterator[None]:
    """Low ones in the block, for a program that asks for them."""
    before = set_thresholds() if early else None
    try:
        yield
    finally:
        if before is not None:
            set_thresholds(*before)
