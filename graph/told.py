"""Calls whose callee cannot be worked out before: Python tells what is called when it happens.

What C code gives (`next(it).random()`, `max(clocks, key=rank)()`) lies on Python's stack, where no tracer can look. Up
to Python 3.11 a profile function hears of the one call that is waited for; from 3.12 on it would be heard too late, and
`sys.monitoring` tells of all calls of the code that is watched.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable
from types import CellType, CodeType, FrameType, FunctionType, MethodDescriptorType, MethodType
from typing import Any

from .opcodes import instruction_at

#: tools that `sys.monitoring` knows, those for other uses last
_TOOLS = (4, 3, 5, 2, 1, 0)

#: the first of each thread's
_outermost = threading.local()


class Told:
    """A context manager. `expect(frame)`: the instruction that this frame comes to calls something unknown.

    meet: gets what is called and the frame, before the call, and may raise.
    """

    def __init__(self, meet: Callable[[Any, FrameType], None]):
        self.meet = meet
        self._place: tuple[int, int] | None = None
        self._thread = threading.get_ident()
        self._profile: Any = None
        self._tool = -1
        self._codes: dict[int, CodeType] = {}
        self._missing: Any = None
        #: the one around it in this thread, whose tool it shares: events that are set anew for code that runs take
        #: those of its instructions away (Python 3.12.1)
        self._around: Told | None = None
        self._inside: list[Told] = []

    def __enter__(self) -> Told:
        if sys.version_info >= (3, 12):
            watch = sys.monitoring
            around = self._around = getattr(_outermost, "told", None)
            if around is not None:
                around._inside.append(self)
                self._missing = around._missing
                return self
            _outermost.told = self
            self._tool = next((n for n in _TOOLS if watch.get_tool(n) is None), -1)
            if self._tool >= 0:
                self._missing = watch.MISSING
                watch.use_tool_id(self._tool, "duograd")
                watch.register_callback(self._tool, watch.events.CALL, self._called)
        return self

    def __exit__(self, *_: object) -> None:
        self._place = None
        if self._profile is not None and sys.getprofile() is self._profile:
            sys.setprofile(None)
        if self._around is not None:
            self._around._inside.remove(self)
            self._around = None
        elif getattr(_outermost, "told", None) is self:
            _outermost.told = None
        if sys.version_info >= (3, 12) and self._tool >= 0:
            watch, tool, self._tool = sys.monitoring, self._tool, -1
            for code in self._codes.values():
                watch.set_local_events(tool, code, watch.events.NO_EVENTS)
            watch.register_callback(tool, watch.events.CALL, None)
            watch.free_tool_id(tool)
        self._codes = {}

    def watch(self, code: CodeType) -> None:
        """Calls of this code may be waited for."""
        if self._around is not None:
            self._around.watch(code)
        elif sys.version_info >= (3, 12) and self._tool >= 0 and id(code) not in self._codes:
            self._codes[id(code)] = code
            sys.monitoring.set_local_events(self._tool, code, sys.monitoring.events.CALL)

    def expect(self, frame: FrameType) -> None:
        self._place = id(frame), frame.f_lasti
        if sys.version_info < (3, 12) and sys.getprofile() is None:  # else somebody profiles
            self._profile = self._heard
            sys.setprofile(self._profile)

    def begins(self, frame: FrameType) -> None:
        """A function in Python that is not followed begins. It is met if a call that was waited for has led to it."""
        back = frame.f_back
        if self._place is None or back is None or self._place[0] != id(back):
            return
        if instruction_at(back.f_code, back.f_lasti) == self._place[1]:
            self._place = None
            self.meet(_function_of(frame), back)

    def _heard(self, frame: FrameType, event: str, called: Any) -> None:
        sys.setprofile(None)
        if event == "c_call" and self._place == (id(frame), frame.f_lasti):
            self._place = None
            self.meet(called, frame)

    def _called(self, code: CodeType, offset: int, called: Any, first: Any) -> None:
        for inner in self._inside[::-1]:
            inner._waits(offset, called, first)
        self._waits(offset, called, first)

    def _waits(self, offset: int, called: Any, first: Any) -> None:
        if self._place is None or self._place[1] != offset or threading.get_ident() != self._thread:
            return
        frame = sys._getframe(2)
        if self._place[0] == id(frame) and type(getattr(called, "__func__", called)) is not FunctionType:
            self._place = None
            method = isinstance(called, MethodDescriptorType) or type(called).__name__.startswith(
                "cython_function"
            )
            if method and first is not self._missing:  # and its object
                called = called.__get__(first, type(first))
            self.meet(called, frame)


def _function_of(frame: FrameType) -> Any:
    """A function, or a method of what is `self`, that stands for the one whose frame this is."""
    code = frame.f_code
    cells = tuple(CellType() for _ in code.co_freevars)
    made = FunctionType(code, frame.f_globals, code.co_name, None, cells)
    owner = frame.f_locals.get("self") if code.co_varnames[:1] == ("self",) else None
    return made if owner is None else MethodType(made, owner)
