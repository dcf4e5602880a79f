"""`dg.print`: what a tensor holds, in both modes."""

from __future__ import annotations

import string
import threading
from collections.abc import Callable
from typing import Any

import numpy as np

from . import dispatch, tree
from .errors import ArgumentError
from .value import Tensor


def print_(text: str, *values: Any, to: Callable[[str], Any] | None = None, **named: Any) -> None:
    """Print `text.format(*values, **named)`; in graph mode at every call, with the values of that call.

    text: with `{}` for each value or `{name}`, as in `str.format` (formats such as `{:.3f}` are for 0-d tensors).
    values, named: tensors and anything else. to: gets the text in the place of `print`, a logger's `info` for example.
    Lines come in the order of the program; those of one call after it has been computed, before its effects.
    Raises: ArgumentError when text and values do not fit (a value that the text leaves out, too), TraceError inside the
    functions of `cond`, `while_loop` and `scan`. Numerics: values are as they are; the tape is not concerned.
    Example: `dg.print("loss {:.3f}", loss)`.
    """
    from .ops.creation import zeros

    try:
        _Strict().vformat(text, [*map(_like, values)], {k: _like(v) for k, v in named.items()})
    except (IndexError, KeyError, ValueError, TypeError, AttributeError) as e:
        given = ", ".join([*map(_word, values), *(f"{k}={_word(v)}" for k, v in named.items())])
        raise ArgumentError(
            "print", f"{text!r} does not fit {given or 'no values'}: {type(e).__name__}: {e}",
            "write one {} for each value; formats such as {:.3f} are for numbers and 0-d tensors",
        ) from None  # fmt: skip
    executor = dispatch.state.executor
    every = [*values, *named.values()]
    tensors = [v.detach() for v in tree.leaves(every) if isinstance(v, Tensor)]
    parts: dict[int, list[Any]] = {}  # by thread: a graph's lines are one object for all its calls
    fixed = [
        tree.map_leaves(lambda leaf: _Blank() if isinstance(leaf, Tensor) else _settled(leaf), v)
        for v in every
    ]

    def collect(array: Any) -> None:
        found = parts.setdefault(threading.get_ident(), [])
        found.append(array.copy())
        if len(found) == max(1, len(tensors)):
            it = iter(parts.pop(threading.get_ident()))
            row = tree.map_leaves(lambda leaf: _shown(next(it)) if isinstance(leaf, _Blank) else leaf, fixed)
            n = len(values)
            (to or print)(text.format(*row[:n], **dict(zip(named, row[n:]))))

    collect.prints = True  # type: ignore[attr-defined]
    for t in tensors or [zeros((1,))]:
        executor.check(t, collect)


def _settled(x: Any) -> Any:
    """A number that stands for many in a trace, as the one of this call."""
    settle = getattr(type(x), "_settle", None)
    return x if settle is None else settle(x)


class _Strict(string.Formatter):
    """As `str.format`, and nothing that is given may be missing in the text."""

    def check_unused_args(self, used_args: Any, args: Any, kwargs: Any) -> None:
        """Raises: ValueError for what the text leaves out."""
        for k, at in [*enumerate(("{}",) * len(args)), *((name, f"{{{name}}}") for name in kwargs)]:
            if k not in used_args:
                raise ValueError(f"the text has no {at} for {f'value {k + 1}' if isinstance(k, int) else k}")


class _Blank:
    """The place of a tensor."""


def _like(x: Any) -> Any:
    """What takes the formats that a value takes."""
    if not isinstance(x, Tensor):
        return x
    return _shown(np.zeros((0,) * x.ndim, x.dtype.np))


def _word(x: Any) -> str:
    return str(x.type) if isinstance(x, Tensor) else type(x).__name__


def _shown(array: Any) -> Any:
    return array.item() if array.size == 1 and array.ndim == 0 else array
