"""Resting the tracer: inside the framework's own ops there is nothing of the user's to watch.

In Python 3.11 a tracer slows every instruction of its thread down, whether the frame is traced or not: an op
was recorded in 0.2 ms instead of 0.05. From 3.12 on frames that are not traced run at full speed, and it is
the switching that would cost.
"""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable
from typing import Any

from ..core.errors import user_call
from ..core.op import Op
from ..core.saved import needs_of

#: whether switching the tracer off and on pays in this Python
PAYS = sys.version_info < (3, 12)


def resting(method: Callable[..., Any]) -> Callable[..., Any]:
    """Make a method of a trace whose first argument is an op of ours run without the tracer `self.tracer`."""

    @functools.wraps(method)
    def run(self: Any, op: Any, *args: Any, **kwargs: Any) -> Any:
        tracer = self.tracer
        if tracer is None or sys.gettrace() is not tracer or not op.module.startswith("duograd."):
            return method(self, op, *args, **kwargs)
        sys.settrace(None)
        try:
            return method(self, op, *args, **kwargs)
        finally:
            sys.settrace(tracer)

    return run


def backward(trace: Any, root: Any, call: Callable[[], None]) -> None:
    """Run the reverse walk from a root without the tracer, unless code of the user's takes part in it: then all that it
    records is from one place."""
    tracer = None if trace is None else trace.tracer
    if tracer is None or sys.gettrace() is not tracer or not is_ours(root):
        call()
        return
    sys.settrace(None)
    before, trace.place = trace.place, user_call(2)
    try:
        call()
    finally:
        trace.place = before
        sys.settrace(tracer)


def is_quiet(op: Any, quiet: bool = True) -> bool:
    """Whether an op on the tape is ours, or (quiet) one whose step back has no effects."""
    ours = isinstance(op, Op) and op.module.startswith("duograd.")
    return ours or (quiet and bool(getattr(op, "quiet", False)))


def is_whole(node: Any) -> bool:
    """Whether a step back can be made: what it needs has not been freed or changed in place."""
    return node.saved is not None and all(x._get_version() == version for _, x, version in needs_of(node))


def is_tame(root: Any, quiet: bool = True) -> bool:
    """As `is_ours`, of the tape as far as a walk can come: not behind steps that cannot be made."""
    return is_ours(root, quiet, whole=False)


def is_ours(root: Any, quiet: bool = False, whole: bool = True) -> bool:
    """Whether all on the tape of a tensor is ops of ours, without hooks. quiet: or what has no effects."""
    stack, seen = [root._node if root._node is not None else root], set()
    while stack:
        x = stack.pop()
        if x is None or id(x) in seen:
            continue
        seen.add(id(x))
        if hasattr(x, "_node"):  # a leaf
            if x._hooks:
                return False
            continue
        if x.hooks and any(x.hooks.values()):
            return False
        if not whole and not is_whole(x):
            continue
        if not is_quiet(x.op, quiet):
            return False
        stack += [e[0] if isinstance(e, tuple) else e for e in x.edges]
    return True
