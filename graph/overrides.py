"""Modes that are set from outside: `DUOGRAD_MODE` for a whole run, `with dg.mode(...)` for what a thread runs in it."""

from __future__ import annotations

import os
import threading

from ..core import forks
from ..core.errors import ArgumentError, FlagError

MODES = ("graph", "eager")


def _environment_mode() -> str | None:
    value = os.environ.get("DUOGRAD_MODE")
    if value is not None and value not in MODES:
        raise FlagError("DUOGRAD_MODE", f"{value!r} is not a mode", f"use one of {', '.join(MODES)}")
    return value


#: DUOGRAD_MODE, if it is set
environment = _environment_mode()


class _Modes(threading.local):
    """set: this thread's, innermost last."""

    set: tuple[str, ...] = ()


modes = _Modes()
#: those of all threads: while there is none, nobody has to ask for his own
active: list[str] = []


class mode:
    """`with dg.mode("eager"): ...`: every `@dg.function` called inside, by this thread, runs in that mode."""

    def __init__(self, name: str):
        if name not in MODES:
            raise ArgumentError("mode", f"{name!r} is not a mode", f"use one of {', '.join(MODES)}")
        self.name = name

    def __enter__(self) -> None:
        active.append(self.name)
        modes.set = (*modes.set, self.name)

    def __exit__(self, *_: object) -> None:
        active.pop()
        modes.set = modes.set[:-1]


def _after_fork() -> None:
    """A child has only this thread."""
    active[:] = modes.set


forks.after(_after_fork)
