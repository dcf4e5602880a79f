"""The parameters of a function, read from its code object: `inspect.signature` costs too much at import."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any, NamedTuple


class Parameters(NamedTuple):
    """Names and defaults. positional: before `*`; rest: the name after `*`, or ""; keyword: keyword-only."""

    positional: tuple[str, ...]
    rest: str
    keyword: tuple[str, ...]
    defaults: dict[str, Any]

    @property
    def names(self) -> tuple[str, ...]:
        """All names, in the order of the declaration."""
        return (*self.positional, *((self.rest,) if self.rest else ()), *self.keyword)


def parameters(fn: Callable[..., Any]) -> Parameters:
    """The parameters of a plain function."""
    code = fn.__code__
    n, k = code.co_argcount, code.co_kwonlyargcount
    names = code.co_varnames
    given = fn.__defaults__ or ()
    defaults = dict(zip(names[n - len(given) : n], given), **(fn.__kwdefaults__ or {}))
    rest = names[n + k] if code.co_flags & inspect.CO_VARARGS else ""
    return Parameters(names[:n], rest, names[n : n + k], defaults)
