"""What a compiled graph does, as facts: kernels with traffic and arithmetic, borders of fusion, memory over time."""

from __future__ import annotations

import math
import os
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from .compile import Compiled
from .group import OP, REDUCE, Group
from .ir import Value
from .memory import ARENA
from .nested import Inside
from .work import flops

if TYPE_CHECKING:
    from .runner import Runner
    from .segment import Segment
    from .variant import Variant


class Kernel(NamedTuple):
    """A group of the plan, or several of one kind that are one launch.

    number: its place in the plan; title: its ops in words; lines: the user's lines; levels: first and last step
    of the plan in which it runs; launches: rows of the program; reads, writes: (value, bytes), least traffic with
    memory; renewed: bytes that it writes where it has read; flops: arithmetic of a run (of a loop, where its turns are
    known); others: the groups beside `group`; chunks: pieces of its largest launch; beside: pieces of other launches
    that run at the same time; inside: plans of a loop's or choice's regions.
    """

    number: int
    group: Group
    title: str
    lines: tuple[str, ...]
    levels: tuple[int, int]
    launches: tuple[int, ...]
    chunks: int
    reads: tuple[tuple[Value, int], ...]
    writes: tuple[tuple[Value, int], ...]
    flops: float
    renewed: int = 0
    others: tuple[Group, ...] = ()
    beside: int = 0
    inside: tuple[Inside, ...] = ()

    @property
    def nbytes(self) -> int:
        """Bytes read and written."""
        return sum(n for _, n in self.reads) + sum(n for _, n in self.writes)

    @property
    def over(self) -> str:
        """The loop in words."""
        group = self.group
        if self.others:
            elements = sum(g.total for g in (group, *self.others))
            return f"{elements} elements in {1 + len(self.others)} lists"
        if group.kind == OP:
            return "x".join(map(str, group.head.node.outputs[0].type.shape)) or "one element"
        text = "x".join(map(str, group.sizes)) or "one element"
        return text + (f", axes {list(group.axes)} reduced" if group.kind == REDUCE else "")


class Border(NamedTuple):
    """A value that goes from one kernel to another through memory, and why they are two."""

    value: Value
    maker: int
    reader: int
    reason: str


class Lifetime(NamedTuple):
    """A stretch of arena memory: what lies there, and the first and last step in which it is needed."""

    text: str
    nbytes: int
    offset: int
    start: int
    end: int


def stretches(variant: Variant) -> list[tuple[str, Runner]]:
    """The compiled graphs of a variant in order of its paths, each with its name and the values that lead to it."""
    found = []
    todo: list[tuple[Segment, str]] = [(variant.root, "")]
    while todo:
        segment, after = todo.pop()
        back = None if segment.ending is None else segment.ending.backward
        for runner in (segment.runner,) if back is None else (segment.runner, back):
            found.append((runner.compiled.graph.name + after, runner))
        todo += [(child, f"{after}, after {words}") for words, child in reversed(_choices(segment))]
    return found


def _choices(segment: Segment) -> list[tuple[str, Segment]]:
    """What may run after a segment, each with the value that leads there, in words."""
    if segment.read is None:
        return []
    kind = segment.runner.compiled.outputs[segment.read]
    at = f" at {near_line(segment.line)}" if segment.line else ""

    def words(key: bytes) -> str:
        if segment.refuse is not None:
            return f"what is refused{at}" if key else f"what is not refused{at}"
        if kind.size != 1:
            return f"one value of {kind}{at}"
        return f"{np.frombuffer(key, kind.dtype.np).item()}{at}"

    found = [(words(key), child) for key, child in segment.children.items()]
    return found + [(f"a number{at}", child) for _, child in segment.ways]


def kernels(compiled: Compiled) -> list[Kernel]:
    """The groups of the plan in the order of their start."""
    plan = compiled.plan
    program = compiled.program
    rows: dict[tuple[int, ...], list[int]] = {}
    for row, owners in enumerate(program.owners):  # type: ignore[attr-defined]
        rows.setdefault(owners, []).append(row)
    waves = _waves(program.launches)
    found = []
    for ks, launches in rows.items():
        group, *others = (plan.lowered[k].group for k in ks)
        k, phases = ks[0], len(plan.lowered[ks[0]].phases)
        nodes = [n for g in (group, *others) for n in g.nodes]
        largest = max(launches, key=lambda r: program.launches[r].chunks)
        chunks = program.launches[largest].chunks
        inside = tuple(part for n in ks for part in plan.lowered[n].inside)
        reads = tuple(pair for n in ks for pair in _reads(plan.lowered[n]))
        writes = tuple((v, v.type.nbytes) for n in ks for v in plan.lowered[n].stores)
        work = sum(map(flops, nodes)) + sum(part.turns * _work(part.plan) for part in inside if part.turns)
        found.append(
            Kernel(
                k, group, _title(group, *others), _unique(near_line(n.line) for n in nodes if n.line),
                (plan.start[k], plan.start[k] + phases - 1), tuple(launches), chunks,
                reads, writes, work, _renewed(compiled, reads, writes), tuple(others), waves[largest] - chunks, inside,
            )
        )  # fmt: skip
    return sorted(found, key=lambda f: (f.levels, f.number))


def _renewed(
    compiled: Compiled, reads: Iterable[tuple[Value, int]], writes: Iterable[tuple[Value, int]]
) -> int:
    """Bytes of the writes that take the place of what is read."""
    spots: Any = compiled.plan.memory.spots
    targets = {value: target for target, value in compiled.optimised.writes}
    places = {v for v, _ in reads} | {spots[v] for v, _ in reads if v in spots}
    return sum(n for v, n in writes if targets.get(v, spots.get(v)) in places)


def _work(compiled: Compiled) -> float:
    """The arithmetic of a plan."""
    return sum(k.flops for k in kernels(compiled))


def _waves(launches: Any) -> list[int]:
    """For each launch, the pieces of all launches that run at the same time."""
    sums: list[int] = []
    number = []
    for launch in launches:
        if launch.wave or not sums:
            sums.append(0)
        sums[-1] += launch.chunks
        number.append(len(sums) - 1)
    return [sums[n] for n in number]


def _reads(g: Any) -> list[tuple[Value, int]]:
    """What a group reads, and the bytes of it at least."""
    sizes, kind = g.group.sizes, g.group.kind
    return [(v, _touched(v, accesses, sizes, kind)) for v, accesses in g.reads.items()]


def _touched(v: Value, accesses: Any, sizes: tuple[int, ...], kind: str) -> int:
    """Bytes of a value that a kernel reads at least."""
    if kind == OP:
        return v.type.nbytes
    distinct = sum(math.prod(n for n, st in zip(sizes, strides) if st) for strides, _ in accesses)
    return min(v.type.nbytes, distinct * v.type.dtype.itemsize)


def borders(compiled: Compiled) -> list[Border]:
    """Where values go through memory between two kernels, the largest first, with the reason for each pair."""
    plan = compiled.plan
    first = {k: ks[0] for ks in compiled.program.owners for k in ks}  # type: ignore[attr-defined]
    number = {id(g.group): first.get(k, k) for k, g in enumerate(plan.lowered)}
    made = {v: k for k, g in enumerate(plan.lowered) for v in g.stores}
    found = []
    for k, g in enumerate(plan.lowered):
        for v in g.reads:
            maker = made.get(v)
            if maker is not None and maker != k:
                reason = plan.fusion.why_apart(plan.lowered[maker].group, g.group)
                found.append(Border(v, number[id(plan.lowered[maker].group)], number[id(g.group)], reason))
    return sorted(found, key=lambda b: -b.value.type.nbytes)


def lifetimes(compiled: Compiled) -> list[Lifetime]:
    """Everything that lies in the arena, by step of the plan."""
    plan = compiled.plan
    last: dict[Value, int] = {}
    first: dict[Value, int] = {}
    for k, g in enumerate(plan.lowered):
        for v in (*g.reads, *g.stores):
            last[v] = max(last.get(v, 0), plan.start[k] + g.span(v)[1])
        for v in g.stores:
            first.setdefault(v, plan.start[k] + g.span(v)[0])
    found: dict[tuple[int, int], Lifetime] = {}
    for k, g in enumerate(plan.lowered):
        for v in g.stores:
            region, offset = plan.memory.spots.get(v, (None, 0))
            if region == ARENA:
                text = f"{v.producer.op.name} {v.type}" if v.producer else str(v.type)
                found[offset, first[v]] = Lifetime(text, v.type.nbytes, offset, first[v], last[v])
        for source, (nbytes, start, end) in g.scratch.items():
            region, offset = plan.memory.spots.get(source, (None, 0))
            if region == ARENA:
                at = plan.start[k]
                found[offset, at + start] = Lifetime(
                    f"scratch of {_title(g.group)}", nbytes, offset, at + start, at + end
                )
    return sorted(found.values(), key=lambda x: (x.start, -x.nbytes))


def levels(compiled: Compiled) -> int:
    """How many steps the plan has, one after the other."""
    plan = compiled.plan
    return max((s + len(g.phases) for s, g in zip(plan.start, plan.lowered)), default=0)


def live_bytes(compiled: Compiled) -> list[int]:
    """Bytes of the arena in use at every step."""
    use: list[dict[int, int]] = [{} for _ in range(levels(compiled))]
    for life in lifetimes(compiled):
        for held in use[life.start : life.end + 1]:  # a result may take over the place of what it reads
            held[life.offset] = max(held.get(life.offset, 0), life.nbytes)
    return [sum(held.values()) for held in use]


def _title(group: Group, *others: Group) -> str:
    """The ops of a kernel in words: `matmul, add, gelu`; many of a kind are counted."""
    counts: dict[str, int] = {}
    nodes = [n for g in (group, *others) for n in g.nodes if not n.op.is_view]
    if group.kind == OP:
        head = group.head.node
        nodes.sort(key=lambda n: n is not head)
    for n in nodes:
        counts[n.op.name] = counts.get(n.op.name, 0) + 1
    words = [name + (f" x{n}" if n > 1 else "") for name, n in counts.items()]
    return ", ".join(words[:9]) + (f" and {len(words) - 9} more" if len(words) > 9 else "")


def _unique(lines: Any) -> tuple[str, ...]:
    return tuple(dict.fromkeys(lines))


def near_line(line: str) -> str:
    """`file:line` with the path from the working directory, where that is shorter."""
    path, _, number = line.rpartition(":")
    try:
        near = os.path.relpath(path)
    except ValueError:
        return line
    return f"{near if len(near) < len(path) else path}:{number}"
