"""Sets of items as the bits of an integer."""

from __future__ import annotations


def bits(mask: int) -> list[int]:
    """The single bits of a mask, lowest first."""
    out = []
    while mask:
        low = mask & -mask
        out.append(low)
        mask ^= low
    return out
