"""Graph programs run level by level; before each, what holds nothing at that time is filled with garbage: the arena's
bytes between buffers, inputs that have been read for the last time (they get their content back), results to be.

So what a kernel reads before it is written, or touches beyond the levels that the memory plan thinks of, changes
results.
"""

import ctypes
import itertools

from duograd.backends.cpu.device import CpuExecutable
from duograd.core.backend import Program
from duograd.graph import compile as compiling
from duograd.graph.memory import ARENA

GARBAGE = 0xA5


def holds(lowered, start, memory):
    """For each level, the (first byte, byte after the last) pairs of the arena that hold something."""
    spans: dict = {}
    for k, g in enumerate(lowered):
        for v in (*g.reads, *g.stores):
            first, last = (start[k] + p for p in g.span(v))
            low, high = spans.get(v, (first, last))
            spans[v] = min(low, first), max(high, last)
    pieces = [(v, v.type.nbytes, *levels) for v, levels in spans.items()]
    for k, g in enumerate(lowered):
        pieces += [(s, n, start[k] + a, start[k] + b) for s, (n, a, b) in g.scratch.items()]
    found: dict = {}
    for key, nbytes, first, last in pieces:
        region, at = memory.spots.get(key, (None, 0))
        if region == ARENA:
            for level in range(first, last + 1):
                found.setdefault(level, []).append((at, at + nbytes))
    return found


def free(held, nbytes):
    """What lies between these pieces."""
    at = 0
    for first, end in (*sorted(held), (nbytes, nbytes)):
        if first > at:
            yield at, first
        at = max(at, end)


def given(graph, lowered, start, places):
    """(number, bytes, level) of inputs that stay as they are, with the last level that reads them."""
    last: dict = {}
    for k, g in enumerate(lowered):
        for v in g.reads:
            last[v] = max(last.get(v, 0), start[k] + g.span(v)[1])
    kept = {*places.written, *graph.strides, *places.same.values()}
    return [(n, v.type.nbytes, last[v]) for n, v in enumerate(graph.inputs) if v in last and v not in kept]


def made(graph, lowered, start, places):
    """(number, bytes, level) of results, with the first level that writes them."""
    found = []
    for k, g in enumerate(lowered):
        for v in g.stores:
            place = places.of.get(v)
            if isinstance(place, int) and not places.parts and v not in places.same.values():
                found.append((len(graph.inputs) + place, v.type.nbytes, start[k] + g.span(v)[0]))
    return found


class Poisoned:
    """A program whose levels run one by one. inputs, outputs: `given` and `made`; arena: number of its address."""

    def __init__(self, program, arena, levels, nbytes, inputs, outputs):
        self.arena, self.inputs, self.outputs, self.parts = arena, inputs, outputs, []
        rows = zip(program.steps, program.launches)
        for level, row in itertools.groupby(rows, lambda r: r[0]):
            part = Program(program.backend)
            part.launches, part.n_dynamic = [launch for _, launch in row], program.n_dynamic
            self.parts.append((level, CpuExecutable(part), list(free(levels.get(level, ()), nbytes))))

    def run(self, dynamic):
        spans = [(dynamic[n], dynamic[n] + nbytes) for n, nbytes, _ in self.inputs]
        apart = all(a[1] <= b[0] or b[1] <= a[0] for a, b in itertools.combinations(spans, 2))
        inputs = self.inputs if apart else []
        saved = [ctypes.string_at(dynamic[n], nbytes) for n, nbytes, _ in inputs]
        for level, part, gaps in self.parts:
            for first, end in gaps:
                ctypes.memset(dynamic[self.arena] + first, GARBAGE, end - first)
            for n, nbytes, last in inputs:
                if last < level:
                    ctypes.memset(dynamic[n], GARBAGE, nbytes)
            for n, nbytes, first in self.outputs:
                if first == level:
                    ctypes.memset(dynamic[n], GARBAGE, nbytes)
            part.run(dynamic)
        for (n, nbytes, _), was in zip(inputs, saved):
            ctypes.memmove(dynamic[n], was, nbytes)


def install(monkeypatch):
    """Have all graphs run so. Returns a list that grows by the number of levels of each."""
    make = compiling._program
    found = []

    def program(graph, backend, lowered, start, memory, sources, places, *rest):
        result = make(graph, backend, lowered, start, memory, sources, places, *rest)
        row, numbers, constants, _ = result
        row.poison = (
            len(graph.inputs) + len(graph.outputs) + len(numbers) + len(constants),
            holds(lowered, start, memory), memory.nbytes, given(graph, lowered, start, places),
            made(graph, lowered, start, places),
        )  # fmt: skip
        return result

    class Loader(CpuExecutable):
        __slots__ = ()

        def __init__(self, program):
            super().__init__(program)
            if hasattr(program, "poison"):
                poisoned = Poisoned(program, *program.poison)
                self.run = poisoned.run
                found.append(len(poisoned.parts))

    monkeypatch.setattr(compiling, "_program", program)
    monkeypatch.setattr("duograd.backends.cpu.device.CpuExecutable", Loader)
    return found
