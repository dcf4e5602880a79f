"""What the way back makes again instead of keeping: views of the forward graph, and constants."""

from __future__ import annotations

from .ir import Graph, Node, Value
from .trace import Trace


def make_again(trace: Trace, back: Graph, serials: dict[int, Value]) -> None:
    """Make views and constants of the forward graph again in the backward graph, instead of keeping them."""
    front: list[Node] = []
    swap: dict[Value, Value] = {}

    def cheap(node: Node) -> bool:
        """Whether a value is made again rather than kept: views, and constants that are written from numbers."""
        if node.op.is_view and node.op.view_rule is not None:
            # What had to be copied does not change with what it was copied from.
            return node.outputs[0] not in trace.copied
        return all(x.__class__ in (int, float, bool) for x in node.inputs) and not node.op.impure

    def known(value: Value) -> bool:
        """Whether what a value is made of can still be read."""
        node = value.producer
        if node is not None and cheap(node):
            return all(known(x) for x in node.inputs if isinstance(x, Value))
        return trace.is_in_reach(value)

    def local(value: Value) -> Value:
        """A forward value in the backward graph."""
        node = value.producer
        if node is None or not cheap(node) or not known(value):
            return trace._use(value)
        mine = trace._use(value)
        if mine not in swap:
            inputs = [local(x) if isinstance(x, Value) else x for x in node.inputs]
            twin = Node(
                node.op, inputs, node.attrs, tuple(v.type for v in node.outputs), value.device, node.where
            )
            front.append(twin)
            swap[mine] = twin.outputs[value.index]
        return swap[mine]

    for source in list(trace.sources):
        if source.kind == "carry":
            local(serials[source.key])
    if swap:
        for node in back.nodes:
            node.inputs = [swap.get(x, x) if isinstance(x, Value) else x for x in node.inputs]
        back.outputs = [swap.get(v, v) for v in back.outputs]
        back.nodes = [*front, *back.nodes]
