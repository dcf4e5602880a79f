"""Verify: every value of a graph is made once, before it is read, and has the type that its op gives it."""

from __future__ import annotations

from typing import Any

from ..core.errors import DuogradError
from ..core.region import Region
from .ir import Graph, Number, Value
from .show import lines_of, name_values


class GraphError(DuogradError, AssertionError):
    """A graph that breaks its own rules: a bug in tracing or in a pass."""


def verify(graph: Graph, after: str = "trace") -> None:
    """Check single assignment, order, types, inputs and writes.

    Raises: GraphError with the ten nodes round the fault.
    """
    known: set[Value] = set()
    for v in graph.inputs:
        if v in known or v.producer is not None:
            _fail(graph, after, -1, "an input stands twice among the inputs or is made by a node")
        known.add(v)
    for k, node in enumerate(graph.nodes):
        for x in node.values():
            if x not in known:
                _fail(graph, after, k, f"reads {x.type}, which is made later or nowhere")
        for x in node.inputs:
            if not (x is None or isinstance(x, (Value, Number, bool, int, float, complex))):
                _fail(graph, after, k, f"has an input of type {type(x).__name__}")
        types = tuple(
            x.type if isinstance(x, Value) else x.kind(0) if isinstance(x, Number) else x for x in node.inputs
        )
        try:
            inferred = node.op.infer(types, node.attrs)
        except DuogradError as e:
            _fail(graph, after, k, f"is refused by its type rule: {e.message}")
        for attr in node.attrs:
            if isinstance(attr, Region):
                if attr.graph.writes:
                    _fail(graph, after, k, f"has {attr}, which writes to its inputs")
                verify(attr.graph, f"{after}, in {attr} of {node.op.name}")
        made = tuple(v.type for v in node.outputs)
        if made != inferred:
            _fail(
                graph,
                after,
                k,
                f"makes {', '.join(map(str, made))}, its rule says {', '.join(map(str, inferred))}",
            )
        for index, v in enumerate(node.outputs):
            if v in known:
                _fail(graph, after, k, "makes a value that exists already")
            if v.producer is not node or v.index != index:
                _fail(graph, after, k, "makes a value that names another node as its producer")
            known.add(v)
    for v in graph.outputs:
        if v not in known:
            _fail(graph, after, len(graph.nodes), f"the output {v.type} is made nowhere")
    targets: set[Value] = set()
    for target, v in graph.writes:
        if target not in graph.inputs:
            _fail(graph, after, len(graph.nodes), f"a write goes to {target.type}, which is no input")
        if target in targets:
            _fail(graph, after, len(graph.nodes), f"the input {target.type} is written twice")
        if v not in known:
            _fail(graph, after, len(graph.nodes), f"the written value {v.type} is made nowhere")
        if v.type != target.type:
            _fail(graph, after, len(graph.nodes), f"{v.type} is written to an input of type {target.type}")
        targets.add(target)


def _fail(graph: Graph, after: str, at: int, what: str) -> Any:
    names = name_values(graph)
    first = max(0, at - 5)
    rows = lines_of(graph, names)[first : first + 10]
    marked = [("> " if first + n == at else "  ") + row for n, row in enumerate(rows)]
    raise GraphError("verify", f"after {after}: {what}", "report it\n" + "\n".join(marked))
