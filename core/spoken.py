"""Calls that do not fit: other libraries' names for arguments, and how it is said here."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

from .errors import ArgumentTypeError, DuogradError

#: other libraries' words for an argument, where the meaning is the same (or the remark says what differs)
WORDS = {
    "dim": "axis",
    "dims": "axis",
    "keepdim": "keepdims",
    "input": "x",
    "other": "y",
    "diagonal": "k",
    "unbiased": "correction",
    "ddof": "correction",
    "fill_value": "value",
    "a": "x",
    "a_min": "min",
    "a_max": "max",
    "size": "shape",
    "num_samples": "count",
    "repeats": "reps",
    "src": "source",
    "steps": "num",
}


def translated(key: str, names: tuple[str, ...]) -> str:
    """`write axis= for dim=; ` where a function with these names calls `key` so; else nothing."""
    word = WORDS.get(key)
    return f"write {word}= for {key}=; " if word in names else ""


def spoken(name: str, fn: Callable[..., Any]) -> Callable[..., Any]:
    """A plain function whose calls with wrong arguments raise ArgumentTypeError, with the words it knows."""

    @functools.wraps(fn)
    def call(*args: Any, **kwargs: Any) -> Any:
        try:
            return fn(*args, **kwargs)
        except TypeError as e:
            # A call that does not fit never gets a frame of its own.
            if isinstance(e, DuogradError) or (e.__traceback__ and e.__traceback__.tb_next):
                raise
            raise _refusal(name, fn, kwargs, e) from None

    return call


def _refusal(name: str, fn: Callable[..., Any], kwargs: dict[str, Any], e: TypeError) -> ArgumentTypeError:
    code: Any = fn.__code__  # type: ignore[attr-defined]
    names = code.co_varnames[: code.co_argcount + code.co_kwonlyargcount]
    usage = f"it takes {name}({', '.join(names)})"
    for key in kwargs:
        if key not in names:
            return ArgumentTypeError(
                name, f"got {key}= but takes no such argument", translated(key, names) + usage
            )
    return ArgumentTypeError(name, str(e).partition("() ")[2] or str(e), usage)
