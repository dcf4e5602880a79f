"""From a graph to something that runs: passes, groups, schedule, memory plan, program."""

from __future__ import annotations

from collections.abc import Container, Iterable, Sequence
from typing import Any, NamedTuple

from ..core.backend import Launch, Program, Slot, get_backend, scalar_bits
from ..core.listed import gather
from ..core.types import TensorType, int64
from .assemble import Lowered, Sources, Unit, assemble, is_told_sizes
from .group import Group
from .ir import Graph, Number, Value
from .layout import find_layouts
from .live import Live, is_size
from .memory import ARENA, MemoryPlan, plan_below, plan_memory
from .passes import PASSES, checks, run_passes
from .passes.casts import NO_CASTS, find_casts
from .passes.forget import forget
from .passes.fuse import Fusion, fuse
from .passes.hoist import hoist
from .placement import Places, place_results
from .prepared import Recipe, cache, recipe
from .schedule import SMALL_BYTES, Near, find_near, in_turn, is_one_launch, schedule, together, update_kinds
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
    `constants`, when arena_bytes > 0 the address of an arena of that size, the addresses of the results of
    `prepared`, and for each of `moved` the dynamic value with that number and a number of bytes that the call knows.
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
    prepared: tuple[Recipe, ...] = ()
    moved: tuple[tuple[int, Any], ...] = ()

    def sources(self) -> list[tuple[str, str]]:
        """Each kernel once: the ops and user lines it comes from, and its source."""
        found: dict[str, str] = {}
        stack = [self.program]
        while stack:
            program = stack.pop()
            for owners, launch in zip(program.owners, program.launches):  # type: ignore[attr-defined]
                if launch.nested:
                    stack += [n.program for n in launch.nested]
                elif launch.source not in found:
                    found[launch.source] = _label(*(program.groups[k] for k in owners))  # type: ignore[attr-defined]
        return [(label, source) for source, label in found.items()]

    def labels(self) -> list[str]:
        """What each launch of the program comes from."""
        return [_label(*(self.groups[k] for k in ks)) for ks in self.program.owners]  # type: ignore[attr-defined]


def compile_graph(
    graph: Graph, device: str, passes: Iterable[str] = PASSES, for_all_sizes: bool = True
) -> Compiled:
    """Compile for a device. passes: the names of those to run, of `PASSES`; for_all_sizes: see `Program`."""
    backend = get_backend(device)
    planned = plan_graph(graph, backend, frozenset(passes), for_all_sizes)
    if planned.prepared:
        backend.compile([planned.program, *(r.program for r in planned.prepared)])
    return planned._replace(executable=backend.load(planned.program))


def plan_graph(
    graph: Graph, backend: Any, chosen: frozenset[str] = frozenset(PASSES), for_all_sizes: bool = True
) -> Compiled:
    """Everything but loading: there is no executable yet."""
    work = graph.copy()
    run_passes(work, backend, chosen)
    sources = Sources(work.steady, cache.bound if work.steady else 0)
    sources.fast, sources.for_all_sizes = work.fast, for_all_sizes
    _take_out(work, sources, backend, chosen)
    places, fusion = _fused(work, backend, chosen)
    if checks():
        verify(work, "placing results")
    lowered = [assemble(g, fusion, sources, backend) for g in fusion.groups]
    kinds = update_kinds(lowered, backend)
    start, memory = _plan(lowered, places, kinds, backend)
    recipes, kept = _recipes(graph, lowered, sources)
    program, numbers, constants, moved = _program(
        graph, backend, lowered, start, memory, sources, places, kept, kinds
    )
    return Compiled(
        None, tuple(v.type for v in work.outputs), numbers, constants, memory.nbytes, graph, program,
        work, tuple(fusion.groups), memory.without_reuse, Plan(lowered, start, memory, places, fusion), recipes,
        moved,
    )  # fmt: skip


def _fused(work: Graph, backend: Any, chosen: frozenset[str]) -> tuple[Places, Fusion]:
    """Places of results, and groups; once more where values are made again rather than kept."""
    on = "fuse" in chosen
    casts = find_casts(work, backend) if on else NO_CASTS
    layouts = find_layouts(work, casts=casts.taken)
    nodes = list(work.nodes)
    places = place_results(work, layouts)
    fusion = fuse(work, layouts, places, backend, on, kept=casts.kept)
    again = forget(work, nodes, fusion) if "forget" in chosen else None
    if again is not None:
        layouts = find_layouts(work, casts=casts.taken)
        places = place_results(work, layouts)
        fusion = fuse(work, layouts, places, backend, on, again, casts.kept)
    return places, fusion


def _take_out(work: Graph, sources: Sources, backend: Any, chosen: frozenset[str]) -> None:
    """Put what depends on state alone into a unit of its own; its values are further inputs of the graph."""
    taken = find_casts(work, backend).taken if work.steady and "fuse" in chosen else frozenset()
    found = hoist(work, sources.budget, taken) if work.steady else None
    if found is None:
        return
    graph, values = found
    planned = plan_graph(graph, backend, chosen)
    areas = [sources.new() for _ in values]
    sizes = dict(zip(areas, (v.type.nbytes for v in values)))
    sources.buffers.update(zip(values, areas))
    arena = sources.new()
    slots = [(sources.buffer(v), 0) for v in graph.inputs] + [(a, 0) for a in areas]
    if planned.arena_bytes:
        sizes[arena] = planned.arena_bytes
    known = len(slots) + len(planned.constants)
    launches = []
    for launch in planned.program.launches:
        args: list[Any] = []
        for arg in launch.args:
            if isinstance(arg, Slot):
                k = arg.source
                if len(slots) <= k < known:
                    args.append(planned.constants[k - len(slots)])
                    continue
                arg = Slot(slots[k][0] if k < len(slots) else arena, arg.offset)
            args.append(arg)
        launches.append(launch._replace(args=tuple(args)))
    what = ", ".join(dict.fromkeys(n.op.name for n in graph.nodes if not n.op.is_view))
    unit = Unit(what)
    sources.units.append(unit)
    sources.keep(unit, launches, sizes)


def _recipes(
    graph: Graph, lowered: list[Lowered], sources: Sources
) -> tuple[tuple[Recipe, ...], dict[int, tuple[int, int]]]:
    """The recipes of all units that are used; by source, the number of its recipe and where it lies there."""
    recipes: list[Recipe] = []
    kept: dict[int, tuple[int, int]] = {}
    if not sources.units:
        return (), kept
    used = {
        arg.source for g in lowered for phase in g.phases for launch, _ in phase for arg in launch.args
        if isinstance(arg, Slot)
    }  # fmt: skip
    for unit in sources.units:
        made, places = recipe(unit, sources, graph.inputs, used)
        if places:
            kept |= {s: (len(recipes), at) for s, at in places.items()}
            recipes.append(made)
    return tuple(recipes), kept


#: bytes that the arena may grow by, beside a thousandth of it: numbers that live longer move what lies beside them
SLACK = 1 << 10
#: the part of the arena that running large groups one after the other must save; running those so that free much, too
SIDE_BY_SIDE, IN_TURN = 0.0, 1 / 64


def _plan(
    lowered: list[Lowered], places: Places, kinds: dict[Any, list[int]], backend: Any
) -> tuple[list[int], MemoryPlan]:
    """Levels and memory; loops of one kind that nothing waits for run together where that takes no more memory."""
    near = find_near(lowered)
    start, memory = _levels(lowered, places, backend, near)
    for held in (float("inf"), SMALL_BYTES, 0):
        moved = together(lowered, start, kinds, places, held, near)
        if moved == start:
            break
        after = plan_memory(lowered, moved, places)
        if after.nbytes <= memory.nbytes + memory.nbytes // 1000 + SLACK:
            return moved, after
    return start, memory


def _levels(
    lowered: list[Lowered], places: Places, backend: Any, near: Near | None = None
) -> tuple[list[int], MemoryPlan]:
    """Levels and memory: side by side where that takes no more memory, else large groups one after the other."""
    near = find_near(lowered) if near is None else near
    start = schedule(lowered, near=near)
    memory = plan_memory(lowered, start, places)
    least = 0 if _in_one_thread(lowered, backend) else SMALL_BYTES
    if memory.nbytes > least:
        order = in_turn(lowered, places.of, near)
        for strict, gain in ((False, SIDE_BY_SIDE), (True, IN_TURN)):
            other = schedule(lowered, order, places.of, strict, least, near)
            thrifty = plan_below(lowered, other, places, memory.nbytes * (1 - gain))
            if thrifty is not None:
                start, memory = other, thrifty
    return start, memory


def _in_one_thread(lowered: list[Lowered], backend: Any) -> bool:
    """Whether there is so little to do that nothing of it runs side by side anyway."""
    rows = [row for g in lowered for phase in g.phases for row in phase]
    total = sum(work for _, work in rows)
    return total < backend.serial_work and not any(launch.chunks > 1 or launch.nested for launch, _ in rows)


class _LabelledProgram(Program):
    """A program that knows what each launch comes from (numbers of groups), and in which step of the plan it runs."""

    def __init__(self, backend: Any, groups: Sequence[Group]):
        super().__init__(backend)
        self.groups = groups
        self.owners: list[tuple[int, ...]] = []
        self.steps: list[int] = []


def _program(
    graph: Graph, backend: Any, lowered: list[Lowered], start: list[int], memory: MemoryPlan, sources: Sources,
    places: Places, kept: dict[int, tuple[int, int]], kinds: Container[Any],
) -> tuple[Program, tuple[tuple[Number, Any], ...], tuple[int, ...], tuple[tuple[int, Any], ...]]:  # fmt: skip
    program = _LabelledProgram(backend, [g.group for g in lowered])
    program.spare += sources.spare
    live = _live_slots(lowered, sources)
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
    first = program.n_dynamic
    for source, (number, at) in kept.items():
        where[source] = first + number, at
        program.n_dynamic = max(program.n_dynamic, first + number + 1)
    for v, source in sources.buffers.items():
        if v in places.same or source in where or (v.producer is None and v not in inputs):
            continue  # kept, or only read by what is kept
        if v.producer is None:
            where[source] = inputs[v], 0
            continue
        place = places.of.get(v)
        if place is None:
            region, offset = memory.spots.get(v, (ARENA, 0))
            where[source] = (arena if region == ARENA else outputs[region]), offset
        elif isinstance(place, Value):
            where[source] = inputs[place], 0
        else:
            where[source] = outputs[place], 0
    first, derived = program.n_dynamic, dict[tuple[int, Any], int]()
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
        chunks, nested = 1, False
        for _, (launch, _) in rows:
            chunks = max(chunks, launch.chunks) if launch.chunks > 1 else chunks
            nested = nested or bool(launch.nested)
        shared = (total >= backend.serial_work or chunks > 1) and not nested
        alone = [is_one_launch(lowered[k]) and not is_told_sizes(launch) for k, (launch, _) in rows]
        for n, (launch, members) in enumerate(
            gather(backend, [r for _, (r, _) in rows], alone.__getitem__, kinds)
        ):
            args: list[Any] = list(launch.args)
            for k, arg in enumerate(args):
                if type(arg) is Slot:
                    source, offset = where[arg[0]]
                    offset += arg[1]
                    if is_size(offset):
                        source, offset = first + derived.setdefault((source, offset), len(derived)), 0
                    args[k] = Slot(source, offset)
                elif type(arg) is Live:
                    args[k] = Slot(where[live[arg]][0])
            program.launches.append(
                Launch(
                    launch.source,
                    tuple(args),
                    launch.chunks,
                    n == 0 or not shared,
                    launch.nested,
                    launch.loop,
                )
            )
            program.owners.append(tuple(rows[m][0] for m in members))
            program.steps.append(level)
    program.n_dynamic += len(derived)
    moved = tuple((source, offset._formula()) for source, offset in derived)
    return program, tuple(numbers), tuple(constants), moved


def _live_slots(lowered: list[Lowered], sources: Sources) -> dict[Any, int]:
    """The sources of sizes that launches are told."""
    found: dict[Any, int] = {}
    for g in lowered:
        for phase in g.phases:
            for launch, _ in phase:
                args: tuple[Any, ...] = launch.args
                for x in args:
                    if type(x) is Live and x not in found:
                        found[x] = sources.scalar(x, int64).source
    return found


def _label(*groups: Group) -> str:
    names = (f"{n.op.name}" + (f" ({n.line})" if n.line else "") for g in groups for n in g.nodes)
    return ", ".join(dict.fromkeys(names) if len(groups) > 1 else names)
