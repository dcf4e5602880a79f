"""Programs whose graphs are for any size after one size, and are entered quickly from their second call on.

What other programs come to after three sizes of an axis and three calls, which they hardly make: these are called
seven times more, with other sizes of the same axes, by graphs whose thresholds are lower while they run.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from ...graph import entry, growing

#: the temper's name; its programs are drawn like those of the others
EARLY = "early"


def set_thresholds(seen: int = 1, calls: int = 1) -> tuple[int, int]:
    """Make graphs for any size after so many sizes of an axis, quick ways in at such a call of a graph. Returns what
    these were."""
    before = growing.SEEN, entry.CALLS
    growing.SEEN, entry.CALLS = seen, calls
    return before


@contextmanager
def thresholds(early: bool) -> Iterator[None]:
    """Low ones in the block, for a program that asks for them."""
    before = set_thresholds() if early else (growing.SEEN, entry.CALLS)
    try:
        yield
    finally:
        set_thresholds(*before)
