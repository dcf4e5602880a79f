"""Walks inside a function whose tape goes on outside of it: behind a tensor from there that has a history itself."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, NoReturn

from ..core.reach import frontier
from .plain import hooks_of
from .symbol import Symbol

if TYPE_CHECKING:
    from .trace import Trace


def refuse_outer(trace: Trace, roots: Sequence[Any], targets: Sequence[Any]) -> None:
    """Leave to Python a walk that may come to one of its targets by what made a tensor from outside, and one to a
    tensor whose history has hooks for it.

    Only a target from outside can stand there. Whether the others are leaves, and their hooks, are guards from here on.
    """
    outer = []
    for x in targets:
        tensor = trace.original(x) if x._node is None else None
        if tensor is not None:
            outer.append(tensor)
            trace.leaves[id(tensor)] = tensor
            if tensor._node is not None and hooks_of(tensor):
                what = f"takes the gradient of {tensor.type}, which has hooks"
                _leave(trace, x, what, lambda t: t._node is not None and bool(hooks_of(t)))
    edges = [x for x in roots if x._node is None]
    edges += frontier([x for x in roots if x._node is not None], -1)
    for x in edges if outer else ():
        tensor = trace.original(x) if isinstance(x, Symbol) else None
        if tensor is None or all(t is tensor for t in outer):
            continue
        trace.leaves[id(tensor)] = tensor
        if tensor._node is not None:
            what = f"takes a gradient that may go on to what made {tensor.type} outside of it"
            _leave(trace, x, what, lambda t: t._node is not None)


def _leave(trace: Trace, x: Symbol, what: str, holds: Callable[[Any], bool]) -> NoReturn:
    """holds: of which tensors in the place of this one, when it is an argument."""
    position = trace.position(x)
    if position is not None:
        trace.only = lambda tensors, _: holds(tensors[position])
    trace.leave(what, "take it outside, or pass x.detach().requires_grad_()")
