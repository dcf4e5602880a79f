"""Casts: which roundings to 16 bits are left to the hand-written kernels that read them.

A kernel that packs its operands can round float32 as it packs (`takes_casts`); others get float32 copies of 16-bit
floats (`core/adapt.py`), which are rounded as they are made. So a cast of an input that such kernels alone read needs
no pass over memory and no memory: its result is seen through, as a view is (`layout.find_layouts`). What is computed in
the graph is rounded by the kernel that computes it.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from ...core.ops.comparison import cast
from ...core.region import CONTROL
from ...core.types import Shape, contiguous_strides, float32
from ..ir import Graph, Node, Value
from ..layout import find_layouts, is_dense

#: more ops that read twice as many bytes take longer than one pass that halves them
MOST = 3


class Casts(NamedTuple):
    """taken: those that kernels do which read them; kept: why others, which such kernels read, are not."""

    taken: frozenset[Node]
    kept: dict[Node, str]


NO_CASTS = Casts(frozenset(), {})


def find_casts(graph: Graph, backend: Any) -> Casts:
    """The casts to 16 bits that hand-written kernels read, and those of them that these kernels do."""
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


_UNREAD = "no kernel reads it that could"


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
        kernels = [r for r in readers if self._rounds(r)]
        if not kernels:
            return _UNREAD
        name, layout = kernels[0].op.name, self.layouts[x]
        others = [r.op.name for r in readers if not self._rounds(r)]
        if others or not stands:
            return f"the cast is not left to {name}: {others[0] if others else 'the function'} needs its result, too"
        if x.type.dtype is not float32:
            return f"the cast is not left to {name}, which rounds float32 alone"
        if layout.base.producer is not None:
            return f"the cast is not left to {name}: what computes its operand rounds it"
        if not is_dense(x.type.shape, layout.strides):
            return f"the cast is not left to {name}: its operand is not in order in memory, its result is"
        if len(kernels) > MOST and layout.base not in self.graph.steady:
            return f"the cast is not left to {name}: {len(kernels)} ops would round it, more than {MOST}"
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
        kernel = self.backend.primitive(node.op.name)
        if kernel is None or node.op in CONTROL or node.op.updates:
            return False
        if any(v.type.dtype.is_complex for v in (*node.values(), *node.outputs)):
            return False
        if getattr(kernel, "takes_casts", False):
            return node.outputs[0].type.dtype.computed is float32
        return not getattr(kernel, "takes_halves", False)  # copies to float32 are made for it
