"""Nodes that stand for several ops: a walk that is recorded itself meets these ops instead, one by one.

Gradients of gradients reach the values inside. Were these on the tape elsewhere than at the node's place, the parts of
a gradient would be added in another order than op by op.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from .declared import GradRule
from .reach import opened, renumber
from .tape_op import TapeOp
from .vjp import Node, _edge

_THROUGH = GradRule(lambda gs: gs, ("gs",))


class Folded(Node):
    """A node that stands for several ops. Its op has `unfold(node)`, which lets them take its place where it can.

    unfolded: they are there, at its edges, and walks go past it (`reach.past`). Who makes a node sets it to False.
    """

    __slots__ = ("unfolded",)
    is_folded = True

    def leads_within(self, outputs: Sequence[int], targets: Sequence[int]) -> bool:
        """Whether gradients of these outputs are parts of those of others that are targets."""
        return False


@contextmanager
def asking(flags: Sequence[tuple[Any, bool]]) -> Iterator[None]:
    """Leaves ask for a gradient as they did when ops were recorded, while these are recorded again."""
    before = [(x, x._requires_grad) for x, _ in flags if x._node is None]
    for x, asks in flags:
        if x._node is None:
            x._requires_grad = asks
    try:
        yield
    finally:
        for x, asks in before:
            x._requires_grad = asks


@contextmanager
def standing(ends: Sequence[tuple[Any, Any]]) -> Iterator[None]:
    """Tensors stand on the tape where edges of it lead, or nowhere, while ops are recorded again."""
    before = [(x, x._node, x._index, x._requires_grad, x._seen) for x, _ in ends]
    for x, edge in ends:
        x._node, x._index = edge if edge.__class__ is tuple else (None, 0)
        x._requires_grad, x._seen = (
            edge is not None,
            x._storage.tape_version,
        )  # as a view that follows its base
    try:
        yield
    finally:
        for x, *place in before:
            x._node, x._index, x._requires_grad, x._seen = place


def unfold(node: Folded, roots: Sequence[Any], first: int) -> None:
    """Let the ops behind `roots`, recorded since number `first`, take the place of a node with these results."""
    edges = [opened(_edge(y)) for y in roots]
    renumber([edge[0] for edge in edges], first, node.number)
    for k, hooks in (node.hooks or {}).items():
        inner, index = edges[k]
        inner.hooks = inner.hooks or {}
        hooks[:0] = inner.hooks.get(index, ())  # the list stays: it may be asked to let go of a hook
        inner.hooks[index] = hooks
    node.op, node.attrs, node.edges = TapeOp(node.op.name, (), _THROUGH, partial=True), (), edges
    node.rules, node.saved, node.outs, node.step, node.hooks = _THROUGH, {}, (), None, None
    node.unfolded = True
