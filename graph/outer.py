"""Walks inside a function whose tape goes on outside of it: behind a tensor from there that has a history itself."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from ..core.errors import user_line
from ..core.reach import frontier
from .symbol import Symbol

if TYPE_CHECKING:
    from .trace import Trace


def refuse_outer(trace: Trace, roots: Sequence[Any], targets: Sequence[Any]) -> None:
    """Leave to Python a walk that may come to one of its targets by what made a tensor from outside.

    Only a target from outside can stand there. Whether the others are leaves is a guard from here on.
    """
    outer = [tensor for x in targets if x._node is None and (tensor := trace.original(x)) is not None]
    edges = [x for x in roots if x._node is None]
    edges += frontier([x for x in roots if x._node is not None], -1)
    for x in edges if outer else ():
        tensor = trace.original(x) if isinstance(x, Symbol) else None
        if tensor is None or all(t is tensor for t in outer):
            continue
        trace.leaves[id(tensor)] = tensor
        if tensor._node is not None:
            position = trace.position(x)
            if position is not None:
                trace.only = lambda tensors, _, k=position: tensors[k]._node is not None
            trace.leave(
                f"takes a gradient at {user_line()} that may go on to what made {tensor.type} outside of it",
                "take it outside, or pass x.detach().requires_grad_()",
            )
