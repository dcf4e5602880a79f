"""Attend (precision="fast" only): softmax(q k' * scale + mask) v written out in ops becomes the fused attention.

The way back that differentiates these ops is found with them and becomes the fused gradient, so that no scores are
held. Only whole patterns are replaced: where the weights are read by anything else, all stays as it is.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any, NamedTuple

from ...core.ops.attention import attention, attention_grad
from ...core.ops.elementwise import add, divide, exp, multiply, reciprocal, subtract
from ...core.ops.elementwise import where as where_
from ...core.ops.linalg import matmul
from ...core.ops.reduction import max_, sum_
from ...core.ops.views import permute, reshape
from ...core.types import TensorType, bool_, broadcast_shapes, float32, float64
from ..ir import Graph, Node, Value
from .cse import replace_results


def attend(graph: Graph, backend: Any = None) -> None:
    """Replace every attention that is written out in ops, together with its way back."""
    if graph.fast and any(node.op is matmul for node in graph.nodes):
        _Attend(graph).run()


class _Forward(NamedTuple):
    """What was found: the operands, the factor of the scores, and the values that only it computes."""

    out: Value
    q: Value
    k: Value
    v: Value
    mask: Value | None
    scale: float
    weights: Value
    inner: frozenset[Value]


class _Backward(NamedTuple):
    """The three products of the way back, each [..., rows, columns] or None, and the gradient that comes in."""

    g: Value
    first: Node
    dq: Value | None
    dk: Value | None
    dv: Value | None


class _Attend:
    def __init__(self, graph: Graph):
        self.graph = graph
        self.readers: dict[Value, list[Node]] = {}
        for node in graph.nodes:
            for x in node.values():
                self.readers.setdefault(x, []).append(node)
        self.kept = set(graph.results())
        self.swap: dict[Value, Value] = {}

    def run(self) -> None:
        put: dict[Node, list[Node]] = {}
        for node in self.graph.nodes:
            found = self._forward(node) if node.op is matmul else None
            if found is None:
                continue
            back, ok = self._backward(found)
            if not ok:
                continue
            made, fused = self._fused(found, node)
            put.setdefault(node, []).extend(made)
            way_back = ", with its way back" if back is not None else ""
            where = f" ({node.line})" if node.line else ""
            self.graph.notes.append(f"softmax(q k') v is the fused attention{way_back}{where}")
            if back is not None:
                put.setdefault(back.first, []).extend(self._fused_back(found, back, fused))
        if not put:
            return
        nodes: list[Node] = []
        for node in self.graph.nodes:
            nodes += put.get(node, ())
            nodes.append(node)
        for node in nodes:
            node.inputs = node.reading(self.swap)
        self.graph.nodes = nodes
        replace_results(self.graph, self.swap)

    # -- finding -------------------------------------------------------------------------------

    def _only(self, x: Value, *readers: Node) -> bool:
        """Whether nothing but these nodes reads x."""
        return x not in self.kept and all(r in readers for r in self.readers.get(x, ()))

    def _forward(self, node: Node) -> _Forward | None:
        weights, v = node.inputs
        out = node.outputs[0]
        if out.type.dtype not in (float32, float64) or out.type.ndim not in (3, 4) or not out.type.size:
            return None
        inverse = other = None
        maker = _maker(weights, multiply, divide)
        if maker is not None:
            other, inverse = maker.inputs
            if maker.op is multiply and _maker(other, reciprocal):
                other, inverse = inverse, other
        if maker is not None and maker.op is multiply:
            step = _maker(inverse, reciprocal)
            inverse = step.inputs[0] if step else None
        total, raised = _maker(inverse, sum_), _maker(other, exp)
        if total is None or raised is None or total.inputs[0] is not other or not _rows(total):
            return None
        lowered = _maker(raised.inputs[0], subtract)
        top = _maker(lowered.inputs[1], max_) if lowered else None
        if lowered is None or top is None or top.inputs[0] is not lowered.inputs[0] or not _rows(top):
            return None
        scores: Any = lowered.inputs[0]
        inner = {scores, lowered.outputs[0], top.outputs[0], other, total.outputs[0], inverse, weights}
        inner |= {x for x in maker.inputs if isinstance(x, Value)}  # type: ignore[union-attr]
        mask, scores = _masked(scores, inner)
        scale, scores = _scaled(scores, inner)
        product = _maker(scores, matmul)
        if product is None:
            return None
        q, turned = product.inputs
        inner.add(product.outputs[0])
        k = _turned(turned)
        if k is None:
            return None
        parts = (q, k, v, weights)
        if any(x.type.shape[:-2] != out.type.shape[:-2] for x in parts):
            return None
        if any(x.type.dtype is not out.type.dtype for x in parts) or q.type.size == 0 or k.type.size == 0:
            return None
        if mask is not None and (
            mask.type.dtype not in (bool_, out.type.dtype) or mask.type.ndim > weights.type.ndim
            or broadcast_shapes("attention", mask.type.shape, weights.type.shape) != weights.type.shape
        ):  # fmt: skip
            return None
        if len({n.again for n in (node, maker, raised, total, product)}) > 1:  # type: ignore[union-attr]
            return None
        return _Forward(out, q, k, v, mask, scale, weights, frozenset(inner))

    def _backward(self, f: _Forward) -> tuple[_Backward | None, bool]:
        """The way back, if there is one; False when something else reads what would not be computed any more."""
        out = f.out.producer
        others = [n for n in self.readers[f.weights] if n is not out]
        seen: set[Node] = {n for x in f.inner for n in (x.producer,) if n is not None} | {out}  # type: ignore[arg-type]
        back = None
        if others:
            back = self._gradients(f, others, seen)
            if back is None:
                return None, False
        return back, all(self._only(x, *seen) for x in f.inner)

    def _gradients(self, f: _Forward, others: list[Node], seen: set[Node]) -> _Backward | None:
        dv = g = None
        for node in others:
            if node.op is permute and _swaps_last(node):
                users = self.readers.get(node.outputs[0], [])
                if len(users) != 1 or users[0].op is not matmul or users[0].inputs[0] is not node.outputs[0]:
                    return None
                dv, g = users[0], users[0].inputs[1]
                seen |= {node, dv}
                if node.outputs[0] in self.kept:
                    return None
        # weights * (dp - sum(dp * weights))
        last = next((n for n in others if n.op is multiply and _maker(_other(n, f.weights), subtract)), None)
        if last is None:
            return None
        lowered: Any = _maker(_other(last, f.weights), subtract)
        dp, mean = lowered.inputs
        total, product = _maker(mean, sum_), _maker(dp, matmul)
        if total is None or product is None or not _rows(total):
            return None
        weighted = _maker(total.inputs[0], multiply)
        if weighted is None or set(weighted.inputs) != {dp, f.weights}:
            return None
        if _turned(product.inputs[1]) is not f.v or (g is not None and product.inputs[0] is not g):
            return None
        g = product.inputs[0]
        seen |= {last, lowered, total, weighted, product}
        if set(others) - seen or not (
            self._only(dp, lowered, weighted) and self._only(mean, lowered) and self._only(lowered.outputs[0], last)
            and self._only(weighted.outputs[0], total)
        ):  # fmt: skip
            return None
        slopes = self._slopes(f, last, seen)
        if slopes is None:
            return None
        dq = dk = None
        for node in self.readers.get(slopes, []):
            if node.op is matmul and node.inputs[0] is slopes and _same(node.inputs[1], f.k):
                dq = node
            elif node.op is permute and _swaps_last(node) and node.outputs[0] not in self.kept:
                users = self.readers.get(node.outputs[0], [])
                if len(users) != 1 or users[0].op is not matmul or users[0].inputs[1] is not f.q:
                    return None
                dk = users[0]
                seen.add(node)
            else:
                return None
            seen.add(node)
        if slopes in self.kept or (dq is None and dk is None):
            return None
        products = [n for n in (product, dv) if n is not None]
        first = min(products, key=self.graph.nodes.index)
        results = (n.outputs[0] if n is not None else None for n in (dq, dk, dv))
        return _Backward(g, first, *results)

    def _slopes(self, f: _Forward, node: Node, seen: set[Node]) -> Value | None:
        """From the slopes of the masked and scaled scores to those of q k': the same steps back."""
        x, left = node.outputs[0], 1.0
        masks = f.mask is not None and f.mask.type.dtype is bool_
        for _ in range(8):
            users = self.readers.get(x, [])
            if abs(left - f.scale) <= 1e-6 * abs(f.scale) and not masks:
                return x
            if len(users) != 1 or x in self.kept:
                return None
            (user,) = users
            factor = _factor(user, x)
            if factor is not None:
                left *= factor
            elif (
                masks
                and user.op is where_
                and user.inputs[0] is f.mask
                and user.inputs[1] is x
                and user.inputs[2] == 0
            ):
                masks = False
            else:
                return None
            seen.add(user)
            x = user.outputs[0]
        return None

    # -- making --------------------------------------------------------------------------------

    def _fused(self, f: _Forward, node: Node) -> tuple[list[Node], dict[str, Value]]:
        """The nodes of the fused op in front of the last product, and the values that its gradient reads."""
        made: list[Node] = []
        put = _Put(made, node)
        four = f.out.type.ndim == 4
        q, k, v = (x if four else put.reshape(x, (1, *x.type.shape)) for x in (f.q, f.k, f.v))
        mask = f.mask
        if mask is not None and mask.type.ndim == 3 and not four:
            mask = put.reshape(mask, (1, *mask.type.shape))
        (b, h, m, _), e = q.type.shape, v.type.shape[-1]
        dtype = f.out.type.dtype
        attrs = (False, f.scale, 0)
        types = (TensorType(dtype, (b, m, h, e)), TensorType(dtype, (b, h, m)))
        out, lse = put.node(attention, [q, k, v, mask], attrs, types)
        whole = put.permute(out, (0, 2, 1, 3))
        self.swap[f.out] = whole if four else put.reshape(whole, f.out.type.shape)
        values = {"q": q, "k": k, "v": v, "out": out, "lse": lse}
        return made, values | ({} if mask is None else {"mask": mask})

    def _fused_back(self, f: _Forward, back: _Backward, made_before: dict[str, Value]) -> list[Node]:
        made: list[Node] = []
        put = _Put(made, back.first)
        q, k, v, out, lse = (made_before[n] for n in ("q", "k", "v", "out", "lse"))
        g = back.g if back.g.type.ndim == 4 else put.reshape(back.g, (1, *back.g.type.shape))
        g = put.permute(g, (0, 2, 1, 3))
        (weighed,) = put.node(multiply, [g, out], multiply.defaults, (out.type,))
        rows = TensorType(out.type.dtype, out.type.shape[:-1])
        (delta,) = put.node(sum_, [weighed], _attrs(sum_, axis=(3,), keepdims=False), (rows,))
        types = tuple(
            TensorType(x.type.dtype, tuple(x.type.shape[a] for a in (0, 2, 1, 3))) for x in (q, k, v)
        )
        grads = put.node(
            attention_grad, [q, k, v, made_before.get("mask"), g, lse, delta], (False, f.scale, 0), types
        )
        for old, new in zip((back.dq, back.dk, back.dv), grads):
            if old is not None:
                turned = put.permute(new, (0, 2, 1, 3))
                self.swap[old] = turned if old.type.ndim == 4 else put.reshape(turned, old.type.shape)
        return made


class _Put:
    """Makes nodes that stand where another one stands."""

    def __init__(self, nodes: list[Node], like: Node):
        self.nodes, self.like = nodes, like

    def node(self, op: Any, inputs: list[Any], attrs: Any, types: Iterable[TensorType]) -> list[Value]:
        made = Node(op, inputs, attrs, tuple(types), self.like.outputs[0].device, self.like.where)
        made.again = self.like.again
        self.nodes.append(made)
        return made.outputs

    def reshape(self, x: Value, shape: tuple[int, ...]) -> Value:
        return self.node(reshape, [x], (shape,), (x.type._replace(shape=shape),))[0]

    def permute(self, x: Value, axes: tuple[int, ...]) -> Value:
        shape = tuple(x.type.shape[a] for a in axes)
        return self.node(permute, [x], (axes,), (x.type._replace(shape=shape),))[0]


def _attrs(op: Any, **given: Any) -> Any:
    return tuple(given.get(name, default) for name, default in zip(op.attr_names, op.defaults))


def _maker(x: Any, *ops: Any) -> Node | None:
    """The node that makes x, if it is one of these ops."""
    node = x.producer if isinstance(x, Value) else None
    return node if node is not None and node.op in ops else None


def _rows(node: Node) -> bool:
    """Whether a reduction is over the last axis alone and keeps it."""
    named = node.named
    last = node.inputs[0].type.ndim - 1
    return named.get("axis") in ((last,), last, (-1,), -1) and bool(named.get("keepdims"))


def _swaps_last(node: Node) -> bool:
    (axes,) = node.attrs
    n = len(axes)
    return axes == (*range(n - 2), n - 1, n - 2)


def _turned(x: Any) -> Value | None:
    """What x is the transpose of."""
    node = _maker(x, permute)
    return node.inputs[0] if node is not None and _swaps_last(node) else None


def _same(x: Any, y: Value) -> bool:
    return x is y or (isinstance(x, Value) and _turned(_turned(x)) is y)


def _other(node: Node, x: Value) -> Any:
    return node.inputs[1] if node.inputs[0] is x else node.inputs[0]


def _factor(node: Node, x: Value) -> float | None:
    """What a node multiplies x by, where that is a number."""
    if node.op is multiply:
        number = _other(node, x)
        return float(number) if number.__class__ in (int, float) else None
    if (
        node.op is divide
        and node.inputs[0] is x
        and node.inputs[1].__class__ in (int, float)
        and node.inputs[1]
    ):
        return 1.0 / node.inputs[1]
    return None


def _scaled(x: Any, inner: set[Value]) -> tuple[float, Any]:
    """The product of the numbers that x was multiplied by, and what was multiplied."""
    scale = 1.0
    while (node := _maker(x, multiply, divide)) is not None:
        values = [y for y in node.inputs if isinstance(y, Value)]
        factor = _factor(node, values[0]) if len(values) == 1 else None
        if factor is None:
            break
        scale, x = scale * factor, values[0]
        inner.add(x)
    return scale, x


def _masked(x: Any, inner: set[Value]) -> tuple[Value | None, Any]:
    """The mask of scores, and the scores without it."""
    node = _maker(x, where_, add)
    if node is None:
        return None, x
    if node.op is where_:
        mask, scores, low = node.inputs
        if (
            isinstance(mask, Value)
            and isinstance(scores, Value)
            and low.__class__ is float
            and low == -math.inf
        ):
            inner.add(scores)
            return mask, scores
        return None, x
    for scores, mask in (node.inputs, node.inputs[::-1]):
        values = isinstance(scores, Value) and isinstance(mask, Value) and scores.type == node.outputs[0].type
        if values and _maker(_scaled(scores, set())[1], matmul):
            inner.add(scores)
            return mask, scores
    return None, x
