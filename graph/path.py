"""Tracing one path of a variant: from its start, through the values that decide it, to its end."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable
from contextlib import ExitStack, suppress
from traceback import clear_frames
from types import TracebackType
from typing import TYPE_CHECKING, Any

from ..core import dispatch
from ..core.backend import get_backend
from ..core.errors import EndlessRecursionError, RetraceError, TraceError, last_user_line, user_line
from . import growing
from .aliases import check_arrays
from .arguments import fill_call
from .asking import leave_doubles, leave_gradients
from .checks import SizedCheck
from .closing import Closing
from .formulas import Part, Program, Site, largest
from .given import Lent, Watch, containers_of, flatten
from .guards import ReadRecorder, compile_guards
from .handlers import caught
from .ir import Graph
from .ledger import Found, Leave
from .live import KINDS, LIVE, Live, Now, RestartError, as_now, is_live, restarts
from .nursery import Nursery
from .overrides import modes
from .report import near_line
from .segment import Segment, checking, make_runner, placed
from .sources import Source
from .spoken import Asked, listening
from .state import State
from .symbol import Symbol
from .tensor_guards import grad_guard, leaf_guard, mode_guard, tensor_guard
from .trace import Trace
from .unmoved import watching

if TYPE_CHECKING:
    from .runner import Runner
    from .variant import Variant

#: so many outcomes of values that decide are traced
PATHS = 64
#: so many traces in which a generator got another state, perhaps by another thread, are tried again
_CHANCES = 2


def _let_go(trace: TracebackType | None) -> None:
    """Let frames that an error has left go of their variables."""
    clear_frames(trace)
    while trace is not None:
        _ = trace.tb_frame.f_locals  # Python 3.12 has a copy of them, which it makes anew
        trace = trace.tb_next


class CalledOutError(TraceError):
    """A function does what no graph holds (calls one in eager mode), so its Python runs at every call.

    cause: the function in eager mode, if it is its own mode; only: says of a call, by its tensors and containers,
    whether it is so for it too; chances: how many later calls may try again in vain, for what is perhaps made by a
    first call alone.
    """

    cause: Any = None
    only: Any = None
    chances = 0

    @property
    def told(self) -> str:
        """What it does, and where."""
        return self.message + (f" ({near_line(self.line)})" if self.line else "")


class AgainError(Exception):
    """A trace with live numbers came to nothing: with plain ones it may do."""


class Path:
    """Tracing one path of a variant: from the start, through known outcomes without running, then on.

    after: the segment that ended with an outcome not seen before (None: nothing has run yet).
    """

    def __init__(
        self, variant: Variant, tensors: list[Any], after: Any, outcomes: list[Any], carried: dict[Any, Any]
    ):
        self.variant, self.tensors, self.after = variant, tensors, after
        self.outcomes, self.carried = outcomes, carried
        self.known = len(outcomes)
        #: the segments that have run, each with the next one
        self.passed: list[tuple[Segment, Segment | None]] = []
        #: the values of the call's live numbers, when it began
        self.live: Any = None
        #: programs of the values that are read as live numbers, by the segment that gives them
        self.stages: dict[int, Program] = {}
        #: what was compiled for any sizes, which the graphs forget when all are
        self.sized: list[Runner] = []
        self.args = {id(t): k for k, t in enumerate(tensors)}
        #: arrays that the function was given, and the values that they had
        self.shown: list[tuple[Any, Any, Symbol]] = []
        self.late: list[tuple[Any, Any]] = []  # what earlier segments print, once the trace has ended
        self.given: Any = None  # args and kwargs of the call
        self.watch: Any = None
        #: the containers among the arguments that the function changed, and their new contents
        self.changes: list[Any] = []
        #: by id, what it found and hands out
        self.handed: dict[int, Any] = {}
        #: ids of the call's containers
        self.containers: tuple[int, ...] = ()
        self.recorder: Any = None
        self.recorded: Trace | None = None
        self.outside: dict[int, Any] = {}
        #: knows what the trace makes
        self.nursery: Nursery | None = None
        #: graphs are only traced: `finish_later` compiles and links them, and nothing runs
        self.defers = False
        self.unread: Any = None
        #: the tensors of the call, without state
        self.called = tensors
        #: the state that is replaced, with the tensors that the call found there
        self.states: list[State] = []
        #: whether code of the framework runs, in the middle of the function's
        self.own = False

    def add_tensor(self, t: Any) -> None:
        """Make an argument of a tensor that the function finds by itself."""
        self.args[id(t)] = len(self.tensors)
        self.tensors = [*self.tensors, t]

    def begin_with(self, states: Iterable[State]) -> None:
        """Take in state that another variant found too late, where it holds other tensors than the arguments."""
        for state in self._again(s for s in states if not s.has_grown()):
            if state.find() is not None and not any(id(t) in self.args for t in state.tensors):
                for t in state.tensors:
                    self.add_tensor(t)
                self.states.append(state)
                self.variant.state.append(state)

    def _again(self, states: Iterable[State]) -> list[State]:
        cls: Any = dispatch._State.executor.tensor_class  # type: ignore[attr-defined]
        parts = self.parts()
        return [s.again(lambda t: t.__class__ is cls and t._base is None, cls, parts) for s in states]

    def parts(self) -> list[tuple[Part, Live]]:
        """Live numbers in structures that are replaced as a whole."""
        now = None if self.recorded is None else self.recorded.now
        if now is None:
            return []
        program = self.variant.live
        sites = () if program is None else enumerate(program.sites, len(program.positions))
        return [(s, now.leaf(n)) for n, s in sites if isinstance(s, Part)]

    def make(self, graph: Graph, sources: list[Source], trained: bool = True) -> Any:
        """A graph made runnable, or put off. trained: what needs a gradient may change between calls."""
        written = {target for target, _ in graph.writes}
        graph.steady = frozenset(
            v for v, s in zip(graph.inputs, sources)
            if s.kind == "tensor" and v not in written and not (trained and s.tensor._requires_grad)
            and get_backend(v.device).prepares
        )  # fmt: skip
        if self.defers:
            return graph, sources
        now = None if self.recorded is None else self.recorded.now
        if now is None or not now.sized:
            return make_runner(graph, sources)
        now.plans = True
        try:
            runner = make_runner(graph, sources)
        finally:
            now.plans = False
        self.sized.append(runner)
        return runner

    def finish_later(self, segment: Segment) -> None:
        """Compile what was put off, and make it part of the variant. From any thread."""
        start = time.perf_counter()
        segment.runner = make_runner(*segment.runner)  # type: ignore[misc]
        if segment.first is not None:
            segment.first.runner = make_runner(*segment.first.runner)  # type: ignore[misc]
        if segment.ending is not None and segment.ending.backward is not None:
            segment.ending.backward = make_runner(*segment.ending.backward)  # type: ignore[misc]
        self.variant.seconds += time.perf_counter() - start
        self._link(segment)

    def ready(self) -> Segment:
        """Trace and compile; returns the segment to run next."""
        start = time.perf_counter()
        with Nursery() as self.nursery:
            segment: Segment = self.prepare()
        self.variant.seconds += time.perf_counter() - start
        for effect in self.effects:  # what they put back must not live as long as the variant
            effect.forget()
        return segment

    def run(self, segment: Segment) -> Any:
        """Run what has not run: the last segment. Returns the call's result."""
        outputs = segment.run(self.tensors, self.carried)
        assert segment.ending is not None
        return segment.ending.finish(self.variant, self.tensors, outputs, self.carried, self.given)

    def prepare(self) -> Any:
        """Trace and compile; only segments that end in a read have run. No effect has taken place.

        The trace has containers of its own for those of the arguments, so that nobody else sees symbols in them, until
        the function finds one of them by itself: then it is traced anew with the call's own.
        """
        self.containers = containers_of(self.given)
        try:
            return self._try()
        except Found:
            self.variant.lends, self.known, self.shown = True, len(self.outcomes), []
            return self._try()

    def _try(self) -> Any:
        """Where a value has been another one before, it is a live number, unless that comes to nothing."""
        after = self.after
        if after is not None and after.lively is None and after.asked and after.children and not self.defers:
            after.lively = True
        if after is not None and after.lively and not self.defers and after.counts is None:
            seen = len(after.children) + len(after.ways)
            if seen >= growing.SEEN and self.outcomes[-1].dtype.kind == "i" and self.outcomes[-1] > 1:
                after.counts = True
        if after is not None and after.counts:
            try:
                return self._prepare()
            except AgainError:
                after.counts, self.after, self.known, self.shown = False, after, len(self.outcomes), []
                self.late, self.stages = [], {}
        try:
            return self._prepare()
        except AgainError:
            if after is None or not after.lively or after.ways:
                raise
            after.lively, self.after, self.known, self.shown = False, after, len(self.outcomes), []
            self.late, self.stages = [], {}
            return self._prepare()

    def _prepare(self) -> Any:
        variant = self.variant
        if variant.paths >= PATHS:
            raise RetraceError(
                variant.name, f"branched on tensor values in more than {PATHS} ways",
                "return the tensor and read it outside, or use dg.where",
            )  # fmt: skip
        self.refused: Exception | None = None
        trace = self.recorded = Trace(
            variant.name, dispatch._State.executor, self._read, variant.precision == "fast"
        )
        if self.variant.state and not self.states:
            self.states = self._again(self.variant.state)
        trace.given, trace.called = len(self.called), self.called
        trace.attempt, trace.overrides, trace.answer = self._attempt, len(modes.set), self._number
        lively = variant.live is not None or any(segment.lively for segment, _ in self.passed)
        with dispatch.executing(trace), Lent() as lent, ExitStack() as planted:
            self._plant(trace, planted)
            symbols = [trace.argument(k, t) for k, t in enumerate(self.tensors)]
            numbers = {} if trace.now is None else trace.now.arguments()
            apart = self.containers
            if variant.lends and self.given is not None:
                given, apart = lent.fill(self.given, variant.kept, symbols, numbers), ()
            else:
                given = fill_call(variant.kept, symbols, numbers=numbers)
            self.watch = Watch(given)
            recorder = self.recorder = ReadRecorder(variant.call, self.watch.paths, apart, lively)
            grad, asked = dispatch.state.grad, restarts()
            try:
                with listening(self._hears(trace, recorder)), watching(trace, recorder), recorder:
                    trace.tracer, trace.changed = recorder.restable, recorder.has_changed
                    trace.meet = recorder.meet
                    if self.nursery is not None:
                        trace.made = self.nursery.has_made
                    for t in self.tensors:
                        recorder.meet(t)
                    try:
                        result = variant.call(*given[0], **given[1])
                    except (RestartError, Leave, Found) as e:
                        _let_go(e.__traceback__)  # generators end now, and what they do is taken back
                        raise
                if restarts() != asked:
                    raise AgainError
            except RestartError as e:
                raise AgainError(
                    str(e) or f"{last_user_line(e)} gives it to code that takes a value"
                ) from None
            except RecursionError as e:
                self._check_apart()
                if lively:
                    raise AgainError from e
                self._print(trace)
                raise EndlessRecursionError(
                    variant.name, "calls itself more often than Python allows: a graph holds every call of it",
                    "give it an end that Python values decide, or loop with dg.while_loop", last_user_line(e),
                ) from None  # fmt: skip
            except Leave:  # at a value that only a compiled segment can give, or at a function in eager mode
                segment = self.unread
            except Exception as e:
                # What has caught the end of a trace may go wrong as it would not without.
                drew = recorder.drew is not None and not isinstance(
                    e, TraceError
                )  # another one may follow from it
                if self.refused is None and not drew and (trace.left is None or isinstance(e, TraceError)):
                    self._check_apart()
                    if lively:
                        raise AgainError from e
                    self._print(trace)
                    self._check_so_far(trace)
                    raise
            finally:  # what it changed outside takes place when the graph has run
                self.effects, self.outside = recorder.effects, recorder.outside
                after, dispatch.state.grad = dispatch.state.grad, grad
                recorder.undo()
                self.changes = self.watch.changes()
                lent.give_back()
                trace.take_back()  # to what it found, perhaps a live number that stands there
                planted.close()
            if self.refused is not None:
                if lively:
                    raise AgainError from self.refused
                self._print(trace)
                raise self.refused
            if trace.left is None:
                self._check_apart()
            self._check_live(trace, recorder)
            ended = trace.left is None
            try:
                with suppress(Leave):
                    if recorder.odd and trace.left is None:
                        if recorder.drew is not None and threading.active_count() > 1:
                            trace.chances = _CHANCES  # another thread may have
                        trace.leave(*recorder.odd)
                    if self.unread is None and trace.left is None:
                        self._check_shown(trace)
                        if recorder.asked:
                            leave_doubles(trace, self.outside)
                            leave_gradients(trace, self.outside)
                        check_arrays(trace, {id(e.owner) for e in self.effects}, self.outside)
                        segment = Closing(self, trace).segment(result, recorder.effects)
                        segment.ending.grad_mode = None if after is grad else after  # type: ignore[union-attr]
                self._check_live(trace, recorder, self.unread is None)
            except (RestartError, Exception) as e:
                if lively:
                    self.late = []
                    raise AgainError(str(e) if isinstance(e, RestartError) else "") from e
                raise
            finally:  # once it is known that nobody says it again
                if self.defers:  # eager mode does
                    self.late = []
                self._print(trace)
            if trace.lasting is not None:
                raise trace.lasting
            if trace.left is not None:
                why, fix, line = trace.left
                error = CalledOutError(variant.name, why, fix, "" if ended else line)
                error.cause, error.only, error.chances = trace.cause, trace.only, trace.chances
                raise error
        trace.done = True
        for runner in self.sized:
            runner.forget_sizes()
        if trace.now is not None:
            self._keep_live(trace.now)
        outside, self.outside = self.outside, {}
        if not self.defers:
            self._link(segment)
        variant.paths += 1
        reads = recorder.reads
        for s in self.states:
            reads = s.without(reads)
        variant.reads += reads
        changed = {id(e.owner): e.owner for e in self.effects}
        variant.aliases.add(trace, self.args, outside, changed, recorder.asked)
        trace.called = ()  # they do not outlive the call
        compared = {k: outside[k] for k in recorder.compared if k in outside}
        variant.identity.add(outside, recorder.linked, self.containers, changed | compared | self.handed)
        lifted = [t for t, _ in trace.lifted.values() if id(t) not in self.args]
        variant.extra += [s.guard() for s in variant.state] if variant.paths == 1 else []
        for s in (*variant.state, *variant.later):
            s.forget()  # the tensors must not live as long as the variant
        variant.extra += [tensor_guard(t) for t in lifted] + [
            grad_guard(t, gone) for t, gone in trace.grad_reads if id(t) not in self.args
        ]
        variant.extra += [leaf_guard(t) for t in trace.leaves.values() if id(t) not in self.args]
        variant.extra += [mode_guard(f, mode) for f, mode in trace.modes.values()]
        live = [] if variant.live is None else variant.live.guards()
        variant.guards = compile_guards(variant.reads, [*variant.extra, *live], variant.identity)
        variant.check = variant.guards.check
        for source in trace._origin.values():  # the graphs keep their faces, which keep no hooks
            if source.symbol is not None:
                source.symbol._hooks = None
        if segment.ending is not None and segment.ending.tape is not None:
            segment.ending.tape.forget(self.args)
        return segment

    def _check_apart(self) -> None:
        """End a trace with containers of its own where the function found those of the call."""
        if self.recorder.found:
            raise Found from None

    def _plant(self, trace: Trace, planted: ExitStack) -> None:
        """Put live numbers in the places of state where they are found, and live sizes in the layouts of tensors, for
        as long as `planted` is open."""
        program = self.variant.live
        if program is None:
            if not any(segment.lively for segment, _ in self.passed):
                return
            program = Program((), (), (), ())
        known = self.carried.get(LIVE, ())
        values: dict[int, Any] = dict(known) if isinstance(known, dict) else dict(enumerate(known))
        rest = flatten(*self.given)[2]
        values.update((n, rest.numbers[k]) for n, k in enumerate(program.positions) if rest is not None)
        found = []
        for n, site in enumerate(program.sites, len(program.positions)):
            if site is not None:
                values[n] = before = site.now()
                if type(before) is not program.kinds[n]:
                    raise AgainError
                found.append((n, site, before))
        for n, size in enumerate(program.sizes, len(program.positions) + len(program.sites)):
            values.setdefault(n, size.value)
        trace.now = Now(program, trace, values)
        sized = trace.find_sizes(trace.now, self.tensors)
        self.carried[LIVE] = values
        for n, site, before in found:
            effect = site.plant(trace.now.leaf(n), before)
            if effect is None:
                raise AgainError
            planted.callback(effect.undo)
        if self.parts():  # they look otherwise now
            self.states = self._again(self.states)
            if not self.variant.paths:
                self.variant.state = [*self.states]
        for tensor, layout in sized:  # the function may find it by itself, and ask it
            planted.callback(setattr, tensor, "_layout", tensor._layout)
            tensor._layout = layout

    def _keep_live(self, now: Now) -> None:
        """The program of live numbers as the trace has left it, and its values in this call."""
        variant, program = self.variant, self.variant.live
        if not variant.paths and not self.passed:  # else other paths may come to them
            program.forget_unused()
        if program is not None and program.is_idle and now.program is program and not self.passed:
            variant.live = None
            self.carried.pop(LIVE)
        else:
            now.renew()
            self.carried[LIVE] = now.all()

    def _check_live(self, trace: Trace, recorder: ReadRecorder, closed: bool = False) -> None:
        """Give up live numbers where a container that holds one was looked through, or Python is left the function.
        closed: it is known which structures are state."""
        if trace.now is None:
            return
        parts = {k for state in self.variant.state for k in state.parts}  # others may stand for them
        sites = () if self.variant.live is None else self.variant.live.sites
        replaced = any(id(s.owner) in parts for s in sites if type(s) is Site)
        reads = recorder.reads
        for s in self.states if closed else ():
            reads = s.without(reads)
        looked = (closed or not self.parts()) and any(is_live(r.value) for r in reads)
        if replaced or trace.left is not None or looked:
            self.late = []
            raise AgainError

    def _print(self, trace: Trace) -> None:
        """Print what earlier segments print, unless eager mode will do that."""
        late, self.late = self.late, []
        for show, array in late if trace.left is None else ():
            show(array)

    def _check_so_far(self, trace: Trace) -> None:
        """Raise what eager mode would have raised before the function did."""
        if trace.checks and trace.depth >= self.known:
            trace.graph.outputs, places = placed(trace.take_checks())
            trace.graph.writes = []
            with trace.before_changes():
                checking(make_runner(trace.graph, trace.sources), places).run(self.tensors, self.carried)

    def _link(self, segment: Segment) -> None:
        if self.after is None:
            self.variant.root = segment
            if self.variant.live is not None:
                self.variant.live.linked = True
        else:
            program = self.stages.get(id(self.after))
            if program is None:
                self.after.children[self.after.key(self.outcomes[-1])] = segment
            else:
                program.linked = True
                self.after.ways.append((program, segment))
                if (
                    self.after.counts and len(program.positions) - 1 in program.pinned
                ):  # nothing is gained by it
                    self.after.counts = False

    def _attempt(self, trace: Trace, face: Symbol, refuse: Any) -> bool:
        """Look at a value that may be refused where the function might catch the error. Returns whether it is so."""
        if not caught(Path.prepare.__code__):
            return False
        if refuse.__class__ is SizedCheck:
            raise RestartError
        refuse(self._value(trace, face, refuse))
        return True

    def _read(self, trace: Trace, face: Symbol) -> Any:
        """The trace wants a value: a copy of it that the function may write to."""
        value = self._value(trace, face)
        shown = value.copy()
        self.shown.append((shown, value, face))
        return shown

    def _value(self, trace: Trace, face: Symbol, refuse: Any = None) -> Any:
        """Take a value from the outcomes, or end the segment here and run it. refuse: what alone looks at it."""
        self.own = True
        try:
            return self._outcome(trace, face, refuse)
        finally:
            self.own = False

    def _outcome(self, trace: Trace, face: Symbol, refuse: Any) -> Any:
        if face._trace() is not trace:
            face._leaked("read")
        if trace.now is not None and trace.now.sized and trace.now.program.parent is None:
            raise RestartError(
                f"a value of {as_now(face.type)} is read at {user_line()}: return the tensor and read it outside"
            )
        depth = trace.depth
        self._check_apart()
        self._check_shown(trace)
        if depth < self.known:
            trace.checks.clear()
            trace.next_segment(self.carried)
            return self.outcomes[depth]
        live = trace.live()
        graph, sources = trace.graph, trace.sources
        value = trace._use(face._value)
        checks = trace.take_checks()
        looked_at, places = placed(checks, len(live) + 1)
        graph.outputs = [*live, value, *looked_at]
        segment = Segment(self.make(graph, sources, dispatch.state.grad))
        segment.checks = places
        segment.carries = [(k, trace._serial[v]) for k, v in enumerate(live)]
        segment.read, segment.refuse, segment.line = len(live), refuse, user_line()
        if self.defers:
            self.unread = segment
            raise Leave  # at a value that is not known, because nothing runs
        if trace.now is not None:
            trace.now.renew()
        self._link(segment)
        with trace.before_changes():
            try:
                outputs = segment.run(self.tensors, self.carried, self.late)
            except Exception as e:
                if not checks or isinstance(e, MemoryError) or not caught(Path.prepare.__code__):
                    raise
                self.refused = (
                    e  # by what stands before the `try` that the function is in, which must not catch it
                )
                raise Leave from None
        for k, key in segment.carries:
            self.carried[key] = outputs[k]
        outcome = outputs[segment.read]._array()
        self.outcomes.append(outcome)
        self.after = segment
        self.passed.append((segment, None))
        trace.next_segment(self.carried)
        return outcome

    def _number(self, trace: Trace, face: Symbol) -> Any:
        """The trace wants a value as a Python number."""
        depth = trace.depth
        value = self._value(trace, face).item()
        segment, child = self.passed[depth]
        segment.asked = type(value) in KINDS
        if depth >= self.known and trace.now is not None and segment.lively is None:
            segment.lively = segment.asked  # where other numbers change, this one will
        if not segment.lively or not segment.asked or not trace.now.here():
            return value
        program = next((p for p, s in segment.ways if s is child), None)
        if program is None:
            ends = (2, largest(value)) if segment.counts and value > 1 else None
            program = trace.now.program.stage(type(value), f"a value of {face.type}", ends)
            self.stages[id(segment)] = program
        return trace.now.go_on(program, value)

    def _hears(self, trace: Trace, recorder: ReadRecorder) -> Callable[[Any], bool]:
        """What takes the words of the function, for every call; not ours."""

        def take(what: Any) -> bool:
            if trace.aside is not None:
                return trace.aside.take(what)  # type: ignore[no-any-return]
            if recorder.is_watched_elsewhere():  # a debugger speaks, which somebody answers
                for say in trace.take_said():
                    say()
                return False
            if self.own or dispatch.state.executor is trace.host:
                return False
            if what.__class__ is Asked:
                recorder.asks(what.logger, what.level, what.answer)
                return False
            trace.say(what)
            return True

        return take

    def _check_shown(self, trace: Trace) -> None:
        """Leave a function to Python that writes to the memory of a tensor through an array."""
        if any(shown.tobytes() != outcome.tobytes() for shown, outcome, _ in self.shown):
            trace.leave(
                "writes to the memory of a tensor through a NumPy array",
                "use x[...] = value, or copy the array",
            )
