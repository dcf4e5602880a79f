"""Gradient recording on and off: context managers that are decorators too."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, TypeVar

from . import dispatch

F = TypeVar("F", bound=Callable[..., Any])


class _GradSetting:
    """`with dg.no_grad(): ...` or `@dg.no_grad()`. Each `with` remembers what it found, so they nest."""

    value = False

    def __init__(self) -> None:
        self._before: list[bool] = []

    def __enter__(self) -> None:
        self._before.append(dispatch.state.grad)
        dispatch.state.grad = self.value

    def __exit__(self, *_: object) -> None:
        dispatch.state.grad = self._before.pop()

    def __call__(self, fn: F) -> F:
        @functools.wraps(fn)
        def wrapped(*args: Any, **kwargs: Any) -> Any:
            with type(self)():
                return fn(*args, **kwargs)

        return wrapped  # type: ignore[return-value]


class no_grad(_GradSetting):
    """Do not record gradients inside: less memory, and leaves may be changed in place."""

    value = False


class enable_grad(_GradSetting):
    """Record gradients inside, also within `no_grad`."""

    value = True


class set_grad_enabled(_GradSetting):
    """Record gradients or not from here on; as a context manager or decorator, inside only."""

    def __init__(self, mode: bool) -> None:
        super().__init__()
        self.value = bool(mode)
        self._before.append(dispatch.state.grad)
        dispatch.state.grad = self.value

    def __enter__(self) -> None:
        if not self._before:
            super().__enter__()

    def __call__(self, fn: F) -> F:
        dispatch.state.grad = self._before.pop()

        @functools.wraps(fn)
        def wrapped(*args: Any, **kwargs: Any) -> Any:
            with type(self)(self.value):
                return fn(*args, **kwargs)

        return wrapped  # type: ignore[return-value]


def is_grad_enabled() -> bool:
    """Whether ops are recorded at this point."""
    return dispatch.state.grad
