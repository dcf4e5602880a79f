"""Whose turn it is to trace a function: one thread at a time."""

from __future__ import annotations

import threading

from ..core import forks


class _Turns(threading.local):
    """For each turn that this thread has, innermost last: whether it got the lock."""

    got: tuple[bool, ...] = ()


_turns = _Turns()


class Turn:
    """One thread traces a function at a time; the others wait and look again.

    A thread that traces already (a function called from one that it traces) does not wait: two such threads could
    wait for each other. Then both trace, and the work of one is wasted.
    """

    def __init__(self) -> None:
        self._lock = forks.lock()

    def __enter__(self) -> None:
        turns = _turns.got
        _turns.got = (*turns, self._lock.acquire(blocking=not turns))

    def __exit__(self, *_: object) -> None:
        *rest, got = _turns.got
        _turns.got = tuple(rest)
        if got:
            self._lock.release()
