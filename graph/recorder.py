"""Recording what a function reads from outside while it is traced, and what it changes there.

`with ReadRecorder() as r: fn(...)` watches the bytecode of user code (and of layers, optimisers and loaded
models) through `sys.settrace` and lists in `r.reads` every Python value that came from outside: globals,
closure cells, attributes, items and contents of containers, default arguments, absent names too. Values
made by the function itself are no reads; a value that it reads and then changes is recorded as first read.
`r.effects` lists what it changed. Tensors and modules on the way are guarded by identity; NumPy arrays by
their elements up to 4 KiB, and a larger writable one is an error, because it could change unseen.

What is not seen:

- what C extensions read by themselves;
- containers in objects that only C code handed out; objects themselves are seen;
- clocks, random numbers, files: calls known to give another value each time are noted for `explain()`;
- the inside of NumPy, torch and other large packages, and of most of the standard library;
- methods of classes of installed packages that are replaced;
- anything after `breakpoint()`: a debugger takes the thread's tracer over, so that variant is used once.

A tracer installed before (a debugger, a coverage tool in Python) is called along; one written in C, as
coverage has, rests during the trace. A followed instruction costs about 1 us, a call inside the framework
0.2 us.
"""

from __future__ import annotations

import inspect
import operator
import sys
import types
from collections.abc import Iterable
from types import CodeType, FrameType
from typing import Any

from ..core import dispatch
from ..core.errors import is_internal, user_frame
from ..core.value import Tensor
from . import rest
from .arguments import is_record, record_names
from .balance import close
from .bytecode import analyse
from .calls import CallReader
from .evaluate import Results
from .functions import caller
from .ledger import Found, Leave, Ledger
from .live import RestartError, is_live
from .live_uses import names_live
from .lookup import follows, forget_classes, leads
from .opcodes import instruction_at, mixes_up
from .plain import brief
from .reads import CONTAINERS, Effect, Read
from .symbol import Symbol
from .unbroken import stay

_LOCALS = operator.attrgetter("f_locals")
#: flags of code that gives back more than once
_RESTING = inspect.CO_GENERATOR | inspect.CO_COROUTINE | inspect.CO_ASYNC_GENERATOR
#: from Python 3.13 on a frame gives its instructions to a trace function that it has when they are asked for
_ASKED_BY_BOTH = sys.version_info >= (3, 13)


class ReadRecorder:
    """Records reads and effects of the code that runs inside its `with` block, in this thread.

    function: what will be traced, when known; saves a search for its closure. made: ids of the containers among the
    arguments; apart: ids of those of the call that they stand for; live: whether there are live numbers; known: objects
    from outside that the code has got hold of before. reads, effects: filled when the block ends, effects also when it
    ends with an error.
    """

    def __init__(
        self, function: Any = None, made: Iterable[int] = (), apart: Iterable[int] = (), live: bool = False,
        known: Iterable[Any] = (),
    ) -> None:  # fmt: skip
        self.reads: list[Read] = []
        self.effects: list[Effect] = []
        self._lost: list[Effect] = []
        #: ids of objects of which it asked whether they are some other one
        self.compared: set[int] = set()
        self.looked_up: list[tuple[Any, tuple[Any, ...]]] = []
        #: what it did that no trace can hold, and what to do instead
        self.odd: tuple[str, str] | None = None
        self.asked = False
        #: ids of containers that something immutable leads to
        self.linked: set[int] = set()
        #: by id, the objects that were there before and that the function got hold of
        self.outside: dict[int, Any] = {}
        self._ledger = Ledger()
        self._draws = self._ledger.draws
        #: the name of a generator, not of ours, that it has drawn random numbers from
        self.drew: str | None = None
        self._ledger.made, self._ledger.apart = set(made), frozenset(apart)
        self._results: Results = {}
        self._tracers: dict[int, Any] = {}  # id of a code -> its local tracer, or False
        self._reader = CallReader(self._ledger, self._results, self._tracers, live)
        self._reader.actions["drop"] = _drop
        self._codes: list[CodeType] = []
        self._wanted: dict[int, dict[int, int]] = {}
        self._reader.root, self._rooted = function, False
        #: a function runs at once, and is not watched
        self._aside = False
        self._old: Any = None
        self._tracer: Any = None
        #: the frame that calls what is traced
        self._home: FrameType | None = None
        self.restable: Any = None
        if function is not None:
            self._ledger.learn(function, getattr(function, "__name__", "self"), True)
        for x in known:
            self._ledger.learn(x, type(x).__name__, True)

    def meet(self, tensor: Any) -> None:
        """The code got hold of a tensor from outside, whose hooks it may run."""
        for hook in tensor._hooks or ():
            self._ledger.hooks.add(id(hook))
            for x in (hook, type(hook).__call__):
                self._ledger.learn(x, f"a hook of {tensor.type}", True)

    # -- installing -----------------------------------------------------------------------------

    def __enter__(self) -> ReadRecorder:
        self._old, self._home = sys.gettrace(), sys._getframe(1)
        self._ledger.until = self._home.f_code
        self._draws.begin()
        # A C tracer that is called by hand takes the thread back, so only Python tracers are called along.
        chained = self._old if isinstance(self._old, (types.FunctionType, types.MethodType)) else None
        tracers, start, asked = self._tracers, self._start, self._reader.is_asked_for
        told = self._reader.told.__enter__()
        if self._reader.root is not None:
            self._reader.will_call(self._reader.root, user_frame(2) or sys._getframe())

        def tracer(frame: FrameType, event: str, arg: Any) -> Any:
            try:
                if self._aside:
                    return None
                if self._reader.cached or self._ledger.handed_on:
                    end = self._begins_aside(frame)
                    if end is not None:
                        return end
                local = tracers.get(id(frame.f_code))
                if local is None:
                    if frame.f_code.co_name == "<module>" and is_imported(frame.f_globals):
                        return self._imports(frame)
                    local = tracers[id(frame.f_code)] = self._tracer_of(frame)
                if local is False or (
                    local.called and not (self._is_led(caller(frame), local.called) or asked(frame))
                ):
                    told.begins(frame)
                    return self._end_of(frame) if chained is None else chained(frame, event, arg)
                start(frame)
                frame.f_trace_opcodes = True
                if _ASKED_BY_BOTH:
                    frame.f_trace = local
                other = None if chained is None else chained(frame, event, arg)
                if other is None:
                    frame.f_trace_lines = False
                    return local
                return _both(local, other)
            except Exception:
                raise
            except BaseException:  # what ends a trace
                stay(self._tracer, frame)
                raise

        self._tracer = tracer
        # Python 3.12 looks at this flag when a tracer is installed, and needs one frame that has it.
        here = sys._getframe()
        here.f_trace_opcodes = True
        sys.settrace(tracer)
        here.f_trace_opcodes = False
        #: the tracer, where switching it off inside the framework's own code pays and bothers nobody
        self.restable = tracer if rest.PAYS and self._old is None else None
        return self

    def __exit__(self, kind: Any, value: Any, trace: Any) -> None:
        lost = sys.gettrace() is not self._tracer and kind is not Found
        if not lost:
            sys.settrace(self._old)
        self._reader.told.__exit__()
        self._reader.standing.take()
        ledger, self._ledger = self._ledger, Ledger()
        self._ledger.found = ledger.found
        self.compared, self.linked, self.asked = ledger.compared, ledger.linked, ledger.asked
        self.looked_up = ledger.looked_up
        forget_classes()
        self._results.clear()
        self._tracers.clear()
        self._reader.actions.clear()
        self._reader.root = None
        self._old = self._tracer = self.restable = self._home = None
        self.reads, self.effects, self._lost = close(ledger)
        self.drew = self._draws.changed()
        self.odd = ledger.odd
        if self.drew is not None and self.odd is None:
            self.odd = (
                f"draws random numbers of {self.drew}, which would stand still in the graph",
                "draw them outside, or use dg.rand, dg.randn, ...",
            )
        self.outside = {key: ledger.objects[key] for key in ledger.outside if key in ledger.objects}
        if kind is None and (lost or ledger.gave_way):
            why = "another tracer (a debugger) took over during the trace, so it is used once"
            self.reads.append(Read("never", None, None, why, "tracer", None))

    def undo(self) -> None:
        """Put back what the function changed."""
        for effect in reversed(self.effects + self._lost):
            effect.undo()
        self._draws.undo()

    @property
    def found(self) -> bool:
        """Whether the function got hold, by itself, of what containers of the trace's own stand for."""
        return self._ledger.found > 0

    def is_watched_elsewhere(self) -> bool:
        """Whether another tracer has taken over: a debugger."""
        return sys.gettrace() not in (None, self._tracer)

    def has_changed(self, owner: dict[str, Any], key: str) -> bool:
        """Whether the function has changed an item of a dict since it began."""
        return self._ledger.has_changed(owner, key)

    def changes(self) -> int:
        """How often the function has changed what is outside, as far as that is seen when it happens."""
        return self._ledger.changes

    def met(self) -> list[tuple[Any, Any]]:
        """The containers from outside that the function has met, and what they held then."""
        objects = self._ledger.objects
        return [(objects[k], held) for k, held in self._ledger.states.items() if k in objects]

    def asks(self, logger: Any, level: int, answer: bool) -> None:
        """A logger was asked whether it says anything of a level."""
        self._ledger.read_level(logger, level, answer)

    def _begins_aside(self, frame: FrameType) -> Any:
        """Where a function begins whose results a cache from outside keeps: what watches for its end."""
        caller, code = id(frame.f_back), frame.f_code
        executor: Any = dispatch.state.executor
        while executor is not None and not hasattr(executor, "runs_aside"):
            # The trace behind `vmap`, or behind the look at a loop's body.
            executor = getattr(executor, "outer", None) or getattr(executor, "outside", None)
        cached = self._reader.cached.get(caller)
        if cached is not None and getattr(cached.__wrapped__, "__code__", None) is code:
            del self._reader.cached[caller]
        else:  # `__hash__` of an argument, or C code that was given one calls it
            cached = (
                self._ledger.handed_on.get(id(code)) if self._ledger.direct != (caller, id(code)) else None
            )
        if cached is None or executor is None:
            return None
        if any(isinstance(x, Symbol) for x in frame.f_locals.values()):
            return None
        if any(map(is_live, frame.f_locals.values())):
            raise RestartError  # the cache would keep it
        self._aside, frame.f_trace_lines = True, False
        aside = executor.runs_aside(cached, self._ledger)
        inside = aside.begin(frame)

        over = False

        def local(frame: FrameType, event: str, arg: Any) -> Any:
            nonlocal over
            if over:  # Python 3.12 tells of what is raised at its end, and of its end again
                return None
            if inside is not None:
                inside(frame, event, arg)
            if event == "return":
                self._aside, over = False, True
                try:
                    aside.end(arg)
                except Leave:
                    stay(self._tracer, frame)
                    raise
            return local

        return local

    def _imports(self, frame: FrameType) -> Any:
        """A module's own code begins, as it does once in a process: what it sets is there from then on, and is nothing
        that a call does. Modules of the framework, and those that are not followed, hold nothing of a call's."""
        name = frame.f_globals["__name__"]
        if not is_internal(frame.f_code) and follows(frame.f_code, frame.f_globals) != "never":
            dispatch.outside(f"imports {name} for the first time", "import it before the call", once=True)
        self._aside, frame.f_trace_lines = True, False

        def local(frame: FrameType, event: str, arg: Any) -> Any:
            if event == "return":
                self._aside = False
            return local

        return local

    def take(self, frame: FrameType) -> Any:
        """Watch a frame that begins, from within a trace function; what this is for it."""
        self._ledger.until = None  # nothing is refused here before it is done
        return self._tracer(frame, "call", None)

    def leave_off(self) -> None:
        """End the watch in a trace function, whatever was seen."""
        self.__exit__(Exception, None, None)

    @property
    def lost(self) -> list[Effect]:
        """Changes of what nobody can reach any more."""
        return self._lost

    @property
    def is_blind(self) -> bool:
        """Whether the code did what cannot be watched, so far."""
        return bool(self.odd or self._ledger.odd)

    def _end_of(self, frame: FrameType) -> Any:
        """Where code that is not followed is called: what watches for what it gives back, where that is wanted."""
        back = frame.f_back
        if back is None or not back.f_trace_opcodes or frame.f_code.co_flags & _RESTING:
            return None
        offset = self._wanted.get(id(back.f_code), {}).get(back.f_lasti)
        if offset is None or (frame.f_globals.get("__name__") or "").startswith("duograd."):
            return None
        frame.f_trace_lines, row = False, self._results

        def local(frame: FrameType, event: str, arg: Any) -> Any:
            if event == "return":
                row.setdefault(id(back), {})[offset] = arg
            return local

        return local

    def _tracer_of(self, frame: FrameType) -> Any:
        code = frame.f_code
        self._codes.append(code)  # keeps its id taken
        followed = follows(code, frame.f_globals)
        if followed == "never":
            return False
        if mixes_up(code):
            self._ledger.leave(
                "runs a comprehension whose variable has the name of one that functions share, which this Python mixes "
                "up while it is watched",
                "give the variable another name",
            )
            return False
        sites = analyse(code)
        self._reader.told.watch(code)
        at, actions = sites.at.get, self._reader.actions
        self._wanted[id(code)] = sites.wanted
        results, wanted_of, pending = self._results, self._wanted, self._reader.cached
        live, standing, stumbles = self._reader.live, self._reader.standing, self._reader.stumbles
        ledger, handed, leave = self._ledger, self._ledger.handed, self._reader.leave

        def local(frame: FrameType, event: str, arg: Any) -> Any:
            if standing.space is not None:
                standing.take()
            if event == "opcode":
                todo = at(frame.f_lasti)
                if todo is not None:
                    try:
                        for action in todo:
                            actions[action[0]](frame, action)
                        if ledger.hidden:
                            leave(ledger.hidden)
                    except Exception as error:  # what it reads here has no guard
                        where = f"{code.co_filename}:{frame.f_lineno}"
                        self._ledger.odd = (
                            f"reads what could not be watched, at {where}: {error!r}",
                            "read it outside, or in a function in eager mode",
                        )
                    except BaseException:
                        stay(self._tracer, frame)
                        raise
            elif event == "return":
                results.pop(id(frame), None)
                pending.pop(id(frame), None)
                handed.pop(id(frame), None)
                back = frame.f_back
                if back is not None:
                    wanted = None if code.co_flags & _RESTING else wanted_of.get(id(back.f_code))
                    if wanted:
                        offset = wanted.get(back.f_lasti)
                        if offset is not None:
                            results.setdefault(id(back), {})[offset] = arg
                    if isinstance(arg, CONTAINERS):
                        ledger.hand(arg, back)
            elif (
                event == "exception"
                and live
                and (names_live(arg[1]) or stumbles(frame, arg, at(instruction_at(code, frame.f_lasti))))
            ):
                stay(self._tracer, frame)
                raise RestartError
            return local

        local.called = "" if followed == "always" else followed  # type: ignore[attr-defined]
        return local

    def _is_led(self, back: FrameType | None, how: str) -> bool:
        """Whether code called from here, which is followed where followed code calls it, is (see `follows`)."""
        while back is not None and not back.f_trace_opcodes:
            if how != "led" or not leads(back.f_code):
                return False
            if back is self._home:
                return True
            back = back.f_back
        return back is not None

    def _start(self, frame: FrameType) -> None:
        """A followed function begins: its objects at the root and its default arguments come from outside."""
        code = frame.f_code
        if not self._rooted:
            self._rooted = True
            for name, x in frame.f_locals.items():  # so far only the arguments (and closure cells)
                self._root(x, name, set())
            if code.co_freevars and id(code) not in self._ledger.functions:
                self._reader.seek(frame)
        self._reader.running.begins(frame)
        for f in self._ledger.functions.get(id(code), ()):
            defaults, named = f.__defaults__, f.__kwdefaults__
            if (defaults or named) and id(f) in self._ledger.outside:
                self._ledger.read_defaults(f, frame)
                names = code.co_varnames[code.co_argcount - len(defaults or ()) : code.co_argcount]
                for name, x in (*zip(names, defaults or ()), *(named or {}).items()):
                    self._ledger.learn(x, name, True, True)

    def _root(self, x: Any, name: str, seen: set[int]) -> None:
        """An argument of the traced function. Containers were made for the call; objects in them were not."""
        if id(x) in seen:
            return
        seen.add(id(x))
        if x.__class__ in (list, tuple, dict) or (isinstance(x, tuple) and hasattr(x, "_fields")):
            for k, element in x.items() if isinstance(x, dict) else enumerate(x):
                self._root(element, f"{name}[{brief(k)}]", seen)
        elif isinstance(x, Tensor):
            return
        elif is_record(x):  # made for the call, too
            for field in record_names(x):
                self._root(getattr(x, field), f"{name}.{field}", seen)
        else:
            self._ledger.learn(x, name, True)


def is_imported(space: dict[str, Any]) -> bool:
    """Whether a module's own code runs because it is being imported."""
    return getattr(space.get("__spec__"), "_initializing", False) is True


def _drop(frame: FrameType, action: Any) -> None:
    """Let go of what variables held before: what runs when it is gone (`finally` of a generator) is watched."""
    sys.call_tracing(_LOCALS, (frame,))


def _both(first: Any, second: Any) -> Any:
    """A local tracer that calls ours and another's."""
    other = second

    def local(frame: FrameType, event: str, arg: Any) -> Any:
        nonlocal other
        first(frame, event, arg)
        if other is not None and event != "opcode":
            other = other(frame, event, arg)
        return local

    return local
