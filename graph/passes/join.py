"""Join: a sum of slices put into zeros, which together fill the whole, is the slices side by side.

The gradient of `x[:, :, 0]`, `x[:, :, 1]`, ... is such a sum: every slice's gradient within zeros, added up. Adding 0
changes -0.0 alone, so the slices get that addition unless they cannot be -0.0. Where the slices are the gradients of
q, k and v, attention writes them side by side.
"""

from __future__ import annotations

import math
from typing import Any

from ...core.ops.attention import attention_grad, attention_grad_joined
from ...core.ops.creation import full_
from ...core.ops.elementwise import add
from ...core.ops.joining import concat
from ...core.ops.slices import slice_update
from ...core.ops.views import permute, reshape
from ..ir import Graph, Node, Value
from .cse import number_key, replace_results

#: ops whose kernels end in an addition of +0
_NEVER_MINUS_ZERO = frozenset(("attention_grad",))
#: a slice's axis, start and length
Piece = tuple[int, int, int]


def join_slices(graph: Graph, backend: Any = None) -> None:
    """Replace sums of slices by joined tensors."""
    if slice_update not in [node.op for node in graph.nodes]:
        return
    uses = {x: len(readers) for x, readers in graph.uses().items()}
    for v in graph.results():
        uses[v] = uses.get(v, 0) + 1
    inner = {x for node in graph.nodes if node.op is add for x in node.values() if uses[x] == 1}
    swap: dict[Value, Value] = {}
    nodes: list[Node] = []
    for node in graph.nodes:
        node.inputs = node.reading(swap)
        nodes.append(node)
        if node.op is add and node.outputs[0] not in inner:
            made = _joined(node, uses)
            if made:
                nodes[-1:] = made
                swap[node.outputs[0]] = made[-1].outputs[0]
                uses[made[-1].outputs[0]] = uses[node.outputs[0]]
    graph.nodes = nodes
    replace_results(graph, swap)


def _joined(node: Node, uses: dict[Value, int]) -> list[Node]:
    """The nodes that stand for a sum; none when it is not made of slices that fill the whole."""
    leaves: list[Node] = []
    stack = list(node.inputs)
    while stack:
        x = stack.pop()
        maker = x.producer if isinstance(x, Value) and uses[x] == 1 else None
        if maker is None or x.type != node.outputs[0].type:
            return []
        if maker.op is add:
            stack += maker.inputs
        elif maker.op is slice_update and _of_zeros(maker):
            leaves.append(maker)
        else:
            return []
    pieces: list[tuple[Piece, Node]] = []
    for leaf in leaves:
        piece = _piece(leaf)
        if piece is None:
            return []
        pieces.append((piece, leaf))
    pieces.sort(key=lambda p: p[0])
    axis, at = pieces[0][0][0], 0
    for (other, start, count), _ in pieces:
        if other != axis or start != at or not count:
            return []
        at += count
    whole = node.outputs[0].type
    if at != whole.shape[axis]:
        return []
    made: list[Node] = []
    parts: list[Value] = []
    for (_, _, count), leaf in pieces:
        part = leaf.inputs[1]
        shape = (*whole.shape[:axis], count, *whole.shape[axis + 1 :])
        if not _never_minus_zero(part):
            made.append(Node(add, [part, 0.0], (), (part.type,), part.device, leaf.where))
            part = made[-1].outputs[0]
        if part.type.shape != shape:
            made.append(
                Node(reshape, [part], (shape,), (whole._replace(shape=shape),), part.device, leaf.where)
            )
            part = made[-1].outputs[0]
        parts.append(part)
    made.append(Node(concat, list(parts), (axis,), (whole,), node.outputs[0].device, node.where))
    for n in made:
        n.again = node.again
    return made


def _of_zeros(node: Node) -> bool:
    base, part = node.inputs
    maker = base.producer if isinstance(base, Value) else None
    return (
        maker is not None and maker.op is full_ and number_key(maker.inputs[0]) in (number_key(0.0), number_key(0))
        and isinstance(part, Value) and part.type.dtype is base.type.dtype and part.type.dtype.is_float
    )  # fmt: skip


def _piece(node: Node) -> Piece | None:
    """Which part of one axis a slice is; None when it is cut along several, in steps or backwards."""
    (index,) = node.attrs
    shape = node.outputs[0].type.shape
    if len(index) != len(shape) or any(e[0] == "n" for e in index):
        return None
    found: list[Piece] = []
    kept: list[int] = []
    for axis, (e, n) in enumerate(zip(index, shape)):
        start, count, step = (e[1], 1, 1) if e[0] == "i" else e[1:]
        if e[0] != "i":
            kept.append(count)
        if e[0] == "i" or (start, count, step) != (0, n, 1):
            if step != 1:
                return None
            found.append((axis, start, count))
    if len(found) != 1 or node.inputs[1].type.shape != tuple(kept):
        return None
    return found[0]


def _never_minus_zero(x: Value) -> bool:
    maker = x.producer
    while maker is not None and maker.op in (permute, reshape):
        maker = maker.inputs[0].producer
    return maker is not None and maker.op.name in _NEVER_MINUS_ZERO


def join_heads(graph: Graph, backend: Any = None) -> None:
    """Let attention write the gradients of q, k and v side by side where all that reads them is their `concat`."""
    if attention_grad not in [node.op for node in graph.nodes]:
        return
    readers = {x: len(nodes) for x, nodes in graph.uses().items()}
    for v in graph.results():
        readers[v] = readers.get(v, 0) + 1
    joined: dict[Node, Node] = {}
    put: dict[Node, Node] = {}
    for node in graph.nodes:
        maker = _heads(node, readers) if node.op is concat and len(node.inputs) == 3 else None
        if maker is None:
            continue
        q = maker.inputs[0].type
        b, h, m, d = q.shape
        made = Node(
            attention_grad_joined, maker.inputs, maker.attrs, (q._replace(shape=(b, m, 3, h, d)),),
            maker.outputs[0].device, maker.where,
        )  # fmt: skip
        made.again = maker.again
        joined[maker] = made
        whole = node.outputs[0].type
        put[node] = Node(
            reshape, [made.outputs[0]], (whole.shape,), (whole,), node.outputs[0].device, node.where
        )
        put[node].again = node.again
    swap = {node.outputs[0]: new.outputs[0] for node, new in put.items()}
    graph.nodes = [joined.get(node) or put.get(node) or node for node in graph.nodes]
    for node in graph.nodes:
        node.inputs = node.reading(swap)
    # What led from the old gradients to their concat is read by nobody now.
    dead = {v for maker in joined for v in maker.outputs}
    kept: list[Node] = []
    for node in graph.nodes:
        if dead.intersection(node.values()):
            dead.update(node.outputs)
        else:
            kept.append(node)
    graph.nodes = kept
    replace_results(graph, swap)


def _heads(node: Node, readers: dict[Value, int]) -> Node | None:
    """The attention_grad whose three results a concat puts side by side, row by row."""
    found: list[tuple[Node, int]] = []
    for x in node.inputs:
        while (
            isinstance(x, Value) and readers[x] == 1 and x.producer is not None and x.producer.op is reshape
        ):
            x = x.producer.inputs[0]
        if (
            not isinstance(x, Value)
            or readers[x] != 1
            or x.producer is None
            or x.producer.op is not attention_grad
        ):
            return None
        found.append((x.producer, x.index))
    maker = found[0][0]
    q, k, v = (x.type for x in maker.inputs[:3])
    (axis,) = node.attrs
    rows = node.outputs[0].type.shape[:axis]
    if found != [(maker, 0), (maker, 1), (maker, 2)] or not q.shape == k.shape == v.shape:
        return None
    return (
        maker
        if math.prod(rows) == q.shape[0] * q.shape[2] and q.dtype is node.outputs[0].type.dtype
        else None
    )
