"""Bodies that eager mode runs often, as one program each: the compiler behind `core/hot.py`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from ..core import dispatch
from ..core.errors import DuogradError
from ..core.hot import GIVEN, Fused, Taped, Unfit
from ..core.reach import of_several_parts
from .compile import compile_graph
from .ir import Graph, Number, Value
from .layout import lay_out
from .runner import as_views
from .sources import Source
from .symbol import Symbol
from .trace import Trace
from .ways import forget, lock, walk_back


class _BodyTrace(Trace):
    """The trace of a body, whose program nothing looks into."""

    def check(self, x: Any, refuse: Any) -> None:
        raise Unfit("it looks at values")


Body = Callable[[list[Any], list[Any]], tuple[Any, ...]]


def _host() -> Any:
    return dispatch._State.executor


def fuse(name: str, body: Body, tensors: Sequence[Any], numbers: Sequence[Any] = ()) -> Fused:
    """A body as one program for tensors of these layouts and numbers of these classes. Raises Unfit."""
    trace, _, results, _ = _trace(name, body, tensors, numbers, frozenset())
    _check(trace)
    return _fused(trace.graph, trace.sources, results, trace)


def fuse_taped(name: str, body: Body, tensors: Sequence[Any], wanted: Sequence[int]) -> Taped:
    """A body whose ops have gradients, with the way back to the tensors at positions `wanted`. Raises Unfit."""
    trace, symbols, results, ends = _trace(name, body, tensors, (), frozenset(wanted))
    _check(trace)
    forward, sources = trace.graph, trace.sources
    roots = [k for k, y in enumerate(ends) if y._requires_grad and y._node is not None]
    if not roots or len(ends) < len(results):
        raise Unfit("results are not computed, or have no gradient")
    ways = _WaysBack(trace, [ends[k] for k in roots], [symbols[k] for k in wanted])
    spots = {v: k for k, v in reversed(list(enumerate(forward.outputs)))}
    serials = {serial: v for v, serial in trace._serial.items()}
    saved: list[Any] = []
    for kind, key in ways.reads:
        if kind == "arg":
            saved.append(("tensor", key))
            continue
        made = serials[key]
        if made not in spots:
            spots[made] = len(forward.outputs)
            forward.outputs.append(made)
        saved.append(("output", spots[made]))
    fused = _fused(forward, sources, results, trace)
    forget(trace, {k for k, (_, x) in trace.lifted.items() if trace.is_argument(x)})
    return Taped(fused, tuple(saved), tuple(roots), ways.sums, ways.compile)


class _WaysBack:
    """The ways back of a body: the one from all its roots is traced with it, the others when they are first asked for.

    reads: what they read besides gradients, as (kind, key) of its source; sums: the leaves whose gradient has several
    parts.
    """

    def __init__(self, trace: Trace, roots: list[Symbol], leaves: list[Symbol]):
        self.trace, self.roots, self.leaves = trace, roots, leaves
        self.reads: dict[Any, Value] = {}
        self.ways: dict[Any, Any] = {}
        whole = self._trace((True,) * len(roots), ())
        several, results = of_several_parts(roots, leaves), whole[1]
        self.sums = tuple([k for k in several if results[k] is not None])
        self.ways[(True,) * len(roots), ()] = whole

    def compile(self, layouts: Sequence[Any]) -> Fused:
        """The way back for these layouts, as `Taped.backward`."""
        row = layouts[len(self.reads) :]
        used = tuple([lay is not None for lay in row[: len(self.roots)]])
        begun = tuple([k for k, lay in zip(self.sums, row[len(self.roots) :]) if lay is not None])
        with lock:
            if (used, begun) not in self.ways:
                self.ways[used, begun] = self._trace(used, begun)
        traced, results, constants, given = self.ways[used, begun]
        graph = traced.copy()
        for value, lay in zip(graph.inputs, [lay for lay in layouts if lay is not None]):
            graph.strides.pop(value, None)
            if not lay.contiguous:
                graph.strides[value] = lay.strides
        lay_out(graph, given)
        return _compile(graph, results, constants, ())

    def _trace(self, used: tuple[bool, ...], begun: tuple[int, ...]) -> Any:
        """A graph from gradients of the used roots and of the leaves that have one already; its results; constants; the
        inputs that stand for those gradients."""
        trace = self.trace
        trace.done = False
        try:
            with dispatch.executing(trace):
                graph, present = walk_back(trace, self.roots, self.leaves, used, True, begun=begun)
        except DuogradError as e:
            raise Unfit(f"its gradient cannot be traced: {e.message}") from None
        finally:
            trace.done = True
        rows = list(zip(graph.inputs, trace.sources))
        given = [v for v, s in rows if s.kind == "cotangent"]
        constants = [(v, s.tensor) for v, s in rows if s.kind not in ("cotangent", "carry", "arg")]
        found = {(s.kind, s.key): v for v, s in rows if s.kind in ("carry", "arg")}
        if not self.ways:
            self.reads = found
        elif not found.keys() <= self.reads.keys():
            raise Unfit("one of its ways back reads what the others do not")
        kept = [found.get(name) or Value(v.type, v.device) for name, v in self.reads.items()]
        graph.inputs = [*kept, *given, *(v for v, _ in constants)]
        graph.strides = {v: st for v, st in graph.strides.items() if v in graph.inputs}
        numbered = iter(range(len(present)))
        results = tuple([("output", next(numbered)) if there else None for there in present])
        return graph, results, [t for _, t in constants], frozenset(given)


def _trace(
    name: str, body: Body, tensors: Sequence[Any], numbers: Sequence[Any], wanted: frozenset[int]
) -> Any:
    """The trace, the symbols of the tensors, where each result comes from, and the symbols of the outputs."""
    trace = _BodyTrace(name, _host())
    stand_ins = [x._alias() for x in tensors]  # a tensor that is given twice is two inputs
    with dispatch.executing(trace), dispatch.set_grad(bool(wanted)):
        symbols = [trace.argument(k, x) for k, x in enumerate(stand_ins)]
        for k in wanted:
            symbols[k]._requires_grad = True
        try:
            given = [Number(GIVEN, k, x.__class__) for k, x in enumerate(numbers)]  # type: ignore[arg-type]
            faces = [y if y is None else trace.face(y) for y in body(list(symbols), given)]
        except DuogradError as e:
            raise Unfit(f"it cannot be traced: {e.message}") from None
    places: dict[int, Any] = {id(x): ("tensor", k) for k, x in enumerate(symbols)}
    storages = {id(x._storage) for x in symbols}
    results: list[Any] = []
    ends: list[Symbol] = []
    for y in faces:
        if y is None:
            results.append(None)
            continue
        if id(y) not in places:
            if id(y._storage) in storages:
                raise Unfit("results share memory")
            storages.add(id(y._storage))
            places[id(y)] = "output", len(ends)
            ends.append(y)
        results.append(places[id(y)])
    with dispatch.executing(trace):
        trace.graph.outputs = [trace._use(y._value) for y in ends]
    return trace, symbols, tuple(results), ends


def _check(trace: Trace) -> None:
    """Raise Unfit for what does more than compute its results from its tensors."""
    if trace.written or trace.grads:
        raise Unfit("it changes tensors")
    for source in trace.sources:
        if source.kind not in ("arg", "tensor") or (source.kind == "tensor" and source.key != "constant"):
            raise Unfit("it reads other tensors")
    for node in trace.graph.nodes:
        if node.op.values_rule is not None:
            raise Unfit(f"{node.op.name} looks at values")
    devices = {v.device for v in trace.graph.inputs} | {
        v.device for n in trace.graph.nodes for v in n.outputs
    }
    if len(devices) > 1:
        raise Unfit("it uses several devices")


def _fused(graph: Graph, sources: list[Source], results: tuple[Any, ...], trace: Trace) -> Fused:
    constants = [s.tensor for s in sources if s.kind == "tensor"]
    order = sorted(range(len(sources)), key=lambda k: sources[k].kind == "tensor")
    graph.inputs = [graph.inputs[k] for k in order]
    return _compile(graph, results, constants, tuple(trace.drawn.values()))


def _compile(graph: Graph, results: tuple[Any, ...], constants: list[Any], drawn: tuple[Any, ...]) -> Fused:
    ops = sum(not n.op.is_view for n in graph.nodes)
    device = graph.inputs[0].device if graph.inputs else "cpu"
    compiled = compile_graph(graph, device, for_all_sizes=False)  # made for one signature
    launches = compiled.program.launches
    layout = _host().layout
    outputs = tuple((layout(t.dtype, t.shape, None, device), max(1, t.nbytes)) for t in compiled.outputs)
    known = len(graph.inputs) + len(outputs) + len(compiled.numbers) + len(compiled.constants)
    takes_arena = compiled.program.n_dynamic > known
    return Fused(
        graph.name, compiled.executable.run if launches else None, tuple(constants), outputs, compiled.numbers,
        compiled.constants, max(1, compiled.arena_bytes) if takes_arena else 0, results, drawn, len(launches), ops,
        None if graph.seen is None else as_views(graph.seen, layout, device),
    )  # fmt: skip


__all__ = ["fuse", "fuse_taped"]
