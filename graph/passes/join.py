"""Join: a sum of slices put into zeros, which together fill the whole, is the slices side by side.

The gradient of `x[:, :, 0]`, `x[:, :, 1]`, ... is such a sum: every slice's gradient within zeros, added up. Adding 0
changes -0.0 alone, so the slices get that addition unless they cannot be -0.0.
"""

from __future__ import annotations

from typing import Any

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
    uses: dict[Value, int] = {}
    for node in graph.nodes:
        for x in node.values():
            uses[x] = uses.get(x, 0) + 1
    for v in graph.results():
        uses[v] = uses.get(v, 0) + 1
    inner = {x for node in graph.nodes if node.op is add for x in node.values() if uses[x] == 1}
    swap: dict[Value, Value] = {}
    nodes: list[Node] = []
    for node in graph.nodes:
        node.inputs = [swap.get(x, x) if isinstance(x, Value) else x for x in node.inputs]
        nodes.append(node)
        if node.op is add and node.outputs[0] not in inner:
            made = _joined(node, uses)
            if made:
                nodes[-1:] = made
                swap[node.outputs[0]] = made[-1].outputs[0]
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
