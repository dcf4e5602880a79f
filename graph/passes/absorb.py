"""Absorb (precision="fast" only): scales by channel go into the weights of the convolution or product before them.

`conv(x, w) * s + b` is `conv(x, w * s) + b`, and so is batch normalisation with given statistics: where weights, scale
and shift are state, the new weights and the shift are prepared once (`hoist.py`).
"""

from __future__ import annotations

from typing import Any

from ...core.ops.convolution import conv
from ...core.ops.elementwise import add, multiply, negative, subtract
from ...core.ops.linalg import matmul
from ...core.ops.views import reshape
from ..ir import Graph, Node, Value
from .cse import replace_results
from .dce import remove_dead
from .hoist import Steady


def absorb(graph: Graph, backend: Any = None) -> None:
    """Put scales into weights wherever both are state."""
    if graph.fast and graph.steady and any(n.op is conv or n.op is matmul for n in graph.nodes):
        _Absorber(graph).run()


class _Absorber:
    def __init__(self, graph: Graph):
        self.graph, self.steady = graph, Steady(graph).base
        self.uses = graph.uses()
        self.results = set(graph.results())
        self.made: list[Node] = []  # of state
        self.where: Any = None

    def run(self) -> None:
        swap: dict[Value, Value] = {}
        nodes: list[Node] = []
        for node in self.graph.nodes:
            node.inputs = node.reading(swap)
            nodes.append(node)
            if (node.op is conv or node.op is matmul) and node.outputs[0] not in self.steady:
                last, replaced = self._absorbed(node)
                if last is not None:
                    nodes[-1:] = replaced
                    swap[last] = replaced[-1].outputs[0]
        if not swap:
            return
        # What is made of state reads state alone, so it may come first.
        first = [n for n in nodes if n.outputs and all(v in self.steady for v in n.outputs)]
        early = set(first)
        self.graph.nodes = [*first, *self.made, *(n for n in nodes if n not in early)]
        for node in self.graph.nodes:
            node.inputs = node.reading(swap)
        replace_results(self.graph, swap)
        remove_dead(self.graph)

    def _absorbed(self, node: Node) -> tuple[Value | None, list[Node]]:
        """The end of the chain of scales and shifts after an op, and the op with what is left of them."""
        x, w = node.inputs
        out = node.outputs[0]
        if w not in self.steady or not isinstance(x, Value) or (node.op is matmul and w.type.ndim != 2):
            return None, []
        self.where = node.where
        scale: Any = None
        shift: Any = None
        y = out
        while (step := self._next(y, node.op is conv)) is not None:
            op, other, y = step
            if op is multiply:
                scale = other if scale is None else self._op(multiply, scale, other)
                shift = None if shift is None else self._op(multiply, shift, other)
            elif shift is None:
                shift = other if op is add else self._op(negative, other)
            else:
                shift = self._op(op, shift, other)
        if not isinstance(scale, Value):
            return None, []  # a number costs nothing where it is
        one = (1,) * (w.type.ndim - 1)
        wide = (scale.type.size, *one) if node.op is conv else (scale.type.size,)
        weights = self._op(multiply, w, self._op(reshape, scale, attrs=(wide,)))
        made = [Node(node.op, [x, weights], node.attrs, (out.type,), out.device, node.where)]
        made[0].again = node.again
        if shift is not None:
            made.append(
                Node(add, [made[0].outputs[0], shift], add.defaults, (out.type,), out.device, node.where)
            )
        return y, made

    def _next(self, y: Value, channels: bool) -> tuple[Any, Any, Value] | None:
        """The op that scales or shifts y by channel and is all that reads it, the other operand, and the result."""
        users = self.uses.get(y, ())
        if len(users) != 1 or y in self.results or len(users[0].inputs) != 2:
            return None
        node = users[0]
        a, b = node.inputs
        if node.op not in (add, multiply) and not (node.op is subtract and a is y):
            return None
        other = b if a is y else a
        result = node.outputs[0]
        if other is y or result.type != y.type or node.again:
            return None
        if isinstance(other, Value):
            axis = 1 if channels else y.type.ndim - 1
            shape = (1,) * (y.type.ndim - other.type.ndim) + other.type.shape
            by_channel = all(n == 1 or k == axis for k, n in enumerate(shape))
            if other not in self.steady or other.type.dtype is not y.type.dtype or not by_channel:
                return None
        elif other.__class__ not in (int, float):
            return None
        return node.op, other, result

    def _op(self, op: Any, *inputs: Any, attrs: Any = None) -> Any:
        """An op on state and numbers."""
        if not any(isinstance(x, Value) for x in inputs):
            a, *b = inputs
            return (
                -a if op is negative else a * b[0] if op is multiply else a + b[0] if op is add else a - b[0]
            )
        attrs = op.defaults if attrs is None else attrs
        types = op.infer([x.type if isinstance(x, Value) else x for x in inputs], attrs)
        device = next(x.device for x in inputs if isinstance(x, Value))
        self.made.append(Node(op, list(inputs), attrs, tuple(types), device, self.where))
        return self.made[-1].outputs[0]
