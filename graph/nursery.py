"""What a trace makes: objects of the garbage collector's youngest generation, which rests while traces run.

Traces of several threads overlap, so the first one stops the collector and the last one lets it go on. A collection
that somebody asks for meanwhile moves what is young to another generation; what that is has been noted before.

No list of these objects may live while another thread runs: one that is in `tuple(...)` fails when its half-made
tuple is held elsewhere, too. So they are gone through by C code alone, which nothing interrupts.
"""

from __future__ import annotations

import gc
import threading
from collections.abc import Callable, Iterator
from itertools import chain, filterfalse
from types import CodeType, FunctionType
from typing import Any

from ..core import forks

_IS_TUPLE: Any = tuple.__instancecheck__  # type: ignore[attr-defined]
_IS_FUNCTION: Any = FunctionType.__instancecheck__  # type: ignore[attr-defined]
_lock = forks.lock()
_running: list[Nursery] = []
#: whether the collector was at work before the first of them
_collecting = False


def young_objects() -> Iterator[Any]:
    """The objects of the youngest generation, for code that is not interrupted; listed when the first is asked for."""
    return chain.from_iterable(map(gc.get_objects, (0,)))


def young_ids() -> set[int]:
    """The ids of the objects of the youngest generation."""
    return set(map(id, young_objects()))


def young_functions(code: CodeType) -> list[FunctionType]:
    """The functions of a code in the youngest generation."""
    return [f for f in filter(_IS_FUNCTION, young_objects()) if f.__code__ is code]


class Nursery:
    """`with Nursery() as nursery: ...; nursery.made()` is a test of whether an object was made inside.

    What other threads make meanwhile counts, too.
    """

    def __init__(self) -> None:
        self._before: list[Any] = []  # kept, so that no id is taken twice
        self._tuples: set[int] = set()  # ids of the tuples before, which may be half made
        self._moved: set[int] = set()
        self._thread = threading.get_ident()

    def __enter__(self) -> Nursery:
        global _collecting
        with _lock:
            alone = not _running
            if alone:
                _collecting = gc.isenabled()
                gc.disable()
            if _collecting:
                # Tracing makes many small objects that live on: collecting among them is wasted time.
                gc.collect(0)  # from here on the youngest generation is what the trace makes
            else:
                self._before = [*filterfalse(_IS_TUPLE, young_objects())]
                self._tuples = set(map(id, filter(_IS_TUPLE, young_objects())))
            if alone:
                gc.callbacks.append(_note)
            _running.append(self)
        return self

    def __exit__(self, *_: object) -> None:
        with _lock:
            _running.remove(self)
            self._before, self._moved, self._tuples = [], set(), set()
            if not _running:
                _rest()

    def made(self) -> Callable[[Any], bool]:
        """Whether an object was made between the beginning and now."""
        young = young_ids() | self._moved
        young.difference_update(map(id, self._before), self._tuples)
        return lambda x: id(x) in young or not gc.is_tracked(x)  # untracked: numbers and texts alone

    def has_made(self, x: Any) -> bool:
        """Whether one object was made between the beginning and now; False for what the collector does not follow."""
        return gc.is_tracked(x) and self.made()(x)


def _note(phase: str, info: dict[str, int]) -> None:
    """A collection begins: what was young is so no longer."""
    if phase == "start":
        found = young_ids()
        for nursery in _running:
            nursery._moved |= found


def _rest() -> None:
    """The last trace has ended."""
    gc.callbacks.remove(_note)
    if _collecting:
        _settle()
        gc.enable()


def _after_fork() -> None:
    """A child has only this thread's traces."""
    mine = [n for n in _running if n._thread == threading.get_ident()]
    if _running and not mine:
        _rest()
    _running[:] = mine


forks.after(_after_fork)


#: traces to come that leave their objects where they are
_unsettled = 0


def _settle() -> None:
    """Move the objects of a trace to the oldest generation: looking through them all costs as much as making them.

    Where somebody else keeps frozen objects, which would thaw, they stay. To count those takes long, so that many
    traces go by before they are counted again.
    """
    global _unsettled
    if _unsettled:
        _unsettled -= 1
    elif gc.get_freeze_count():
        _unsettled = 100
    else:
        gc.freeze()
        gc.unfreeze()
