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
        for v in g.reads:
            ends.setdefault(v, []).append(start[k] + g.span(v)[1])
    last = {v: max(row) for v, row in ends.items()}
    of: dict[Value | int, _Buffer] = {}
    begins = _begins(lowered, start, places)
    inside: dict[Value, tuple[Value, int]] = {}
    buffers: list[_Buffer] = []
    regions: list[_Region] = []
    without = 0
    for k in sorted(range(len(lowered)), key=lambda k: start[k]):
        g = lowered[k]
        end = start[k] + max(1, len(g.phases)) - 1
        taken: set[int] = set()
        for v in g.stores:
            if v in places.of:
                place = places.of[v]
                of_one_size = not any(is_size(n) for n in v.type.shape)  # else it is smaller than planned
                if isinstance(place, int) and begins.get(v, start[k]) and of_one_size:
                    regions.append(_Region(place, v.type.nbytes, begins.get(v, start[k])))
                continue
            if v in begins or v in places.parts:
                root, at = places.root(v)
                if v in places.parts:
                    inside[v] = root, at
                if root not in places.of:
                    if root not in of:
                        without += room(root.type.nbytes)
                        of[root] = _Buffer(room(root.type.nbytes), start[k], end)
                        buffers.append(of[root])
                    of[root].end = max(of[root].end, end, last.get(v, 0))
                continue
            kept = places.same.get(v)
            if kept is not None:
                if kept in of:
                    of[v] = of[kept]
                    of[v].end = max(of[v].end, end, last.get(v, 0))
                continue
            without += room(v.type.nbytes)
            buffer = _take_over(g, v, start[k], ends, of, taken, begins)
            first, final = g.span(v)
            if buffer is None:
                buffer = _Buffer(room(v.type.nbytes), start[k] + first, end)
                buffers.append(buffer)
            buffer.end = max(start[k] + final, last.get(v, 0))
            of[v] = buffer
        for source, (nbytes, first, final) in g.scratch.items():
            without += room(nbytes)
            of[source] = _Buffer(room(nbytes), start[k] + first, start[k] + final)
            buffers.append(of[source])
    if _least(buffers, regions) >= limit:
        return None
    total = _place(buffers, regions)
    if total >= limit:
        return None
    spots: dict[Value | int, Spot] = {v: (b.where, b.offset) for v, b in of.items()}
    for v, (root, at) in inside.items():
        output = places.of.get(root)
        region, offset = (output, 0) if isinstance(output, int) else spots[root]
        spots[v] = region, offset + at
    return MemoryPlan(spots, total, without)


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
            and x.type.nbytes == v.type.nbytes and x.type.dtype.itemsize == v.type.dtype.itemsize
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
        at, first, last = 0, b.start, b.end
        pad = (LINE if b.size >= LINE else PIECE) - 1
        for other in self.placed:
            if other.start <= last and first <= other.end:
                if other.offset - at >= b.size:
                    break
                at = max(at, other.offset + other.size + pad & ~pad)
        if at + b.size > self.size:
            return False
        b.where, b.offset = self.number, at
        k = len(self.placed)
        while k and self.placed[k - 1].offset > at:
            k -= 1
        self.placed.insert(k, b)
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


def _place(buffers: list[_Buffer], regions: list[_Region]) -> int:
    """Place every buffer: in the smallest output that has room, else in the arena. Returns the arena's size."""
    regions.sort(key=_size)
    best = _try(sorted(buffers, key=_ORDERS[0]), regions)
    if best > _LARGE:
        enough = _least(buffers, regions) * (1 + _CLOSE)
        spots = [(b.where, b.offset) for b in buffers]
        for order in _ORDERS[1:]:
            if best <= enough:
                break
            found = _try(sorted(buffers, key=order), regions)
            if found < best:
                best, spots = found, [(b.where, b.offset) for b in buffers]
        for b, spot in zip(buffers, spots):
            b.where, b.offset = spot
    return best


def _least(buffers: list[_Buffer], regions: list[_Region]) -> int:
    """Bytes that no order of placing can do without: what lives at a level, less the outputs that are free there."""
    change: dict[float, int] = {}
    for b in buffers:
        change[b.start] = change.get(b.start, 0) + b.size
        change[b.end + 1] = change.get(b.end + 1, 0) - b.size
    for r in regions:
        change[0] = change.get(0, 0) - int(r.size)
        change[r.until] = change.get(r.until, 0) + int(r.size)
    return max(itertools.accumulate(change[level] for level in sorted(change)), default=0)


def _try(buffers: list[_Buffer], regions: list[_Region]) -> int:
    """Place buffers in this order. regions: the smallest first."""
    arena = _Region(ARENA, float("inf"), float("inf"))
    sizes = [r.size for r in regions]
    for r in regions:
        r.placed.clear()
    for b in buffers:
        b.where, b.offset = ARENA, 0
        for k in range(bisect_left(sizes, b.size), len(regions)):
            if regions[k].take(b):
                break
        else:
            arena.take(b)
    return max((b.offset + b.size for b in arena.placed), default=0)
