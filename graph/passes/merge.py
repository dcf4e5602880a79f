"""Merge: matrix products of one left operand with several right ones (q, k, v) become one product, with their biases.

The right operands are put side by side; what was each product's result is a slice of the result. A column's value does
not depend on its neighbours, so no bit changes (the backend says for which sizes that holds). A cost model decides: the
operands are copied at each call unless they are state, which is joined once and kept, and pointwise work that would
have been done while a result was in the cache gets a kernel of its own; in exchange the left operand is read once.
"""

from __future__ import annotations

from collections.abc import Container
from typing import Any, NamedTuple

from ...core.op import Op
from ...core.ops.elementwise import add
from ...core.ops.joining import concat
from ...core.ops.linalg import matmul
from ...core.ops.slices import slice_
from ...core.ops.views import permute
from ..ir import Graph, Node, Value
from .cse import replace_results
from .hoist import Steady

#: bytes of the left operand that must be saved for each byte that is moved more than before
COPY_COST = 1.5


class _Part(NamedTuple):
    """A product, the addition of its bias if it is all that reads it, the weight as it lies in memory, the bias."""

    product: Node
    sum: Node | None
    weight: Value
    turned: bool
    bias: Value | None

    @property
    def result(self) -> Value:
        return (self.sum or self.product).outputs[0]


def merge(graph: Graph, backend: Any = None) -> None:
    """Merge products of one operand where it pays."""
    alone = getattr(backend, "columns_alone", None)
    if alone is None:
        return
    groups: dict[Any, list[Node]] = {}
    for node in graph.nodes:
        if node.op is matmul and _fits(node, alone):
            x, y = node.inputs
            groups.setdefault((x, y.type.shape[0], node.again, y.device), []).append(node)
    groups = {key: nodes for key, nodes in groups.items() if len(nodes) > 1}
    if not groups:
        return
    place = {node: k for k, node in enumerate(graph.nodes)}
    readers: dict[Value, list[Node]] = {}
    for node in graph.nodes:
        for v in node.values():
            readers.setdefault(v, []).append(node)
    results = set(graph.results())
    steady = Steady(graph).base
    put: dict[Node, list[Node]] = {}
    gone: set[Node] = set()
    swap: dict[Value, Value] = {}
    for nodes in groups.values():
        parts = [_part(node, readers, results) for node in nodes]
        parts = [p for p in parts if p.result not in results]
        for some in ([p for p in parts if p.turned], [p for p in parts if not p.turned]):
            some = _ready(some, place)
            if len(some) < 2:
                continue
            moved, saved = _moves(some, steady, readers)
            pays = saved >= COPY_COST * moved
            graph.notes.append(_note(some, pays, moved, saved))
            if pays:
                put[some[0].product] = _merged(some, swap)
                gone.update(n for p in some for n in (p.product, p.sum) if n is not None)
    nodes = []
    for node in graph.nodes:
        nodes += put.get(node, ())
        if node not in gone:
            nodes.append(node)
    for node in nodes:
        node.inputs = node.reading(swap)
    graph.nodes = nodes
    replace_results(graph, swap)


def _fits(node: Node, alone: Any) -> bool:
    x, y = node.inputs
    if not (isinstance(x, Value) and isinstance(y, Value)) or y.type.ndim != 2 or x.type.ndim < 2:
        return False
    same = x.type.dtype is y.type.dtype is node.outputs[0].type.dtype
    return same and x.type.size > 0 and y.type.size > 0 and alone(x.type, y.type)


def _part(node: Node, readers: dict[Value, list[Node]], results: set[Value]) -> _Part:
    weight, turned = node.inputs[1], False
    maker = weight.producer
    if maker is not None and maker.op is permute:
        weight, turned = maker.inputs[0], True
    out = node.outputs[0]
    users = readers.get(out, [])
    if len(users) == 1 and users[0].op is add and out not in results:
        bias = users[0].inputs[1] if users[0].inputs[0] is out else users[0].inputs[0]
        if (
            isinstance(bias, Value)
            and bias.type.shape == out.type.shape[-1:]
            and bias.type.dtype is out.type.dtype
        ):
            return _Part(node, users[0], weight, turned, bias)
    return _Part(node, None, weight, turned, None)


def _ready(parts: list[_Part], place: dict[Node, int]) -> list[_Part]:
    """The parts, all with a bias or none, whose operands are there when the first product is computed."""
    parts = [p for p in parts if p.bias is None] if any(p.bias is None for p in parts) else parts
    if not parts:
        return []
    first = place[parts[0].product]

    def there(v: Value | None) -> bool:
        return v is None or v.producer is None or place[v.producer] < first

    return [p for p in parts if there(p.weight) and there(p.bias)]


def _moves(parts: list[_Part], steady: Container[Value], readers: dict[Value, list[Node]]) -> tuple[int, int]:
    """Bytes that are moved more than before, and bytes of the left operand that are read less."""
    moved = sum(2 * p.weight.type.nbytes for p in parts if p.weight not in steady)
    moved += sum(
        p.result.type.nbytes
        for p in parts
        if any(n.op.kind == "pointwise" for n in readers.get(p.result, ()))
    )
    return moved, (len(parts) - 1) * parts[0].product.inputs[0].type.nbytes


def _note(parts: list[_Part], pays: bool, moved: int, saved: int) -> str:
    """What was decided, in words."""
    lines = ", ".join(dict.fromkeys(p.product.line for p in parts if p.product.line))
    done = "are one" if pays else "stay apart"
    cost = f"{moved:,} bytes more are moved for {saved:,} less of that operand"
    return f"{len(parts)} products of one operand {done}: {cost}" + (f" ({lines})" if lines else "")


def _merged(parts: list[_Part], swap: dict[Value, Value]) -> list[Node]:
    """Operands side by side, their product, the biases, and the slices that are the results."""
    made: list[Node] = []
    like = parts[0].product

    def node(op: Op, inputs: list[Any], attrs: Any, type: Any, where: Any = like.where) -> Value:
        made.append(Node(op, inputs, attrs, (type,), like.outputs[0].device, where))
        made[-1].again = like.again
        return made[-1].outputs[0]

    x, turned = like.inputs[0], parts[0].turned
    widths = [p.product.outputs[0].type.shape[-1] for p in parts]
    k, n = x.type.shape[-1], sum(widths)
    type = parts[0].weight.type
    if turned:
        joined = node(concat, [p.weight for p in parts], (0,), type._replace(shape=(n, k)))
        joined = node(permute, [joined], ((1, 0),), type._replace(shape=(k, n)))
    else:
        joined = node(concat, [p.weight for p in parts], (1,), type._replace(shape=(k, n)))
    whole = like.outputs[0].type
    whole = whole._replace(shape=(*whole.shape[:-1], n))
    out = node(matmul, [x, joined], matmul.defaults, whole)
    if parts[0].bias is not None:
        bias = node(concat, [p.bias for p in parts], (0,), type._replace(shape=(n,)))
        out = node(add, [out, bias], add.defaults, whole)
    at = 0
    for part, width in zip(parts, widths):
        index = (*(("s", 0, size, 1) for size in whole.shape[:-1]), ("s", at, width, 1))
        swap[part.result] = node(slice_, [out], (index,), part.result.type, part.product.where)
        at += width
    return made
