"""Guards of tensors and functions with a mode that a trace found by itself."""

from __future__ import annotations

from typing import Any

from .guards import Guard
from .plain import hooks_of, sees


def tensor_guard(t: Any) -> Guard:
    """That a tensor still has the same memory, layout and need of a gradient; its values may change."""
    tests = ["{0}._storage is {1}", "{0}._layout is {2}", "{0}._requires_grad is {3}"]
    if t._storage.nbytes != t.nbytes:  # else it fits at one place only
        tests.append("{0}._offset == {4}")
    return Guard(
        40, " and ".join(tests), (t, t._storage, t._layout, t._requires_grad, t._offset),
        f"a kept tensor {t.type} has its memory, layout and requires_grad",
    )  # fmt: skip


def grad_guard(t: Any, absent: bool) -> Guard:
    """That `t.grad` is None (absent), or a tensor of the layout and device it has now."""
    if absent:
        return Guard(
            30, "{0}._grad is None", (t,), f"grad of a tensor {t.type} is None", "None", lambda: t._grad
        )
    g = t._grad
    if g is None:  # the trace has been run already and cleared it
        return Guard(
            30,
            "{0}._grad is not None",
            (t,),
            f"grad of a tensor {t.type} is present",
            "present",
            lambda: t._grad,
        )
    return Guard(
        30, "{0}._grad._layout is {1} and {0}._grad._storage.device == {2} and {0}._grad._requires_grad is {3}",
        (t, g._layout, g._storage.device, g._requires_grad),
        f"grad of a tensor {t.type} is {g.type}", str(g.type), lambda: t._grad,
    )  # fmt: skip


def leaf_guard(t: Any) -> Guard:
    """That a tensor is still a leaf, or still none, and has the hooks that it had."""
    absent = "" if t._node is None else " not"
    view = f"sees({{0}}) == {sees(t)!r} and " if absent else ""
    test = f"{{0}}._node is{absent} None and {view}" + (
        "hooks_of({0}) == {1}" if absent or t._hooks else "not {0}._hooks"
    )
    return Guard(
        31, test, (t, hooks_of(t)), f"a tensor {t.type} is {absent and 'not '}a leaf, with the same hooks"
    )


def mode_guard(f: Any, mode: str) -> Guard:
    """That a function which the traced one calls is still in the mode that it was in."""
    return Guard(34, "{0}._mode == {1}", (f, mode), f"mode of {f.name} == {mode!r}", mode, lambda: f._mode)
