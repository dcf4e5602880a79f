"""Fold: a pointwise op on uniform constants is a uniform constant.

Only ops whose scalar instructions are exact in NumPy are evaluated here, so that no bit changes; numbers
stay numbers at call time and never become part of a kernel.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import numpy as np

from ...core.lower import needs_index
from ...core.ops.creation import full_ as full
from ...core.scalar import evaluate, walk
from ..ir import Graph, Node, Number, Value

_EXACT = frozenset(
    (
        "arg", "const", "cast", "add", "sub", "mul", "div", "neg", "abs", "sqrt", "maximum", "minimum", "eq", "ne",
        "lt", "le", "gt", "ge", "logical_and", "logical_or", "logical_xor", "logical_not", "where", "floor", "ceil",
        "trunc", "rint",
    )
)  # fmt: skip


def _same_in_numpy(roots: Any, args: list[Any]) -> bool:
    """Whether NumPy gives the bits of a kernel for these numbers."""
    for n in walk(roots):
        if n.op not in _EXACT:
            return False
        if n.op == "cast" and n.dtype.is_integer and n.args[0].dtype.is_float:
            # Kernels have a rule for what lies outside of the integers; NumPy leaves it to the processor.
            x, legal = evaluate([n.args[0]], args, ())[0].item(), np.iinfo(n.dtype.np)
            if not math.isfinite(x) or not legal.min <= int(x) <= legal.max:
                return False
        elif n.op in ("maximum", "minimum") and evaluate([n], args, ())[0] == 0:
            return False  # 0.0 or -0.0
    return True


def fold(graph: Graph, backend: Any = None) -> None:
    """Replace pointwise ops on constants, and views of constants, by constants."""
    if full not in [node.op for node in graph.nodes]:
        return
    known: dict[Value, Any] = {}
    laid = _read_as_they_lie(graph)
    readers = graph.uses() if laid else {}
    made: list[Node] = []
    for node in graph.nodes:
        made.append(node)
        op, out = node.op, node.outputs[0] if node.outputs else None
        if out is None:
            continue
        if op is full:
            value = node.inputs[0]
            if not isinstance(value, (Value, Number)):
                roots = op.form([type(value)], node.attrs).roots
                if _same_in_numpy(roots, [value]):
                    known[out] = evaluate(roots, [value], ())[0]
            continue
        if not known or not any(isinstance(x, Value) for x in node.inputs):
            continue
        if not all(x in known for x in node.inputs if isinstance(x, Value)):
            continue
        if any(isinstance(x, Number) or x is None for x in node.inputs):
            continue
        if op.is_view:
            if out in laid:
                made.append(_beside(node, known[node.inputs[0]], known, readers.get(out, ())))
            elif out.type.size:
                _become(node, known[node.inputs[0]], known)
        elif op.kind == "pointwise" and op.type_rule is None and len(node.outputs) == 1:
            kinds = [x.type.dtype if isinstance(x, Value) else type(x) for x in node.inputs]
            form = op.form(kinds, node.attrs)
            args = [known[x] if isinstance(x, Value) else x for x in node.inputs]
            if _same_in_numpy(form.roots, args) and not needs_index(form.roots):
                _become(node, evaluate(form.roots, args, ())[0], known)
    graph.nodes = made


def _read_as_they_lie(graph: Graph) -> set[Value]:
    """What is read by kernels that add up in another order where an operand lies otherwise: products and the like.

    A constant of a view's shape would lie in rows."""
    found: set[Value] = set()
    for node in reversed(graph.nodes):
        if node.op.is_view:
            reads = any(y in found for y in node.outputs)
        else:
            reads = node.op.kind != "pointwise" and node.op.reduction is None
        if reads:
            found.update(x for x in node.inputs if isinstance(x, Value))
    return found


def _beside(node: Node, value: np.ndarray, known: dict[Value, Any], readers: Iterable[Node]) -> Node:
    """A constant for those readers of a view that do not look at how it lies."""
    view = node.outputs[0]
    known[view] = value
    twin = Node(
        full,
        [value.item()],
        (view.type.shape, view.type.dtype, view.device),
        (view.type,),
        view.device,
        node.where,
    )
    for reader in readers:
        if reader.op.kind == "pointwise" or reader.op.reduction is not None:
            reader.inputs = [twin.outputs[0] if x is view else x for x in reader.inputs]
    known[twin.outputs[0]] = value
    return twin


def _become(node: Node, value: np.ndarray, known: dict[Value, Any]) -> None:
    """Turn the node into a constant of its own type."""
    out = node.outputs[0]
    number = value.item()
    node.inputs = [number]
    node.op, node.attrs = full, (out.type.shape, out.type.dtype, out.device)
    known[out] = value
