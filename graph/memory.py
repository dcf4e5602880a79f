"""The memory plan: offsets in one arena for everything that lives only inside a call.

A buffer lives from the level that first writes it to the level that last reads it. Buffers whose levels do
not meet may share bytes; levels are the waves of the program, so launches that run side by side never do.
A result may take over the buffer of a value that its kernel reads for the last time, element by element.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from .assemble import Lowered
from .group import OP
from .ir import Value
from .placement import Places

ALIGN = 64


class MemoryPlan(NamedTuple):
    """Offsets by value, offsets of the groups' scratch areas, and sizes in bytes."""

    offsets: dict[Value, int]
    scratch: list[int]
    nbytes: int
    without_reuse: int


class _Buffer:
    __slots__ = ("end", "offset", "size", "start")

    def __init__(self, size: int, start: int, end: int):
        self.size, self.start, self.end, self.offset = size, start, end, 0


def plan_memory(lowered: Sequence[Lowered], start: Sequence[int], places: Places) -> MemoryPlan:
    """Place all intermediate values and scratch areas."""
    last: dict[Value, int] = {}
    readers: dict[Value, list[int]] = {}
    for k, g in enumerate(lowered):
        end = start[k] + max(1, len(g.phases)) - 1
        for v in g.reads:
            last[v] = max(last.get(v, 0), end)
            readers.setdefault(v, []).append(k)
    of: dict[Value, _Buffer] = {}
    buffers: list[_Buffer] = []
    scratch: list[_Buffer | None] = []
    without = 0
    for k in sorted(range(len(lowered)), key=lambda k: start[k]):
        g = lowered[k]
        end = start[k] + max(1, len(g.phases)) - 1
        taken: set[int] = set()
        for v in g.stores:
            if v in places.of:
                continue
            without += _aligned(v.type.nbytes)
            buffer = _take_over(g, v, k, start, last, readers, of, taken)
            if buffer is None:
                buffer = _Buffer(_aligned(v.type.nbytes), start[k], end)
                buffers.append(buffer)
            buffer.end = max(end, last.get(v, 0))
            of[v] = buffer
    for k, g in enumerate(lowered):
        area = None
        if g.scratch:
            without += _aligned(g.scratch)
            area = _Buffer(_aligned(g.scratch), start[k], start[k] + max(1, len(g.phases)) - 1)
            buffers.append(area)
        scratch.append(area)
    total = _place(buffers)
    return MemoryPlan(
        {v: b.offset for v, b in of.items()}, [0 if b is None else b.offset for b in scratch], total, without
    )


def _aligned(nbytes: int) -> int:
    return -(-max(nbytes, 1) // ALIGN) * ALIGN


def _take_over(
    g: Lowered, v: Value, k: int, start: Sequence[int], last: dict[Value, int], readers: dict[Value, list[int]],
    of: dict[Value, _Buffer], taken: set[int],
) -> _Buffer | None:  # fmt: skip
    """The buffer of an input that dies in this group and that `v` may overwrite."""
    if g.group.kind == OP or len(g.phases) != 1 or len(g.phases[0]) != 1:
        return None
    for x, accesses in g.reads.items():
        buffer = of.get(x)
        if (
            buffer is not None and last[x] == start[k] and buffer.end == start[k] and id(buffer) not in taken
            and x.type.nbytes == v.type.nbytes and x.type.dtype.itemsize == v.type.dtype.itemsize
            and accesses == [(g.stores[v], 0)] and sum(start[r] == start[k] for r in readers[x]) == 1
        ):  # fmt: skip
            taken.add(id(buffer))
            return buffer
    return None


def _place(buffers: list[_Buffer]) -> int:
    """Give every buffer an offset, the largest first at the lowest place that is free in its lifetime."""
    placed: list[_Buffer] = []
    total = 0
    for b in sorted(buffers, key=lambda b: (-b.size, b.start)):
        at = 0
        for other in placed:  # in order of offset
            if other.start <= b.end and b.start <= other.end:
                if other.offset - at >= b.size:
                    break
                at = max(at, other.offset + other.size)
        b.offset = at
        total = max(total, at + b.size)
        k = len(placed)
        while k and placed[k - 1].offset > at:
            k -= 1
        placed.insert(k, b)
    return total
