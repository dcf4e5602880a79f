"""Locks that outlive a fork: a child has none of its parent's other threads, so what these held is free in it."""

from __future__ import annotations

import os
import threading
import weakref
from collections.abc import Callable
from typing import Any

_locks: weakref.WeakSet[Any] = weakref.WeakSet()


def lock() -> Any:
    """A re-entrant lock. A fork by the thread that holds it leaves it held; one by any other thread frees it."""
    made = threading.RLock()
    _locks.add(made)
    return made


def after(action: Callable[[], None]) -> None:
    """Do something in every child, where the platform can fork."""
    if hasattr(os, "register_at_fork"):
        os.register_at_fork(after_in_child=action)


def _free() -> None:
    for made in list(_locks):
        if not made._is_owned():
            made._at_fork_reinit()


after(_free)
