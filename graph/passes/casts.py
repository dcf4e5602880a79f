"""Casts: which roundings to 16 bits are left to the products that read them.

A kernel that packs its operands can round float32 as it packs (`takes_casts`). So a cast of an input that products
alone read needs no pass over memory and no memory: its result is seen through, as a view is (`layout.find_layouts`).
What is computed in the graph is rounded by the kernel that computes it.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from ...core.ops.comparison import cast
from ...core.types import Shape, contiguous_strides, float32
from ..ir import Graph, Node, Value
from ..layout import find_layouts, is_dense

#: products that read twice as many bytes take longer than one pass that halves them
MOST = 3


class Casts(NamedTuple):
    """taken: those that products do; kept: why others, which products read, are not."""

    taken: frozenset[Node]
    kept: dict[Node, str]


NO_CASTS = Casts(frozenset(), {})


def find_casts(graph: Graph, backend: Any) -> Casts:
    """The casts to 16 bits that only products read, and those of them that the products' kernels do."""
    nodes = [n for n in graph.nodes if n.op is cast and n.outputs[0].type.dtype.is_half]
    taken: set[Node] = set()
    kept: dict[Node, str] = {}
    if nodes:
        found = _Casts(graph, backend)
        for node in nodes:
            why = found.why_kept(node)
            if not why:
                taken.add(node)
            elif why != _UNREAD:
                kept[node] = why
    return Casts(frozenset(taken), kept)


_UNREAD = "no product reads it"


class _Casts:
    def __init__(self, graph: Graph, backend: Any):
        self.graph, self.backend = graph, backend
        self.readers, self.results = graph.uses(), set(graph.results())
        self.layouts = find_layouts(graph, change=False)

    def why_kept(self, node: Node) -> str:
        """Why a cast is not left to those who read it; "" where it is."""
        x, y = node.inputs[0], node.outputs[0]
        if not isinstance(x, Value) or not y.size:
            return _UNREAD
        readers: list[Node] = []
        stands = self._read(y, contiguous_strides(y.type.shape), readers)
        products = [r for r in readers if self._rounds(r)]
        if not products:
            return _UNREAD
        name, layout = products[0].op.name, self.layouts[x]
        others = [r.op.name for r in readers if not self._rounds(r)]
        if others or not stands:
            return f"the cast is not left to {name}: {others[0] if others else 'the function'} needs its result, too"
        if x.type.dtype is not float32:
            return f"the cast is not left to {name}, which rounds float32 alone"
        if layout.base.producer is not None:
            return f"the cast is not left to {name}: what computes its operand rounds it"
        if not is_dense(x.type.shape, layout.strides):
            return f"the cast is not left to {name}: its operand is not in order in memory, its result is"
        if len(products) > MOST and layout.base not in self.graph.steady:
            return f"the cast is not left to {name}: {len(products)} ops would round it, more than {MOST}"
        return ""

    def _read(self, value: Value, strides: Shape, readers: list[Node]) -> bool:
        """Collect who reads a value through views; whether it is neither a result nor seen in a way strides cannot."""
        whole = value not in self.results
        for node in self.readers.get(value, ()):
            if not (node.op.is_view and node.op.view_rule is not None):
                readers.append(node)
                continue
            made = node.op.view_rule(value.type.shape, strides, **node.named)
            whole &= made is not None and self._read(node.outputs[0], made[1], readers)
        return whole

    def _rounds(self, node: Node) -> bool:
        """Whether the kernel of a node rounds what it reads."""
        takes = getattr(self.backend.primitive(node.op.name), "takes_casts", False)
        return takes and node.outputs[0].type.dtype.computed is float32
