"""Common subexpressions: equal ops on equal inputs are computed once, unless a repetition was asked for."""

from __future__ import annotations

from typing import Any

from ...core.exact import typed
from ..ir import Graph, Node, Number, Value


def merge_equal(graph: Graph, backend: Any = None) -> None:
    """Replace each repeated op by its first occurrence."""
    swap: dict[Value, Value] = {}
    seen: dict[Any, Node] = {}
    kept: list[Node] = []
    for node in graph.nodes:
        if swap:
            node.inputs = node.reading(swap)
        key = (
            node.op,
            node.again,
            node.outputs[0].device if node.outputs else "",
            typed(node.attrs) if node.attrs else (),
            *[x if x.__class__ is Value else number_key(x) for x in node.inputs],
        )
        first = seen.get(key)
        if first is None:
            seen[key] = node
            kept.append(node)
        else:
            swap.update(zip(node.outputs, first.outputs))
    graph.nodes = kept
    replace_results(graph, swap)


def replace_results(graph: Graph, swap: dict[Value, Value]) -> None:
    """Replace values among the graph's outputs and writes."""
    if swap:
        graph.outputs = [swap.get(v, v) for v in graph.outputs]
        graph.writes = [(target, swap.get(v, v)) for target, v in graph.writes]


def number_key(x: Any) -> Any:
    """An input as a key: numbers by type and bits (0.0 is not -0.0, 1 is not True), values by identity."""
    if x is None or isinstance(x, Value):
        return x
    if isinstance(x, Number):
        return x.ident
    return typed(x)
