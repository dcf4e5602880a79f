"""Bodies that eager mode runs often, as one program each: the compiler behind `core/hot.py`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from ..core import dispatch, vjp
from ..core.errors import DuogradError
from ..core.hot import GIVEN, Fused, Taped, Unfit
from .again import make_again
from .compile import compile_graph
from .ir import Graph, Number, Value
from .passes.dce import remove_dead
from .symbol import Symbol
from .trace import Source, Trace

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
    with dispatch.executing(trace):
        trace.next_graph(f"{name} backward")
        ways = []
        for k in roots:
            value = trace.graph.add_input(ends[k].type, ends[k].device)
            trace._known.add(value)
            ways.append(Symbol(value, trace))
            trace.sources.append(Source("cotangent", k, None, ways[-1]))
        try:
            grads = vjp.walk([ends[k] for k in roots], ways, [symbols[k] for k in wanted])
        except DuogradError as e:
            raise Unfit(f"its gradient cannot be traced: {e.message}") from None
    trace.done = True
    back = trace.graph
    back.outputs = [trace._use(g._value) for g in grads if g is not None]
    numbered = iter(range(len(grads)))
    back_results = tuple(None if g is None else ("output", next(numbered)) for g in grads)
    serials = {serial: v for v, serial in trace._serial.items()}
    make_again(trace, back, serials)
    remove_dead(back)
    used = {v for n in back.nodes for v in n.values()} | set(back.outputs)
    spots = {v: k for k, v in reversed(list(enumerate(forward.outputs)))}
    saved: list[Any] = []
    kept: list[Value] = []
    constants: list[tuple[Value, Any]] = []
    for value, source in zip(back.inputs, trace.sources):
        if value not in used or source.kind == "cotangent":
            continue
        if source.kind == "carry":
            made = serials[source.key]
            if made not in spots:
                spots[made] = len(forward.outputs)
                forward.outputs.append(made)
            saved.append(("output", spots[made]))
            kept.append(value)
        elif source.kind == "arg":
            saved.append(("tensor", source.key))
            kept.append(value)
        else:
            constants.append((value, source.tensor))
    cotangents = [v for v, s in zip(back.inputs, trace.sources) if s.kind == "cotangent"]
    back.inputs = [*kept, *cotangents, *(v for v, _ in constants)]
    back.strides = {v: st for v, st in back.strides.items() if v in back.inputs}

    def backward(layouts: Sequence[Any]) -> Fused:
        graph = back.copy()
        for value, lay in zip(graph.inputs, layouts):
            graph.strides.pop(value, None)
            if not lay.contiguous:
                graph.strides[value] = lay.strides
        return _compile(graph, back_results, [t for _, t in constants], ())

    return Taped(_fused(forward, sources, results, trace), tuple(saved), tuple(roots), backward)


def _trace(
    name: str, body: Body, tensors: Sequence[Any], numbers: Sequence[Any], wanted: frozenset[int]
) -> Any:
    """The trace, the symbols of the tensors, where each result comes from, and the symbols of the outputs."""
    trace = Trace(name, _host())
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
    )  # fmt: skip


__all__ = ["fuse", "fuse_taped"]
