"""Hoist: what depends on state alone leaves the graph for one of its own, which runs when the state has changed.

State are the inputs that a function does not write (`Graph.steady`): parameters in evaluation, buffers, captured
tensors. What is computed of them and is worth keeping becomes a further input of the graph. Packing of weights is not
seen here: kernels say so themselves (`Program.prepared`).
"""

from __future__ import annotations

from typing import Any

from ...core.region import CONTROL
from ...core.types import contiguous_strides
from ..group import INLINE_COST, cost_of
from ..ir import Graph, Node, Number, Value
from ..live import is_live
from .dce import remove_dead
from .fuse import number_kinds

#: values up to this size are kept whatever they cost: a loop reads them for each of its elements
SMALL_BYTES = 1 << 16
#: operations per element from which a value is kept rather than computed again inside a loop
WORTH = 4


def hoist(
    graph: Graph, budget: int, casts: frozenset[Node] = frozenset()
) -> tuple[Graph, list[Value]] | None:
    """Take steady values out of a graph, in place: the graph that computes them, and the inputs that stand for them.

    budget: bytes that they may take; casts: those that products do while they pack, and keep what is packed. None where
    nothing is worth it.
    """
    found = Steady(graph)
    chosen: list[Value] = []
    for v in found.borders:
        if v.producer not in casts and v.nbytes <= budget and found.worth(v):
            chosen.append(v)
            budget -= v.nbytes
    if not chosen:
        return None
    prepared = _cut_out(graph, found.needed(chosen), chosen)
    swap = {v: graph.add_input(v.type, v.device) for v in chosen}
    for node in graph.nodes:
        node.inputs = node.reading(swap)
    graph.outputs = [swap.get(v, v) for v in graph.outputs]
    graph.writes = [(target, swap.get(v, v)) for target, v in graph.writes]
    remove_dead(graph)
    return prepared, list(swap.values())


class Steady:
    """The steady values of a graph. borders: those computed of state that other ops read, or that are results."""

    def __init__(self, graph: Graph):
        self.graph = graph
        #: steady values by what holds their memory: state, or what an op computes
        self.base: dict[Value, Value] = {}
        strides: dict[Value, Any] = {}
        for v in graph.inputs:
            if v in graph.steady:
                self.base[v], strides[v] = v, graph.strides.get(v) or contiguous_strides(v.type.shape)
        self.made: set[Node] = set()
        self.readers: dict[Value, list[Node]] = {}
        borders: dict[Value, None] = {}
        for node in graph.nodes:
            if self._is_steady(node):
                view = self._view(node, strides)
                for v in node.outputs:
                    self.base[v] = self.base[node.inputs[0]] if view is not None else v
                    strides[v] = contiguous_strides(v.type.shape) if view is None else view
                if view is None:
                    self.made.add(node)
                continue
            for x in node.values():
                self._read(x, node, borders)
        for v in graph.results():
            self._read(v, None, borders)
        self.borders = list(borders)

    def _is_steady(self, node: Node) -> bool:
        if is_live((node.attrs, *(v.type.shape for v in node.outputs))):  # another size is another value
            return False
        return (
            node.op not in CONTROL and not node.again and not node.op.updates
            and not any(isinstance(x, Number) for x in node.inputs) and all(x in self.base for x in node.values())
            and all(v.size for v in node.outputs)
        )  # fmt: skip

    def _view(self, node: Node, strides: dict[Value, Any]) -> Any:
        """The strides of a view of the same memory; None for what computes or copies."""
        if not node.op.is_view or node.op.view_rule is None:
            return None
        x = node.inputs[0]
        made = node.op.view_rule(x.type.shape, strides[x], **node.named)
        return None if made is None else made[1]

    def _read(self, x: Value, reader: Node | None, borders: dict[Value, None]) -> None:
        base = self.base.get(x)
        if base is not None and base.producer is not None:
            borders[base] = None
            if reader is not None:
                self.readers.setdefault(base, []).append(reader)

    def needed(self, values: list[Value]) -> set[Node]:
        """The steady ops that these values are computed by."""
        found: set[Node] = set()
        stack = [v.producer for v in values]
        while stack:
            node = stack.pop()
            if node is not None and node not in found:
                found.add(node)
                stack += [x.producer for x in node.values()]
        return found

    def worth(self, v: Value) -> bool:
        """Whether keeping a value is better than computing it in each call, where it may be part of a loop."""
        nodes = self.needed([v])
        made = [n for n in nodes if n in self.made]
        cost = 0
        for node in made:
            if node.op.kind != "pointwise":
                return True
            cost += cost_of(node.op.form(number_kinds(node), node.attrs))[0]
        state = {x for n in nodes for x in n.values() if x.producer is None}
        if not state and cost <= INLINE_COST:
            return False  # numbers, part of whatever uses them
        if any(r.op.kind != "pointwise" and r.op.reduction is None for r in self.readers.get(v, ())):
            return True  # read from memory as a whole
        return v.nbytes <= SMALL_BYTES or cost >= WORTH or sum(x.size >= v.size for x in state) > 1


def _cut_out(graph: Graph, nodes: set[Node], results: list[Value]) -> Graph:
    """These ops as a graph of their own, which reads inputs of the first."""
    new = Graph(f"{graph.name} prepared", graph.fast)
    swap: dict[Value, Value] = {}
    for node in graph.nodes:
        if node in nodes:
            inputs = node.reading(swap)
            twin = Node(
                node.op,
                inputs,
                node.attrs,
                tuple(v.type for v in node.outputs),
                node.outputs[0].device,
                node.where,
            )
            new.nodes.append(twin)
            swap.update(zip(node.outputs, twin.outputs))
    used = {x for n in new.nodes for x in n.values()}
    new.inputs = [v for v in graph.inputs if v in used]
    new.strides = {v: st for v, st in graph.strides.items() if v in used}
    new.outputs = [swap[v] for v in results]
    return new
