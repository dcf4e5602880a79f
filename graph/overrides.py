"""`with dg.mode(...)`: the modes that are set from outside. A thread has its own."""

from __future__ import annotations

import threading

from ..core import forks


class _Modes(threading.local):
    """set: this thread's, innermost last."""

    set: tuple[str, ...] = ()


modes = _Modes()
#: those of all threads: while there is none, nobody has to ask for his own
active: list[str] = []


def push(name: str) -> None:
    active.append(name)
    modes.set = (*modes.set, name)


def pop() -> None:
    active.pop()
    modes.set = modes.set[:-1]


def _after_fork() -> None:
    """A child has only this thread."""
    active[:] = modes.set


forks.after(_after_fork)
