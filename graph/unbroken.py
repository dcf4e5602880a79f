"""A watch that outlasts the errors that end a trace: Python takes a trace function away that raises one, and what the
user's code does on the way out (`finally`, `with`) would not be seen, nor taken back."""

from __future__ import annotations

import sys
from types import FrameType
from typing import Any


def stay(tracer: Any, frame: FrameType) -> None:
    """The trace function is about to raise, at an event of this frame, and is to go on after that."""
    if sys.gettrace() is tracer:  # no debugger has taken over
        frame.f_trace = _Return(tracer, frame, frame.f_trace)


class _Return:
    """The trace function of a frame while an error is raised there. Python lets go of it once it has removed that of
    the thread: then both are put back."""

    def __init__(self, tracer: Any, frame: FrameType, local: Any):
        self.tracer, self.frame, self.local = tracer, frame, local

    def __call__(self, *_: Any) -> None:
        """Nothing runs before it goes."""

    def __del__(self) -> None:
        here = sys._getframe()
        here.f_trace_opcodes = True  # see `ReadRecorder.__enter__`
        sys.settrace(self.tracer)
        here.f_trace_opcodes = False
        self.frame.f_trace = self.local
