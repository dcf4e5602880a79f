"""A function whose results Python keeps (`functools.lru_cache`) runs at once within a trace, for they outlive it.

Where it changes something besides, finds a tensor of the call, or its cache would drop another result, this run is
taken back, and the function that is traced is left to Python: a later call may find the result.
"""

from __future__ import annotations

from types import FrameType
from typing import TYPE_CHECKING, Any

from ..core import dispatch
from ..core.errors import TraceError
from ..core.op import Attrs, Op
from .caches import is_full
from .ledger import Leave, Ledger
from .live import is_live
from .plain import elements
from .reads import CONTAINERS
from .recorder import ReadRecorder
from .repeat import Quiet
from .spoken import Asked, Record, Text
from .symbol import Symbol

if TYPE_CHECKING:
    from .trace import Trace

#: how many later calls may try again in vain
CHANCES = 16


class _Eager(Quiet):
    """The host executor, which knows what it changes."""

    def __init__(self, trace: Trace):
        super().__init__(trace.host)
        self.runs_aside = trace.runs_aside
        #: storages that hold what was there before the function changed it, and whether one was asked for
        self._before = {id(trace.roots[k]._storage) for k in trace.written if k in trace.roots}
        self.found_old = False

    def run(self, op: Op, inputs: tuple[Any, ...], attrs: Attrs, into: Any = None) -> tuple[Any, ...]:
        for x in inputs:
            self._look(x)
        return super().run(op, inputs, attrs, into)

    def read(self, x: Any) -> Any:
        self._look(x)
        return self.host.read(x)

    def _look(self, x: Any) -> None:
        self.found_old |= bool(self._before) and id(getattr(x, "_storage", None)) in self._before

    @property
    def changed(self) -> bool:
        return bool(self._log)

    def before_asking(self, x: Any) -> None:
        before = x._requires_grad
        self._log.append(lambda: setattr(x, "_requires_grad", before))

    def offset(self, generator: Any, count: int) -> Any:
        self._draws(generator)
        return self.host.offset(generator, count)

    def set_random_state(self, generator: Any, state: Any) -> None:
        self._draws(generator)
        self.host.set_random_state(generator, state)

    def _draws(self, generator: Any) -> None:
        state = generator.get_state()
        self._log.append(lambda: generator.set_state(state))


class Aside:
    """One run of such a function. ledger: that of the trace, or of another such function that calls it."""

    def __init__(self, trace: Trace, cached: Any, ledger: Ledger):
        self.trace, self.cached, self.above = trace, cached, trace.aside
        self.said: list[Any] = []
        self._executor = _Eager(trace)
        self._recorder = ReadRecorder(cached.__wrapped__)
        #: what is put back around it
        self.places, self.containers = {*ledger.written}, {*ledger.states}
        if self.above is not None:
            self.places |= self.above.places
            self.containers |= self.above.containers
        self._running = dispatch.executing(self._executor)

    def begin(self, frame: FrameType) -> Any:
        """Begin, at the event of a trace function where the function does; returns what watches its frame."""
        self.trace.aside = self
        self._running.__enter__()
        self._recorder.__enter__()
        return self._recorder.take(frame)

    def take(self, what: Any) -> bool:
        """What it says waits for its end."""
        if what.__class__ is not Asked:
            self.said.append(Record(*what) if isinstance(what, tuple) else Text([what]))
        return what.__class__ is not Asked

    def end(self, result: Any) -> None:
        """It has given this, or raised. Raises Leave where the cache must not keep it."""
        trace, recorder = self.trace, self._recorder
        recorder.leave_off()
        self._running.__exit__(None, None, None)
        trace.aside = self.above
        found = trace.left is not None or self._executor.found_old or _has_tensor(result)
        full = is_full(self.cached)
        changed = self._executor.changed or self.said or recorder.effects or recorder.lost or full
        blind = self.is_blind
        if not found and (not changed or blind):
            for say in self.said:
                say()
            return
        trace.asides.append(self)
        trace.chances = CHANCES
        what = "a tensor that it has changed" if self._executor.found_old else "a tensor of its call"
        if blind and trace.lasting is None:
            trace.lasting = TraceError(
                trace.graph.name,
                f"finds {what} in {self.cached.__name__}, whose results are cached, and which does what cannot be "
                "taken back",
                "pass the tensor as an argument, or call it outside first",
            )
        if trace.left is not None:
            raise Leave
        if self._executor.found_old:
            trace.leave(
                "changes a tensor that a function finds whose results are cached", "change it after the call"
            )
        if found:
            trace.leave(
                "finds a tensor of its call in a function whose results are cached", "pass it as an argument"
            )
        if full:  # should the trace come to nothing, it would miss what is dropped
            trace.leave(
                "runs a function whose cache is full, and drops a result for that of this call",
                "give it more room (maxsize=)",
            )
        trace.leave(
            "runs a function whose results are cached, and which does more than give one",
            "call it outside first",
        )

    @property
    def is_blind(self) -> bool:
        """Whether something was done, in it or around it, that cannot be taken back."""
        return self._recorder.is_blind or (self.above is not None and self.above.is_blind)

    def undo(self) -> None:
        """Take it back, after what is around it has put back what it changed itself."""
        self._executor.undo()
        for e in reversed(self._recorder.effects + self._recorder.lost):
            met = id(e.owner) in self.containers  # as a whole it is put back to what it was then
            if met:
                e.whole = None
            if not (met if e.kind in ("content", "extend") else (e.kind, id(e.owner), e.key) in self.places):
                e.undo()


def _has_tensor(x: Any, depth: int = 3) -> bool:
    """Whether a result is, or a container in it holds, a tensor of the trace or a live number."""
    if x.__class__ is Symbol or is_live(x):
        return True
    if not depth or not isinstance(x, CONTAINERS):
        return False
    inside = dict.values(x) if isinstance(x, dict) else elements(x)
    return any(_has_tensor(y, depth - 1) for y in inside)
