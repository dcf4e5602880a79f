"""Arenas: the temporary memory of graph calls, shared by all graphs of a device.

A call borrows one arena and gives it back, so that variants, functions, training and evaluation use the same
memory one after the other; calls that run at once have one each. What no living graph could use is freed.
"""

from __future__ import annotations

from typing import Any

from ..core import forks
from ..core.backend import get_backend

#: arenas that wait for a call, at most
KEPT = 8


class Arenas:
    """The arenas of a device. Counters change under a lock; the common way, the arena used last, needs none."""

    def __init__(self, device: str):
        backend = get_backend(device)
        # Arenas wait here, so they need no class of sizes with room to spare.
        self._empty = getattr(backend, "exact", backend.empty)
        self._free: list[Any] = []
        self._needs: dict[int, int] = {}
        self._lock = forks.lock()  # a need may end in the garbage collector, inside a method here

    def take(self, nbytes: int) -> Any:
        """An arena of at least `nbytes`, the caller's own until it is given back."""
        try:
            arena = self._free.pop()
        except IndexError:
            return self._empty(nbytes)
        return arena if arena.nbytes >= nbytes else self._other(arena, nbytes)

    def give(self, arena: Any) -> None:
        """Give an arena back."""
        self._free.append(arena)
        if len(self._free) > KEPT:
            with self._lock:
                self._free.extend(self._drain()[-KEPT:])

    def _drain(self) -> list[Any]:
        """All arenas that wait, by size, one by one: other threads take some at the same time."""
        found = []
        while True:
            try:
                found.append(self._free.pop())
            except IndexError:
                return sorted(found, key=_size)

    def _other(self, arena: Any, nbytes: int) -> Any:
        """The smallest arena that is large enough; else a new one in place of the largest that waits."""
        with self._lock:
            waiting = sorted([arena, *self._drain()], key=_size)
            k = next((k for k, a in enumerate(waiting) if a.nbytes >= nbytes), -1)
            found = waiting.pop(k) if k >= 0 else None
            self._free.extend(waiting if k >= 0 else waiting[:-1])
        return self._empty(nbytes) if found is None else found

    def free(self) -> None:
        """Free what waits: the next call makes an arena anew."""
        with self._lock:
            self._drain()

    def add_need(self, nbytes: int) -> None:
        with self._lock:
            self._needs[nbytes] = self._needs.get(nbytes, 0) + 1

    def end_need(self, nbytes: int) -> None:
        """A graph is gone: free what is larger than any other could use."""
        with self._lock:
            self._needs[nbytes] -= 1
            if not self._needs[nbytes]:
                del self._needs[nbytes]
            largest = max(self._needs, default=0)
            if any(a.nbytes > largest for a in tuple(self._free)):
                self._free.extend([a for a in self._drain() if a.nbytes <= largest])


class Need:
    """A graph's claim: `take` and `give` arenas of its size for as long as it lives."""

    __slots__ = ("_arenas", "give", "nbytes")

    def __init__(self, device: str, nbytes: int):
        found = _arenas.get(device)
        if found is None:
            found = _arenas.setdefault(device, Arenas(device))
        self._arenas, self.nbytes, self.give = found, nbytes, found.give
        found.add_need(nbytes)

    def take(self) -> Any:
        return self._arenas.take(self.nbytes)

    def __del__(self) -> None:
        self._arenas.end_need(self.nbytes)


_arenas: dict[str, Arenas] = {}


def free() -> None:
    """Free the arenas of all devices that wait for a call."""
    for arenas in tuple(_arenas.values()):
        arenas.free()


def _size(arena: Any) -> int:
    return int(arena.nbytes)
