"""When each group runs: levels, as early as what it reads allows, later or sooner when that keeps memory free."""

from __future__ import annotations

from collections.abc import Container, Sequence
from typing import Any, NamedTuple

from ..core.listed import FEW, list_key
from .assemble import Lowered
from .bits import bits
from .ir import Value
from .placement import Places

#: groups that touch less new memory than this may run beside any other
SMALL_BYTES = 1 << 18


def schedule(
    lowered: Sequence[Lowered], order: Sequence[int] | None = None, placed: Container[Value] = frozenset(),
    strict: bool = False, least: int = SMALL_BYTES, near: Near | None = None,
) -> list[int]:  # fmt: skip
    """The level at which each group starts; a group of n phases takes n levels. Groups are in a legal order.

    order: groups with more than `least` bytes of their own run one after the other, in this order (`in_turn`). strict:
    so do those that read as much for the last time, so that nothing of it lies beside what comes next. placed: see
    `in_turn`.
    """
    before, after, readers = find_near(lowered) if near is None else near
    large = set[int]() if order is None else _large(lowered, order, placed, strict, least)
    if order is None:
        order = range(len(lowered))
    start = [0] * len(lowered)
    free = 0
    for k in order:
        g = lowered[k]
        start[k] = max((start[p] + len(lowered[p].phases) for p in before[k]), default=0)
        if k in large:
            start[k] = max(start[k], free)
            free = start[k] + len(g.phases)
    for k in reversed(order):
        if after[k] and k not in large:
            made = sum(v.nbytes for v in lowered[k].stores)
            late = min(start[a] for a in after[k]) - len(lowered[k].phases)
            if late > start[k] and made > _held(lowered[k], k, late, start, readers):
                start[k] = late
    return start


def _large(
    lowered: Sequence[Lowered], order: Sequence[int], placed: Container[Value], strict: bool, least: int
) -> set[int]:
    """The groups that touch too much memory to run beside others."""
    touched = [g.scratch_bytes + sum(v.nbytes for v in g.stores) for g in lowered]
    if strict:
        last = {v: k for k in order for v in lowered[k].reads if v.producer is not None and v not in placed}
        for v, k in last.items():
            touched[k] += v.nbytes
    return {k for k, nbytes in enumerate(touched) if nbytes > least}


class Near(NamedTuple):
    """For each group those that must run before it, and those that must run after it; the groups that read a value."""

    before: list[list[int]]
    after: list[list[int]]
    readers: dict[Value, list[int]]


def find_near(lowered: Sequence[Lowered]) -> Near:
    """What stands around each group."""
    number = {b: k for k, g in enumerate(lowered) for b in bits(g.group.own)}
    before = [list({number[b] for b in bits(g.group.direct)}) if g.group.direct else [] for g in lowered]
    after: list[list[int]] = [[] for _ in lowered]
    for k, row in enumerate(before):
        for p in row:
            after[p].append(k)
    return Near(before, after, _readers(lowered))


def _readers(lowered: Sequence[Lowered]) -> dict[Value, list[int]]:
    """The groups that read each value."""
    readers: dict[Value, list[int]] = {}
    for k, g in enumerate(lowered):
        for v in g.reads:
            if v in readers:
                readers[v].append(k)
            else:
                readers[v] = [k]
    return readers


def in_turn(lowered: Sequence[Lowered], placed: Container[Value], near: Near | None = None) -> list[int]:
    """The groups in the program's order, but what frees more memory than it takes runs as soon as it can.

    placed: values with memory outside (outputs, changed inputs), which is theirs all the time.
    """
    before, after, readers = find_near(lowered) if near is None else near
    left = {v: len(row) for v, row in readers.items()}
    waits = [len(row) for row in before]
    order: list[int] = []
    done = [False] * len(lowered)

    def frees(k: int) -> bool:
        gain = -sum(v.nbytes for v in lowered[k].stores if v not in placed)
        for v in lowered[k].reads:
            if left[v] == 1 and v.producer is not None and v not in placed:
                gain += v.nbytes
        return gain > 0

    for first in range(len(lowered)):
        stack = [] if done[first] else [first]
        while stack:
            k = stack.pop()
            if done[k] or (k != first and not frees(k)):
                continue
            done[k] = True
            order.append(k)
            around = set(after[k])
            for other in after[k]:
                waits[other] -= 1
            for v in lowered[k].reads:
                left[v] -= 1
                if left[v] == 1:
                    around.update(readers[v])
            stack += sorted((n for n in around if not done[n] and not waits[n]), reverse=True)
    return order


def _held(
    g: Lowered,
    k: int,
    level: int,
    start: Sequence[int],
    readers: dict[Value, list[int]],
    places: Places | None = None,
) -> int:
    """Bytes that stay in memory only because group k reads them as late as at this level. places: of results."""
    return sum(
        v.nbytes
        for v in g.reads
        if v.producer is not None
        and not (places is not None and v in places.of)
        and all(start[r] < level for r in readers[v] if r != k)
    )


def is_one_launch(g: Lowered) -> bool:
    """Whether a group is one launch and no more."""
    return len(g.phases) == 1 and len(g.phases[0]) == 1


def update_kinds(lowered: Sequence[Lowered], backend: Any) -> dict[Any, list[int]]:
    """The groups of one launch that nobody waits for (optimiser updates), by `list_key`; only where there are `FEW`."""
    number = {b: k for k, g in enumerate(lowered) for b in bits(g.group.own)}
    awaited = {number[b] for g in lowered for b in bits(g.group.direct)}
    kinds: dict[Any, list[int]] = {}
    for k, g in enumerate(lowered):
        if k not in awaited and is_one_launch(g):
            key = list_key(g.phases[0][0][0], backend)
            if key is not None:
                kinds.setdefault(key, []).append(k)
    return {key: kind for key, kind in kinds.items() if len(kind) >= FEW}


def together(
    lowered: Sequence[Lowered], start: Sequence[int], kinds: dict[Any, list[int]], places: Places, held: float,
    near: Near | None = None,
) -> list[int]:  # fmt: skip
    """The levels with the `update_kinds` moved to the last level of any.

    They become one launch there (`core/listed.py`). held: bytes that may stay in memory for it, the smallest first.
    """
    members = [k for kind in kinds.values() for k in kind]
    moved = list(start)
    if not members:
        return moved
    level = max(start[k] for k in members)
    readers = (find_near(lowered) if near is None else near).readers
    kept = sorted((_held(lowered[k], k, level, start, readers, places), k) for k in members)
    for nbytes, k in kept:
        held -= nbytes
        if held < 0:
            break
        moved[k] = level
    return moved
