"""What Numba knows of operations: the signature of a call by argument types, and the code of it, asked once each."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

from numba.core import callconv, types
from numba.extending import _Intrinsic

from .syntax_templates import Templates


class Unsupported(Exception):
    """The source is not for this way."""


class Operations:
    """What Numba knows of operations: signature and code by function and argument types, asked once each."""

    def __init__(self, typing: Any, target: Any):
        self.typing = typing
        model = callconv.create_error_model("numpy", target)
        self.context = target.subtarget(error_model=model)
        self._known: dict[Any, tuple[Any, Callable[..., Any]]] = {}
        self.templates = Templates()

    def find(self, function: Any, arguments: tuple[Any, ...]) -> tuple[Any, Callable[..., Any]]:
        """The signature of a call and a function (builder, values) that emits it."""
        key = function, arguments
        try:
            found = self._known.get(key)
        except TypeError:  # not hashable
            raise Unsupported(repr(function)) from None
        if found is None:
            found = self._known[key] = self._look_up(function, arguments)
        return found

    def _look_up(self, function: Any, arguments: tuple[Any, ...]) -> tuple[Any, Callable[..., Any]]:
        if isinstance(function, _Intrinsic):
            return self._intrinsic(function, arguments)
        # Functions of the language that were declared since the last look.
        self.typing.refresh()
        self.context.refresh()
        try:
            kind = self.typing.resolve_value_type(function)
        except ValueError as error:
            raise Unsupported(f"{function!r}: {error}") from None
        if kind is None:
            raise Unsupported(f"{function!r} means nothing to Numba")
        found = self.typing.resolve_function_type(kind, arguments, {})
        if found is None:
            raise Unsupported(f"{function!r} does not take {arguments}")
        return found, self.context.get_function(kind, found)

    def _intrinsic(self, function: Any, arguments: tuple[Any, ...]) -> tuple[Any, Callable[..., Any]]:
        plain = tuple(map(types.unliteral, arguments))
        literal_first = function._prefer_literal
        for choice in (arguments, plain) if literal_first else (plain, arguments):
            made = function._defn(self.typing, *choice)
            if made is not None:
                return made[0], functools.partial(_emit, made[1], self.context, made[0])
        raise Unsupported(f"{function!r} does not take {arguments}")


def _emit(code: Callable[..., Any], context: Any, found: Any, builder: Any, values: list[Any]) -> Any:
    return code(context, builder, found, values)
