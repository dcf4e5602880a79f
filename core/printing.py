"""`dg.print`: what a tensor holds, in both modes."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

from . import dispatch, tree
from .errors import ArgumentError
from .value import Tensor


def print_(text: str, *values: Any, to: Callable[[str], Any] | None = None) -> None:
    """Print `text.format(*values)`; in graph mode at every call, with the values of that call.

    text: with `{}` for each value, as in `str.format` (formats such as `{:.3f}` apply to tensors of one element).
    values: tensors and anything else. to: gets the text in the place of `print`, a logger's `info` for example.
    Lines come in the order of the program; those of one call after it has been computed, before its effects.
    Raises: ArgumentError when text and values do not fit, TraceError inside the functions of `cond`, `while_loop` and
    `scan`. Numerics: values are as they are; the tape is not concerned.
    Example: `dg.print("loss {:.3f}", loss)`.
    """
    from .ops.creation import zeros

    try:
        text.format(*(_Blank() if isinstance(v, Tensor) else v for v in values))
    except (IndexError, KeyError, ValueError) as e:
        raise ArgumentError(
            "print", f"{text!r} does not fit {len(values)} values: {e}", "write one {} for each value"
        ) from None
    executor = dispatch.state.executor
    tensors = [v.detach() for v in tree.leaves(list(values)) if isinstance(v, Tensor)]
    parts: dict[int, list[Any]] = {}  # by thread: a graph's lines are one object for all its calls
    fixed = [
        tree.map_leaves(lambda leaf: _Blank() if isinstance(leaf, Tensor) else _settled(leaf), v)
        for v in values
    ]

    def collect(array: Any) -> None:
        found = parts.setdefault(threading.get_ident(), [])
        found.append(array.copy())
        if len(found) == max(1, len(tensors)):
            it = iter(parts.pop(threading.get_ident()))
            row = tree.map_leaves(lambda leaf: _shown(next(it)) if isinstance(leaf, _Blank) else leaf, fixed)
            (to or print)(text.format(*row))

    collect.prints = True  # type: ignore[attr-defined]
    for t in tensors or [zeros((1,))]:
        executor.check(t, collect)


def _settled(x: Any) -> Any:
    """A number that stands for many in a trace, as the one of this call."""
    settle = getattr(type(x), "_settle", None)
    return x if settle is None else settle(x)


class _Blank:
    """Takes every format."""

    def __format__(self, spec: str) -> str:
        return ""


def _shown(array: Any) -> Any:
    return array.item() if array.size == 1 and array.ndim == 0 else array
