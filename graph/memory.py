"""The memory plan: offsets in one arena for everything that lives only inside a call.

A buffer lives from the level that first writes it to the level that last reads it: of a kernel in several phases,
those that do so. Buffers whose levels do not meet may share bytes; levels are the waves of the program, so launches
that run side by side never do.
A result may take over the buffer of a value that its kernel reads for the last time, element by element.
What is smaller than a line of the cache shares one with others: kernels assume no more than an element's own alignment.
The memory of an output serves for other things until the output is computed. What is computed in its place in the
result of a `concat` has no buffer of its own: the result lives from the first of its parts on.
"""

from __future__ import annotations

import itertools
from bisect import bisect_left
from collections import defaultdict
from collections.abc import Callable, Container, Sequence
from operator import attrgetter
from typing import Any, NamedTuple

from ..core.storage import LINE, PIECE, room
from .assemble import Lowered
from .group import OP
from .ir import Value
from .live import is_size
from .placement import Places

#: bytes of an arena for which several orders of placing buffers are tried
_LARGE = 1 << 20
#: steps that make a life more than a short one, and a long one
_SHORT, _LONG = 4, 12
#: an order whose arena is larger than the least that is possible by at most this share is good enough
_CLOSE = 1 / 1000


#: the number of an output, or ARENA, and a byte offset in it
Spot = tuple[int, int]
ARENA = -1


class MemoryPlan(NamedTuple):
    """Where values (by value) and scratch areas (by source) lie, and sizes in bytes."""

    spots: dict[Value | int, Spot]
    nbytes: int
    without_reuse: int


class _Buffer:
    __slots__ = ("end", "offset", "size", "start", "where")

    def __init__(self, size: int, start: int, end: int):
        self.size, self.start, self.end = size, start, end
        self.where, self.offset = ARENA, 0


def plan_memory(lowered: Sequence[Lowered], start: Sequence[int], places: Places) -> MemoryPlan:
    """Place all intermediate values and scratch areas."""
    plan = plan_below(lowered, start, places, float("inf"))
    assert plan is not None
    return plan


def plan_below(
    lowered: Sequence[Lowered], start: Sequence[int], places: Places, limit: float
) -> MemoryPlan | None:
    """The plan when its arena has fewer bytes than `limit`; None, and mostly soon, where it has not."""
    ends: dict[Value, list[int]] = {}
    for k, g in enumerate(lowered):
        touched, final = g.touched, max(1, len(g.phases)) - 1
        for v in g.reads:
            level = start[k] + (touched[v][1] if v in touched else final)
            if v in ends:
                ends[v].append(level)
            else:
                ends[v] = [level]
    last = {v: row[0] if len(row) == 1 else max(row) for v, row in ends.items()}
    of: dict[Value | int, _Buffer] = {}
    begins = _begins(lowered, start, places)
    inside: dict[Value, tuple[Value, int]] = {}
    buffers: list[_Buffer] = []
    regions: list[_Region] = []
    without = 0
    for k in sorted(range(len(lowered)), key=start.__getitem__):
        g = lowered[k]
        touched, whole = g.touched, (0, max(1, len(g.phases)) - 1)
        end = start[k] + whole[1]
        taken: set[int] = set()
        for v in g.stores:
            if v in places.of:
                place = places.of[v]
                if isinstance(place, int):
                    first = begins.get(v, start[k])
                    if first and not any(map(is_size, v.type.shape)):  # else it is smaller than planned
                        regions.append(_Region(place, v.nbytes, first))
                continue
            if v in begins or v in places.parts:
                root, at = places.root(v)
                if v in places.parts:
                    inside[v] = root, at
                if root not in places.of:
                    if root not in of:
                        without += room(root.nbytes)
                        of[root] = _Buffer(room(root.nbytes), start[k], end)
                        buffers.append(of[root])
                    of[root].end = max(of[root].end, end, last.get(v, 0))
                continue
            if v in places.same:
                kept = places.same[v]
                if kept in of:
                    of[v] = of[kept]
                    of[v].end = max(of[v].end, end, last.get(v, 0))
                continue
            nbytes = room(v.nbytes)
            without += nbytes
            buffer = _take_over(g, v, start[k], ends, of, taken, begins)
            first, final = touched.get(v, whole)
            if buffer is None:
                buffer = _Buffer(nbytes, start[k] + first, end)
                buffers.append(buffer)
            final += start[k]
            buffer.end = max(final, last[v]) if v in last else final
            of[v] = buffer
        for source, (nbytes, first, final) in g.scratch.items():
            nbytes = room(nbytes)
            without += nbytes
            of[source] = _Buffer(nbytes, start[k] + first, start[k] + final)
            buffers.append(of[source])
    least = _least(buffers, regions)
    if least >= limit:
        return None
    total = _place(buffers, regions, least, limit)
    if total >= limit:
        return None
    spots: dict[Value | int, Spot] = {v: (b.where, b.offset) for v, b in of.items()}
    for v, (root, at) in inside.items():
        output = places.of.get(root)
        region, offset = (output, 0) if isinstance(output, int) else spots[root]
        spots[v] = region, offset + at
    return MemoryPlan(spots, int(total), without)


def _begins(lowered: Sequence[Lowered], start: Sequence[int], places: Places) -> dict[Value, int]:
    """For each value that parts of others are computed in, the level that writes the first of them."""
    begins: dict[Value, int] = {}
    for k, g in enumerate(lowered):
        for v in g.stores:
            if v in places.parts:
                root, _ = places.root(v)
                begins[root] = min(begins.get(root, start[k]), start[k])
    return begins


def _take_over(
    g: Lowered, v: Value, level: int, ends: dict[Value, list[int]], of: dict[Value | int, _Buffer], taken: set[int],
    joined: Container[Value],
) -> _Buffer | None:  # fmt: skip
    """The buffer of an input that dies in this group and that `v` may overwrite.

    ends: by value, the last levels of those that read it. Of them this group alone is at work at its level.
    """
    if g.group.kind == OP or len(g.phases) != 1 or len(g.phases[0]) != 1:
        return None
    for x, accesses in g.reads.items():
        buffer = of.get(x)
        if (
            buffer is not None and x not in joined and buffer.end == level == max(ends[x])
            and ends[x].count(level) == 1 and id(buffer) not in taken
            and x.nbytes == v.nbytes and x.type.dtype.itemsize == v.type.dtype.itemsize
            and accesses == [(g.stores[v], 0)]
        ):  # fmt: skip
            taken.add(id(buffer))
            return buffer
    return None


class _Region:
    """Memory of `size` bytes that is free before level `until`; `placed` is in order of offset."""

    __slots__ = ("number", "placed", "size", "until")

    def __init__(self, number: int, size: float, until: float):
        self.number, self.size, self.until = number, size, until
        self.placed: list[_Buffer] = []

    def take(self, b: _Buffer) -> bool:
        """Give the buffer the lowest place that is free in its lifetime, if there is one."""
        if b.end >= self.until:
            return False
        at, first, last, size, placed = 0, b.start, b.end, b.size, self.placed
        pad = (LINE if size >= LINE else PIECE) - 1
        for other in placed:
            if other.start <= last and first <= other.end:
                if other.offset - at >= size:
                    break
                behind = other.offset + other.size + pad & ~pad
                if behind > at:
                    at = behind
        if at + size > self.size:
            return False
        b.where, b.offset = self.number, at
        k = len(placed)
        while k and placed[k - 1].offset > at:
            k -= 1
        placed.insert(k, b)
        return True


_size = attrgetter("size")
#: in which order buffers are placed: no one is best for all graphs
_ORDERS: tuple[Callable[[_Buffer], Any], ...] = (
    lambda b: (-b.size, b.start),
    lambda b: (b.start - b.end, -b.size),
    lambda b: (b.end - b.start < _LONG, -b.size, b.start),
    lambda b: (b.end - b.start < _SHORT, -b.size, b.start),
    lambda b: (b.end - b.start < _LONG, -b.end, -b.size),
)


def _place(buffers: list[_Buffer], regions: list[_Region], least: int, limit: float) -> float:
    """Place every buffer: in the smallest output that has room, else in the arena. Returns the arena's size; infinity
    where all orders take `limit` bytes and more, mostly. least: bytes that none can do without."""
    regions.sort(key=_size)
    enough = least * (1 + _CLOSE)
    useless = max(limit, enough, _LARGE) + 1
    best = _try(sorted(buffers, key=_ORDERS[0]), regions, useless)
    if best > _LARGE:
        spots = [(b.where, b.offset) for b in buffers]
        for order in _ORDERS[1:]:
            if best <= enough:
                break
            found = _try(sorted(buffers, key=order), regions, min(best, useless))
            if found < best:
                best, spots = found, [(b.where, b.offset) for b in buffers]
        for b, spot in zip(buffers, spots):
            b.where, b.offset = spot
    return best


def _least(buffers: list[_Buffer], regions: list[_Region]) -> int:
    """Bytes that no order of placing can do without: what lives at a level, less the outputs that are free there."""
    change: dict[float, int] = defaultdict(int)
    for b in buffers:
        change[b.start] += b.size
        change[b.end + 1] -= b.size
    for r in regions:
        size = int(r.size)
        change[0] -= size
        change[r.until] += size
    return max(itertools.accumulate([change[level] for level in sorted(change)]), default=0)


def _try(buffers: list[_Buffer], regions: list[_Region], useless: float) -> float:
    """Place buffers in this order. regions: the smallest first; useless: infinite bytes are as good as so many."""
    top, arena = 0, _Region(ARENA, float("inf"), float("inf"))
    sizes = [r.size for r in regions]
    for r in regions:
        r.placed.clear()
    for b in buffers:
        b.where, b.offset = ARENA, 0
        end = b.end
        for r in regions[bisect_left(sizes, b.size) :]:
            if end < r.until and r.take(b):
                break
        else:
            arena.take(b)
            if b.offset + b.size > top:
                top = b.offset + b.size
                if top >= useless:
                    return float("inf")
    return top
