"""What a program tells while it runs, by topic: `DUOGRAD_SHOW=retrace,nan`, `with dg.show("fusion"): ...`."""

from __future__ import annotations

import os
import sys
import threading
from typing import Any

from . import dispatch
from .errors import ArgumentError, FlagError

#: what may be shown
TOPICS = {
    "fusion": "what every graph became when it was compiled: kernels, bytes, what was not fused and why",
    "graph": "every graph, as it was traced and after the passes",
    "nan": "the ops that make a NaN of numbers",
    "retrace": "every variant that is traced, and every function that is left to Python, and why",
    "source": "the source of every kernel of a graph",
    "timing": "how long every variant took to trace and to compile",
}


class _Shown(threading.local):
    """topics: of the contexts that this thread is in."""

    topics: tuple[str, ...] = ()


_shown = _Shown()
#: the context of a whole program, which would end with its last reference
_kept: list[Any] = []


def _from_environment() -> tuple[str, ...]:
    given = os.environ.get("DUOGRAD_SHOW")
    if not given:
        return ()
    found = tuple(x.strip() for x in given.split(",") if x.strip())
    for x in found:
        if x not in TOPICS:
            raise FlagError("DUOGRAD_SHOW", f"{x!r} is nothing to show", f"use some of {', '.join(TOPICS)}")
    return found


def shown() -> tuple[str, ...]:
    """The topics that are shown here. Raises: FlagError for one in `DUOGRAD_SHOW` that there is not."""
    return (*_shown.topics, *_from_environment())


def tell(topic: str, text: str) -> None:
    """Print a line, if that is a topic here."""
    if topic in shown():
        print(f"{topic}: {text}", file=sys.stderr)


class show:
    """`with dg.show("retrace", "nan"): ...`: print what happens inside, in this thread, to standard error.

    topics: `fusion`, `graph`, `source`: of every graph that is compiled; `retrace`: every variant that is traced and
    why, and what is left to Python; `timing`: how long that took; `nan`: every op that makes a NaN of numbers, forward
    and back, with its line (ops run one by one then, functions in graph mode too). `DUOGRAD_SHOW=retrace,nan` shows
    them all through a program (`nan`: in the thread that imports duograd).
    Raises: ArgumentError for another topic.
    Example: `with dg.show("retrace"): step(x, y)`.
    """

    def __init__(self, *topics: str):
        for x in topics:
            if x not in TOPICS:
                raise ArgumentError("show", f"{x!r} is nothing to show", f"use some of {', '.join(TOPICS)}")
        self.topics = topics
        self._inside: list[tuple[tuple[str, ...], Any]] = []

    def __enter__(self) -> show:
        watch = watching(False) if "nan" in self.topics else None
        self._inside.append((_shown.topics, watch))
        _shown.topics = (*_shown.topics, *self.topics)
        if watch is not None:
            watch.__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        _shown.topics, watch = self._inside.pop()
        if watch is not None:
            watch.__exit__(*error)


def watching(raises: bool) -> Any:
    """A context in which ops that make a NaN are told of, or are errors."""
    from .numerics import Watching

    return dispatch.executing(Watching(dispatch.state.executor, raises), dispatch.state.keeps)


def begin() -> None:
    """What `DUOGRAD_SHOW` asks for from the start, in this thread."""
    if "nan" in _from_environment():
        _kept.append(watching(False))
        _kept[0].__enter__()
