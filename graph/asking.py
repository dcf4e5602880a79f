"""What a function asks about identity: whether an argument is a tensor that it finds by itself, in any way.

In a trace the two are different objects, so the answer would be wrong: the function's Python runs in such calls. Where
they are different tensors, a variant is not for calls in which they are one (`aliases.py`).
"""

from __future__ import annotations

import operator
from collections.abc import Iterable
from typing import Any

from ..core import dispatch
from ..core.value import Tensor
from .ledger import Ledger
from .lookup import UNKNOWN
from .symbol import Symbol

#: methods of containers that ask whether an element is some object
COMPARING = frozenset(("index", "count", "remove", "__contains__"))
#: functions that do
COMPARERS = frozenset(map(id, (
    operator.is_, operator.is_not, operator.eq, operator.ne, operator.contains, operator.indexOf, operator.countOf, id,
)))  # fmt: skip


def ask(ledger: Ledger, some: Iterable[Any] = (UNKNOWN,), others: Iterable[Any] = (UNKNOWN,)) -> None:
    """Some objects are about to be compared with others; UNKNOWN among them: perhaps with tensors."""
    some, others = list(some), list(others)
    for a, b in ((some, others), (others, some)):
        tensors = [x for x in b if isinstance(x, Tensor) and x.__class__ is not Symbol]
        for x in a if tensors else ():
            for t in tensors if x.__class__ is Symbol else ():
                x.meet(t)
    if all(any(x is UNKNOWN or isinstance(x, Tensor) for x in row) or not row for row in (some, others)):
        ledger.asked = True
        leave_doubles(dispatch.state.executor, ledger.outside)


def leave_gradients(trace: Any, outside: Iterable[int]) -> None:
    """Leave to Python a function that asks what is the same, and finds one tensor as the gradient of two, or as a
    gradient and by itself. outside: ids of what it found."""
    ids = [id(before) for _, before, _ in trace.grad_inputs.values()]
    if len({*ids}) < len(ids) or not {*trace.lifted, *outside}.isdisjoint(ids):
        trace.leave(
            "asks what is the same, and a gradient from before the call is that of another tensor, or found elsewhere",
            "ask outside",
        )


def leave_doubles(trace: Any, outside: Iterable[int]) -> None:
    """Leave to Python calls with a tensor that the function has found by itself, too. outside: ids of what it found."""
    outside = set(outside) if not isinstance(outside, (set, dict)) else outside
    found = [t for t in getattr(trace, "called", ()) if id(t) in outside]
    if found:
        trace.only = lambda tensors, _: any(t is x for t in tensors for x in found)
        trace.leave(
            f"asks what is the same, and its argument {found[0].type} is a tensor from outside as well",
            "pass it, or read it, but not both",
        )
