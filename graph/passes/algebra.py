"""Algebra: rewrites that cannot change a bit. Views of views, casts of casts, copies, transposed products."""

from __future__ import annotations

from typing import Any

from ...core.ops.elementwise import assign, cast, divide, multiply, negative, subtract
from ...core.ops.linalg import matmul
from ...core.ops.slices import slice_
from ...core.ops.views import broadcast_to, permute, reshape
from ...core.types import DType, promote
from ..ir import Graph, Node, Value
from .cse import replace_results


def simplify(graph: Graph, backend: Any = None) -> None:
    """Apply every rule once to every op, in order."""
    _Algebra(graph).run()


class _Algebra:
    def __init__(self, graph: Graph):
        self.graph = graph
        self.swap: dict[Value, Value] = {}
        self.uses: dict[Value, int] = {}
        self.readers = graph.uses()
        for x, readers in self.readers.items():
            self.uses[x] = len(readers)
        for v in graph.results():
            self.uses[v] = self.uses.get(v, 0) + 1

    def run(self) -> None:
        rules = {
            reshape: self._reshape, permute: self._permute, broadcast_to: self._broadcast, slice_: self._slice,
            cast: self._cast, assign: self._same, negative: self._negative, multiply: self._multiply,
            divide: self._divide, subtract: self._subtract,
        }  # fmt: skip
        nodes: list[Node] = []
        for node in self.graph.nodes:
            node.inputs = node.reading(self.swap)
            rule = rules.get(node.op)
            if rule is None:
                nodes.append(node)
                continue
            made = rule(node)
            if isinstance(made, Value):
                self.swap[node.outputs[0]] = made
            else:
                nodes += made or [node]
        self.graph.nodes = nodes
        replace_results(self.graph, self.swap)

    # Each rule returns the value that the result equals, or the nodes to put here, or None to leave the node.

    def _maker(self, x: Any, op: Any) -> Node | None:
        return x.producer if isinstance(x, Value) and x.producer is not None and x.producer.op is op else None

    def _reshape(self, node: Node) -> Any:
        x = node.inputs[0]
        while (inner := self._maker(x, reshape)) is not None:
            x = inner.inputs[0]
        node.inputs[0] = x
        return x if x.type == node.outputs[0].type else None

    def _permute(self, node: Node) -> Any:
        (axes,) = node.attrs
        x = node.inputs[0]
        inner = self._maker(x, permute)
        if inner is not None:
            x = inner.inputs[0]
            axes = tuple(inner.attrs[0][a] for a in axes)
            node.inputs, node.attrs = [x], (axes,)
        if axes == tuple(range(len(axes))):
            return x
        product = self._maker(x, matmul)
        turns = product is not None and self.uses[x] == 1 and axes[-1] == len(axes) - 2
        if product is not None and turns and not self._feeds_product(node):
            return self._transposed_product(node, product, axes)
        return None

    def _feeds_product(self, node: Node) -> bool:
        """Whether a product reads a result, itself or a view of it: its order of sums may depend on where rows lie."""
        stack = list(node.outputs)  # what reads them has not been rewritten: it stands later
        while stack:
            for reader in self.readers.get(stack.pop(), ()):
                if reader.op is matmul:
                    return True
                if reader.op.is_view:
                    stack += reader.outputs
        return False

    def _instead(self, node: Node, x: Value) -> Value | None:
        """x in place of a result that has its values, unless a product reads it and x may lie otherwise in memory."""
        lies = x in self.graph.strides if x.producer is None else x.producer.op.is_view
        return None if lies and self._feeds_product(node) else x

    def _transposed_product(self, node: Node, product: Node, axes: tuple[int, ...]) -> list[Node] | None:
        """(a b)^T = b^T a^T: an element is the same sum in the same order, and rows come out contiguous."""
        a, b = product.inputs
        shape = product.outputs[0].type.shape
        if a.type.ndim < 2 or b.type.ndim < 2 or min(shape[-2:]) < 2:
            return None
        made: list[Node] = []
        turned = [self._turn(x, made, node.where) for x in (b, a)]
        last = len(axes) - 1
        rest = tuple(2 * last - 1 - k if k >= last - 1 else k for k in axes)
        if rest == tuple(range(len(axes))):
            node.op, node.inputs, node.attrs, node.again = matmul, turned, (), product.again
            return [*made, node]
        type_ = product.outputs[0].type._replace(shape=(*shape[:-2], shape[-1], shape[-2]))
        made.append(Node(matmul, turned, (), (type_,), a.device, product.where))
        made[-1].again = product.again
        node.inputs, node.attrs = [made[-1].outputs[0]], (rest,)
        return [*made, node]

    def _turn(self, x: Value, made: list[Node], where: Any) -> Value:
        """x with its last two axes swapped, as a view of what x is a view of."""
        n = x.type.ndim
        axes = (*range(n - 2), n - 1, n - 2)
        inner = self._maker(x, permute)
        if inner is not None:
            x = inner.inputs[0]
            axes = tuple(inner.attrs[0][k] for k in axes)
            if axes == tuple(range(n)):
                return x
        shape = tuple(x.type.shape[k] for k in axes)
        made.append(Node(permute, [x], (axes,), (x.type._replace(shape=shape),), x.device, where))
        return made[-1].outputs[0]

    def _broadcast(self, node: Node) -> Any:
        x = node.inputs[0]
        inner = self._maker(x, broadcast_to)
        if inner is not None:
            x = node.inputs[0] = inner.inputs[0]
        return x if x.type == node.outputs[0].type else None

    def _slice(self, node: Node) -> Any:
        x = node.inputs[0]
        whole = all(e[0] == "s" and e[1] == 0 and e[3] == 1 for e in node.attrs[0])
        return x if whole and x.type == node.outputs[0].type else None

    def _cast(self, node: Node) -> Any:
        x = node.inputs[0]
        if not isinstance(x, Value):
            return None
        inner = self._maker(x, cast)
        if inner is not None and isinstance(inner.inputs[0], Value):
            first = inner.inputs[0]
            if _holds(x.type.dtype, first.type.dtype):
                x = node.inputs[0] = first
        return self._instead(node, x) if x.type == node.outputs[0].type else None

    def _same(self, node: Node) -> Any:
        x = node.inputs[0]
        return self._instead(node, x) if isinstance(x, Value) else None

    def _negative(self, node: Node) -> Any:
        inner = self._maker(node.inputs[0], negative)
        x = None if inner is None else inner.inputs[0]
        return self._instead(node, x) if isinstance(x, Value) else None

    def _neutral(self, node: Node, x: Any, number: Any, value: int) -> Any:
        """x when the number is the neutral one and the op changes nothing else about x."""
        if isinstance(x, Value) and x.type.dtype.is_complex:  # 1 is 1 + 0j there, and infinity times 0 is NaN
            return None
        same = isinstance(x, Value) and type(number) in (int, float) and number == value
        return self._instead(node, x) if same and x.type == node.outputs[0].type else None

    def _multiply(self, node: Node) -> Any:
        a, b = node.inputs
        return self._neutral(node, a, b, 1) or self._neutral(node, b, a, 1)

    def _divide(self, node: Node) -> Any:
        a, b = node.inputs
        return self._neutral(node, a, b, 1)

    def _subtract(self, node: Node) -> Any:
        # x - 0 is x, also for -0.0; x + 0 is not.
        a, b = node.inputs
        return None if not isinstance(b, Value) and str(b).startswith("-") else self._neutral(node, a, b, 0)


def _holds(wide: DType, narrow: DType) -> bool:
    """Whether every value of `narrow` is one of `wide`."""
    if wide is narrow or narrow.kind == "bool":
        return True
    if wide.has_gradient:
        if narrow.has_gradient:
            return promote(wide, narrow) is wide
        digits = {"float16": 11, "bfloat16": 8, "float32": 24, "float64": 53}[wide.real.name]
        return narrow.itemsize * 8 <= digits
    if narrow.has_gradient or wide.kind == "bool":
        return False
    if narrow.kind == wide.kind:
        return narrow.itemsize <= wide.itemsize
    return narrow.kind == "uint" and narrow.itemsize < wide.itemsize


__all__ = ["simplify"]
