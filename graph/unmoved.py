"""Whether the functions of control ops change Python state: eager mode does that at every turn, which no graph can."""

from __future__ import annotations

import functools
import types
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from ..core import dispatch
from .reads import MUTABLE, contents_of, is_as, now_at
from .recorder import ReadRecorder
from .trace import Trace

#: how many functions deep containers are looked for that the traced function has made itself
_DEPTH = 6


@contextmanager
def watching(trace: Trace, recorder: ReadRecorder) -> Iterator[None]:
    """Leave a function to Python, while it is traced, whose control ops run functions that change what is outside."""

    def begin(functions: Sequence[Callable[..., Any]]) -> Callable[[str], None]:
        found, cells = _captured(functions)
        held = {id(x): (x, contents_of(x)) for x in found}
        held.update({id(x): (x, contents_of(x)) for x, _ in recorder.met()})
        changes, said = recorder.changes(), trace.said

        def end(name: str) -> None:
            held.update({id(x): (x, before) for x, before in recorder.met() if id(x) not in held})
            if (
                recorder.changes() != changes
                or trace.said != said
                or not all(is_as(x, before) for x, before in held.values())
                or any(now_at("cell", c, None) is not before for c, before in cells)
            ):
                trace.leave(
                    f"runs a function in {name} that changes Python state or prints, as eager mode does at every turn",
                    "return the values as rows of a scan, or in the carry",
                )

        return end

    before, dispatch.state.watch = dispatch.state.watch, begin
    try:
        yield
    finally:
        dispatch.state.watch = before


def _captured(functions: Sequence[Any]) -> tuple[list[Any], list[tuple[Any, Any]]]:
    """The containers in variables of outer functions that these functions see; and the cells of these variables, with
    what they hold."""
    found: dict[int, Any] = {}
    cells: list[tuple[Any, Any]] = []
    seen: set[int] = set()
    row = [(f, False) for f in functions]
    for _ in range(_DEPTH):
        rest: list[tuple[Any, bool]] = []
        for f, users in row:
            if id(f) in seen:
                continue
            seen.add(id(f))
            own, held = _held_by(f)
            inner = [*held, *(value for _, value in own)]
            if isinstance(f, (types.FunctionType, types.MethodType)):
                users = not (f.__module__ or "").startswith("duograd.core")
            rest += [(x, users) for x in inner]
            if users:
                cells += own
                found.update({id(x): x for x in inner if isinstance(x, MUTABLE)})
        row = rest
    return list(found.values()), cells


def _held_by(f: Any) -> tuple[list[tuple[Any, Any]], list[Any]]:
    """What a function leads to, or a tuple that may hold some: by its cells, and otherwise."""
    if isinstance(f, functools.partial):
        return [], [f.func, *f.args, *f.keywords.values()]
    if isinstance(f, tuple):
        return [], list(f)
    f = getattr(f, "__func__", f)
    if not isinstance(f, types.FunctionType):
        return [], []
    return [(c, now_at("cell", c, None)) for c in f.__closure__ or ()], [*(f.__defaults__ or ())]
