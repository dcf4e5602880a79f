"""Relax (precision="fast" only): numbers that follow each other are put together, small powers are products."""

from __future__ import annotations

from typing import Any

from ...core.ops.elementwise import add, divide, multiply, power, reciprocal, sqrt, square
from ..ir import Graph, Node, Value
from .cse import replace_results


def relax(graph: Graph, backend: Any = None) -> None:
    """Apply every rule once to every op, in order."""
    if not graph.fast:
        return
    nodes: list[Node] = []
    swap: dict[Value, Value] = {}
    for node in graph.nodes:
        node.inputs = node.reading(swap)
        nodes += _made(node)
        if nodes[-1] is not node:
            swap[node.outputs[0]] = nodes[-1].outputs[0]
    graph.nodes = nodes
    replace_results(graph, swap)


def _made(node: Node) -> list[Node]:
    """The nodes to put in place of a node; the last one has its result."""
    if len(node.inputs) != 2 or not node.outputs[0].type.dtype.is_float:
        return [node]
    op = node.op
    x, number = node.inputs if _plain(node.inputs[1]) else node.inputs[::-1]
    if not _plain(number) or not isinstance(x, Value) or x.type != node.outputs[0].type:
        return [node]
    if op is divide and x is node.inputs[0] and number != 0:
        op, number = multiply, 1.0 / number
    if op in (multiply, add):
        maker = x.producer
        if maker is not None and maker.op is op:
            inner, other = maker.inputs if _plain(maker.inputs[1]) else maker.inputs[::-1]
            if _plain(other) and isinstance(inner, Value) and inner.type == x.type:
                x, number = inner, number * other if op is multiply else number + other
        return [_like(node, op, [x, number])]
    if op is power and x is node.inputs[0]:
        if number in (2, 3, 4):
            steps = [_like(node, square, [x])]
            if number == 3:
                steps.append(_like(node, multiply, [steps[0].outputs[0], x]))
            elif number == 4:
                steps.append(_like(node, square, [steps[0].outputs[0]]))
            return steps
        if number in (0.5, -1):
            return [_like(node, sqrt if number == 0.5 else reciprocal, [x])]
    return [node]


def _plain(x: Any) -> bool:
    return x.__class__ in (int, float)


def _like(node: Node, op: Any, inputs: list[Any]) -> Node:
    return Node(op, inputs, op.defaults, (node.outputs[0].type,), node.outputs[0].device, node.where)
