"""From a graph to something that runs: passes, groups, schedule, memory plan, program."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from ..core.backend import Launch, Program, Slot, get_backend, scalar_bits
from ..core.types import TensorType
from .assemble import Lowered, Sources, assemble
from .group import Group
from .ir import Graph, Number, Value
from .layout import find_layouts
from .memory import ARENA, MemoryPlan, plan_memory
from .passes import PASSES, checks, run_passes
from .passes.fuse import Fusion, fuse
from .placement import Places, place_results
from .schedule import SMALL_BYTES, schedule
from .verify import verify


class Plan(NamedTuple):
    """Kernels by group, the level at which each starts, where values lie, and what fused."""

    lowered: list[Lowered]
    start: list[int]
    memory: MemoryPlan
    places: Places
    fusion: Fusion


class Compiled(NamedTuple):
    """A graph made runnable.

    Dynamic values of `executable.run`, in this order: addresses of the graph's inputs, addresses of fresh
    contiguous memory for its outputs, the bits of `numbers` (kind float: float64 bits), the bits of
    `constants`, and, when arena_bytes > 0, the address of an arena of that size.
    graph: as traced; optimised: after the passes; groups: what shares a kernel; unplanned_bytes: what the
    arena would be if nothing shared memory; plan: how it came about, for reports.
    """

    executable: Any
    outputs: tuple[TensorType, ...]
    numbers: tuple[tuple[Number, Any], ...]
    constants: tuple[int, ...]
    arena_bytes: int
    graph: Graph
    program: Program
    optimised: Graph
    groups: tuple[Group, ...]
    unplanned_bytes: int
    plan: Plan

    def sources(self) -> list[tuple[str, str]]:
        """Each kernel once: the ops and user lines it comes from, and its source."""
        found: dict[str, str] = {}
        stack = [self.program]
        while stack:
            program = stack.pop()
            for owner, launch in zip(program.owners, program.launches):  # type: ignore[attr-defined]
                if launch.nested:
                    stack += [n.program for n in launch.nested]
                elif launch.source not in found:
                    found[launch.source] = _label(program.groups[owner])  # type: ignore[attr-defined]
        return [(label, source) for source, label in found.items()]

    def labels(self) -> list[str]:
        """What each launch of the program comes from."""
        return [_label(self.groups[k]) for k in self.program.owners]  # type: ignore[attr-defined]


def compile_graph(graph: Graph, device: str, passes: Iterable[str] = PASSES) -> Compiled:
    """Compile for a device. passes: the names of those to run, of `PASSES`."""
    backend = get_backend(device)
    planned = plan_graph(graph, backend, frozenset(passes))
    return planned._replace(executable=backend.load(planned.program))


def plan_graph(graph: Graph, backend: Any, chosen: frozenset[str] = frozenset(PASSES)) -> Compiled:
    """Everything but loading: there is no executable yet."""
    work = graph.copy()
    run_passes(work, backend, chosen)
    layouts = find_layouts(work)
    places = place_results(work, layouts)
    fusion = fuse(work, layouts, places, backend, "fuse" in chosen)
    if checks():
        verify(work, "placing results")
    sources = Sources()
    sources.fast = work.fast
    lowered = [assemble(g, fusion, sources, backend) for g in fusion.groups]
    start, memory = _plan(lowered, places)
    program, numbers, constants = _program(work, backend, lowered, start, memory, sources, places)
    return Compiled(
        None, tuple(v.type for v in work.outputs), numbers, constants, memory.nbytes, graph, program,
        work, tuple(fusion.groups), memory.without_reuse, Plan(lowered, start, memory, places, fusion),
    )  # fmt: skip


#: how much more memory running large groups side by side may take
SIDE_BY_SIDE = 1.0


def _plan(lowered: list[Lowered], places: Places) -> tuple[list[int], MemoryPlan]:
    """Levels and memory: side by side where that takes no more memory, else one large group after the other."""
    start = schedule(lowered)
    memory = plan_memory(lowered, start, places)
    if memory.nbytes > SMALL_BYTES:
        in_turn = schedule(lowered, thrifty=True)
        thrifty = plan_memory(lowered, in_turn, places)
        if thrifty.nbytes * SIDE_BY_SIDE < memory.nbytes:
            return in_turn, thrifty
    return start, memory


class _LabelledProgram(Program):
    """A program that knows what each launch comes from: the number of its group."""

    def __init__(self, backend: Any, groups: Sequence[Group]):
        super().__init__(backend)
        self.groups = groups
        self.owners: list[int] = []


def _program(
    graph: Graph, backend: Any, lowered: list[Lowered], start: list[int], memory: MemoryPlan, sources: Sources,
    places: Places,
) -> tuple[Program, tuple[tuple[Number, Any], ...], tuple[int, ...]]:  # fmt: skip
    program = _LabelledProgram(backend, [g.group for g in lowered])
    inputs = {v: program.dynamic() for v in graph.inputs}
    outputs = [program.dynamic() for _ in graph.outputs]
    where: dict[int, tuple[int, int]] = {}
    numbers: list[tuple[Number, Any]] = []
    constants: list[int] = []
    for source, x, dtype in sources.numbers.values():
        if isinstance(x, Number):
            where[source] = program.dynamic(), 0
            numbers.append((x, dtype))
    for source, x, dtype in sources.numbers.values():
        if not isinstance(x, Number):
            where[source] = program.dynamic(), 0
            constants.append(scalar_bits(x, dtype))
    arena = program.dynamic() if memory.nbytes else -1
    for v, source in sources.buffers.items():
        if v in places.same:
            continue
        place = places.of.get(v)
        if v.producer is None:
            where[source] = inputs[v], 0
        elif place is None:
            region, offset = memory.spots.get(v, (ARENA, 0))
            where[source] = (arena if region == ARENA else outputs[region]), offset
        elif isinstance(place, Value):
            where[source] = inputs[place], 0
        else:
            where[source] = outputs[place], 0
    for g in lowered:
        for source in g.scratch:
            region, offset = memory.spots[source]
            where[source] = (arena if region == ARENA else outputs[region]), offset
    levels: dict[int, list[tuple[int, int]]] = {}
    for k, g in enumerate(lowered):
        for p in range(len(g.phases)):
            levels.setdefault(start[k] + p, []).append((k, p))
    for level in sorted(levels):
        rows = [(k, row) for k, p in levels[level] for row in lowered[k].phases[p]]
        total = sum(work for _, (_, work) in rows)
        # Waking other threads costs more than small launches one after the other.
        shared = total >= backend.serial_work or any(launch.chunks > 1 for _, (launch, _) in rows)
        shared = shared and not any(launch.nested for _, (launch, _) in rows)
        for n, (k, (launch, _)) in enumerate(rows):
            args = []
            for arg in launch.args:
                if arg.__class__ is Slot:
                    source, offset = where[arg[0]]
                    arg = Slot(source, offset + arg[1])
                args.append(arg)
            program.launches.append(
                Launch(launch.source, tuple(args), launch.chunks, n == 0 or not shared, launch.nested)
            )
            program.owners.append(k)
    return program, tuple(numbers), tuple(constants)


def _label(group: Group) -> str:
    return ", ".join(f"{n.op.name}" + (f" ({n.line})" if n.line else "") for n in group.nodes)
