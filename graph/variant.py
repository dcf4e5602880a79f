"""One traced variant of a function: guards, compiled graphs, and the work of a call around them.

Reading a value while tracing (a Python branch on a tensor) ends a segment: it runs, the value is read, the
trace goes on under that outcome. A variant is therefore a tree of segments; nearly always it has one.
"""

from __future__ import annotations

import gc
import os
from collections.abc import Callable
from typing import Any

from ..core import dispatch, vjp
from ..core.backend import get_backend
from ..core.errors import AutogradError, EndlessRecursionError, RetraceError, TraceError, last_user_line
from ..core.region import scan, while_loop
from .again import make_again
from .aliases import Aliases, check_aliases
from .arguments import Arguments, Slot, Watch, fill, flatten
from .compile import compile_graph
from .ending import Ending, broken, look_at
from .guards import ReadRecorder, compile_guards, grad_guard, mode_guard, tensor_guard
from .ir import Graph, ancestors
from .overrides import active
from .passes.dce import remove_dead
from .rebuild import Descriptions
from .runner import Runner
from .state import State
from .symbol import Symbol
from .trace import Leave, Source, Trace, effects


class Segment:
    """A stretch of the function between two reads of a value.

    released: tensors whose `.grad` is given up before it runs; carries: (output, key) kept for later
    segments; checks: (output, who may refuse it); first: what checks before
    the run, where the graph writes; read: the output whose value decides (None: the last segment);
    children: the next segment by the bytes of that value.
    """

    __slots__ = ("carries", "checks", "children", "ending", "first", "read", "released", "runner")

    def __init__(self, runner: Runner):
        self.runner = runner
        self.released: list[Any] = []
        self.carries: list[tuple[int, Any]] = []
        self.checks: list[tuple[int, Any]] = []
        self.first: Segment | None = None
        self.read: int | None = None
        self.children: dict[bytes, Segment] = {}
        self.ending: Ending | None = None

    def run(self, tensors: list[Any], carried: dict[Any, Any], late: Any = None) -> list[Any]:
        """The outputs of a call. Raises what a check raises, before any effect.

        late: a list that takes (function, array) of what is to be printed, instead of printing now.
        """
        if self.first is not None:
            self.first.run(tensors, carried)
        for owner in self.released:  # replaced by this call and not read: their memory serves it
            owner._grad = None
        outputs = self.runner(tensors, carried)
        for place, refuse in self.checks:
            array = outputs[place]._array()
            if late is not None and getattr(refuse, "prints", False):
                late.append((refuse, array.copy()))
            else:
                refuse(array)
        return outputs


class Variant:
    """A trace made runnable. `check` and `aliases.fit` say whether it fits this call; `run` does the call."""

    def __init__(self, name: str, kept: Arguments, call: Any, precision: str):
        self.name, self.kept, self.call, self.precision = name, kept, call, precision
        self.guards: Any = None
        self.check: Any = None
        self.root: Any = None
        self.aliases = Aliases()
        self.reads: list[Any] = []
        self.extra: list[Any] = []
        self.reason = self.line = ""
        self.seconds = 0.0
        self.paths = 0
        self.calls = self.used = 0
        #: it was traced for another reason than shapes
        self.apart = True
        #: tensors that the function finds, and replaces by new ones: further arguments, found at each call
        self.state: list[State] = []
        #: what traces a path whose outcome was not seen before, and gives the call's result
        self.unseen: Callable[[Variant, Path], Any] = lambda variant, path: path.run(path.ready())

    def fits(self, tensors: list[Any]) -> bool:
        """Whether the guards hold for a call with these tensors."""
        return bool(self.check()) and self.aliases.fit(self._with_state(tensors))

    def _with_state(self, tensors: list[Any]) -> list[Any]:
        return [*tensors, *(s.find() for s in self.state)] if self.state else tensors

    def run(self, tensors: list[Any], given: Any = None) -> Any:
        """Run on the call's tensors. An outcome not seen before is traced. given: the call's args and kwargs."""
        called, tensors = tensors, self._with_state(tensors)
        segment, outcomes = self.root, []
        carried: dict[Any, Any] = {}
        while True:
            outputs = segment.run(tensors, carried)
            if segment.read is None:
                return segment.ending.finish(self, tensors, outputs, carried, given)
            for k, key in segment.carries:
                carried[key] = outputs[k]
            value = outputs[segment.read]._array()
            outcomes.append(value)
            child = segment.children.get(value.tobytes())
            if child is None:
                path = Path(self, tensors, segment, outcomes, carried)
                path.given, path.called = given, called
                return self.unseen(self, path)
            segment = child

    def eager(self, tensors: list[Any]) -> Any:
        """The call in eager mode."""
        return self.call(*fill(self.kept.args, tensors), **fill(self.kept.kwargs, tensors))

    # -- looking inside ------------------------------------------------------------------------

    def segments(self) -> list[Segment]:
        """All stretches, in order of the paths."""
        found, stack = [], [self.root]
        while stack:
            found.append(stack.pop())
            stack.extend(found[-1].children.values())
        return found

    def runners(self) -> list[Runner]:
        """All compiled graphs, in order of the paths."""
        found: list[Runner] = []
        for segment in self.segments():
            found.append(segment.runner)
            if segment.ending is not None and segment.ending.backward is not None:
                found.append(segment.ending.backward)
        return found

    def show(self) -> list[str]:
        from .show import show

        texts = []
        for r in self.runners():
            c = r.compiled
            texts += [f"# traced\n{show(c.graph)}", f"# after the passes\n{show(c.optimised, c.groups)}"]
        return texts

    def sources(self) -> list[str]:
        """Each kernel with the ops and lines it comes from."""
        return [f"# {label}\n{text}" for r in self.runners() for label, text in r.compiled.sources()]


def start_path(function: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Path:
    """The first path of a new variant of a function for this call, not yet traced."""
    _, tensors, kept = flatten(args, kwargs)
    if kept is None:
        kept = Arguments(tuple(Slot(k) for k in range(len(tensors))), {}, [])
    path = Path(Variant(function.name, kept, function._fn, function.precision), tensors, None, [], {})
    path.given = args, kwargs
    return path


def _host() -> Any:
    return dispatch._State.executor


def _settle() -> None:
    """Move the objects of a trace to the oldest generation: looking through them all costs as much as making them."""
    if not gc.get_freeze_count():  # else somebody else's objects would thaw
        gc.freeze()
        gc.unfreeze()


class CalledOutError(TraceError):
    """A function calls one in eager mode, so its Python runs at every call. cause: that one, if it is its own mode."""

    cause: Any = None


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
        self.args = {id(t): k for k, t in enumerate(tensors)}
        self.late: list[tuple[Any, Any]] = []  # what earlier segments print, once the trace has ended
        self.given: Any = None  # args and kwargs of the call
        self.watch: Any = None
        self.outside: dict[int, Any] = {}
        #: graphs are only traced: `finish_later` compiles and links them, and nothing runs
        self.defers = False
        self.unread: Any = None
        #: the tensors of the call, without state
        self.called = tensors

    def _make(self, graph: Graph, sources: list[Source], trained: bool = True) -> Any:
        """A graph made runnable, or put off. trained: what needs a gradient may change between calls."""
        written = {target for target, _ in graph.writes}
        graph.steady = frozenset(
            v for v, s in zip(graph.inputs, sources)
            if s.kind == "tensor" and v not in written and not (trained and s.tensor._requires_grad)
            and get_backend(v.device).prepares
        )  # fmt: skip
        return (graph, sources) if self.defers else _runner(graph, sources)

    def finish_later(self, segment: Segment) -> None:
        """Compile what was put off, and make it part of the variant. From any thread."""
        segment.runner = _runner(*segment.runner)  # type: ignore[misc]
        if segment.first is not None:
            segment.first.runner = _runner(*segment.first.runner)  # type: ignore[misc]
        if segment.ending is not None and segment.ending.backward is not None:
            segment.ending.backward = _runner(*segment.ending.backward)  # type: ignore[misc]
        self._link(segment)

    def ready(self) -> Segment:
        """Trace and compile; returns the segment to run next."""
        # Tracing makes many small objects that live on: collecting among them is wasted time.
        collecting = gc.isenabled()
        if collecting:
            gc.collect(0)  # from here on the youngest generation is what the trace makes
        gc.disable()
        try:
            return self.prepare()
        finally:
            if collecting:
                _settle()
                gc.enable()

    def run(self, segment: Segment) -> Any:
        """Run what has not run: the last segment. Returns the call's result."""
        outputs = segment.run(self.tensors, self.carried)
        assert segment.ending is not None
        return segment.ending.finish(self.variant, self.tensors, outputs, self.carried, self.given)

    def prepare(self) -> Any:
        """Trace and compile; only segments that end in a read have run. No effect has taken place."""
        variant = self.variant
        if variant.paths >= 64:
            raise RetraceError(
                variant.name, "branched on tensor values in more than 64 ways",
                "return the tensor and read it outside, or use dg.where",
            )  # fmt: skip
        trace = self.recorded = Trace(variant.name, _host(), self._read, variant.precision == "fast")
        trace.overrides = len(active)
        with dispatch.executing(trace):
            symbols = [trace.argument(k, t) for k, t in enumerate(self.tensors)]
            given = fill(variant.kept.args, symbols), fill(variant.kept.kwargs, symbols)
            self.watch = Watch(given)
            recorder = ReadRecorder(variant.call, frozenset(self.watch.paths))
            try:
                with recorder:
                    trace.tracer = recorder.restable
                    result = variant.call(*given[0], **given[1])
            except RecursionError as e:
                raise EndlessRecursionError(
                    variant.name, "calls itself more often than Python allows: a graph holds every call of it",
                    "give it an end that Python values decide, or loop with dg.while_loop", last_user_line(e),
                ) from None  # fmt: skip
            except Leave:  # at a value that only a compiled segment can give, or at a function in eager mode
                segment = self.unread
            except Exception:
                self._check_so_far(trace)
                raise
            finally:  # what it changed outside takes place when the graph has run
                self.effects, self.outside = recorder.effects, recorder.outside
                for effect in reversed(recorder.effects):
                    effect.undo()
                late, self.late = self.late, []
                for show, array in late if not trace.called_out else ():
                    show(array)
            if trace.called_out:
                error = CalledOutError(
                    variant.name, f"calls {trace.called_out}, which is in eager mode, so no graph holds the call",
                    "call it outside, or set its mode to graph",
                )  # fmt: skip
                error.cause = trace.cause
                raise error
            if self.unread is None:
                segment = self._last(trace, result, recorder.effects)
        trace.done = True
        self.outside = {}
        if not self.defers:
            self._link(segment)
        variant.paths += 1
        variant.reads += [r for r in recorder.reads if not any(s.is_read_by(r) for s in variant.state)]
        variant.aliases.add(trace, self.args)
        lifted = [t for t, _ in trace.lifted.values() if id(t) not in self.args]
        variant.extra += [s.guard() for s in variant.state]
        for s in variant.state:
            s.tensor = None  # it must not live as long as the variant
        variant.extra += [tensor_guard(t) for t in lifted] + [
            grad_guard(t, gone) for t, gone in trace.grad_reads
        ]
        variant.extra += [mode_guard(f, mode) for f, mode in trace.modes.values()]
        variant.guards = compile_guards(variant.reads, extra=variant.extra)
        variant.check = variant.guards.check
        return segment

    def _check_so_far(self, trace: Trace) -> None:
        """Raise what eager mode would have raised before the function did."""
        if trace.checks and trace.depth >= self.known:
            checks = trace.take_checks()
            trace.graph.writes, trace.graph.outputs = [], [v for v, _ in checks]
            _checking(_runner(trace.graph, trace.sources), checks).run(self.tensors, self.carried)

    def _link(self, segment: Segment) -> None:
        if self.after is None:
            self.variant.root = segment
        else:
            self.after.children[self.outcomes[-1].tobytes()] = segment

    def _read(self, trace: Trace, face: Symbol) -> Any:
        """The trace wants a value: take it from the outcomes, or end the segment here and run it."""
        if face._trace() is not trace:
            face._leaked("read")
        depth = trace.depth
        if depth < self.known:
            trace.checks.clear()
            trace.next_graph(trace.graph.name)
            return self.outcomes[depth]
        live = trace.live()
        graph, sources = trace.graph, trace.sources
        value = trace._use(face._value)
        checks = trace.take_checks()
        graph.outputs = [*live, value, *(v for v, _ in checks)]
        segment = Segment(self._make(graph, sources, dispatch.state.grad))
        segment.checks = [(len(live) + 1 + k, refuse) for k, (_, refuse) in enumerate(checks)]
        segment.carries = [(k, trace._serial[v]) for k, v in enumerate(live)]
        segment.read = len(live)
        if self.defers:
            self.unread = segment
            raise Leave  # at a value that is not known, because nothing runs
        self._link(segment)
        outputs = segment.run(self.tensors, self.carried, self.late)
        for k, key in segment.carries:
            self.carried[key] = outputs[k]
        outcome = outputs[segment.read]._array()
        self.outcomes.append(outcome)
        self.after = segment
        trace.next_graph(graph.name)
        return outcome

    def _place(self, t: Any) -> tuple[str, Any]:
        return ("arg", self.args[id(t)]) if id(t) in self.args else ("tensor", t)

    def _last(self, trace: Trace, result: Any, effects_outside: Any) -> Segment:
        """Fix outputs and effects of the trace, add the backward graph, compile both."""
        graph, sources, end = trace.graph, trace.sources, Ending()
        outputs: list[Symbol] = []
        tensor_class = _host().tensor_class
        is_leaf = lambda x: isinstance(x, (Symbol, tensor_class))
        self._find_state(trace, effects_outside)
        seen = Descriptions(is_leaf, self.outside, self.watch.paths)
        end.structure = seen.describe(result)
        end.changes = [(e, seen.describe(e.value)) for e in effects_outside]
        end.contents = [
            (place, [(step, seen.describe(x)) for step, x in row]) for place, row in self.watch.changes()
        ]
        leaves = seen.leaves

        def output(symbol: Symbol) -> int:
            outputs.append(symbol)
            graph.outputs.append(trace._use(symbol._value))
            return len(outputs) - 1

        faces = [trace.face(leaf) for leaf in leaves]
        end.returned = self._results(trace, end, faces, output)
        if isinstance(end.structure, Slot) and end.returned[0][0] == "output":
            end.single = end.returned[0][1]
        writes, grads = effects(trace)
        check_aliases(trace, writes)
        ends = dict(zip(map(id, faces), zip(end.returned, faces)))
        for tensor, _ in writes:
            face = trace.face(trace.lifted[id(tensor)][1])
            ends.setdefault(id(face), (self._place(tensor), face))
        roots = [
            (place, y)
            for place, y in ends.values()
            if dispatch.state.grad and y._requires_grad and y._node is not None
        ]
        for tensor, symbol in writes:
            original = trace.lifted[id(tensor)][1]
            target = trace._use(trace.inputs[id(original)])
            graph.writes.append((target, trace._use(trace.face(symbol)._value)))
            (end.written_args if id(tensor) in self.args else end.written).append(
                self.args.get(id(tensor), tensor)
            )
        for tensor, symbol in grads:
            if symbol is None or symbol._value not in trace._origin:
                k = None if symbol is None else output(symbol)
                (end.arg_grads if id(tensor) in self.args else end.grads).append(
                    (self.args.get(id(tensor), tensor), k)
                )
        end.drawn = list(trace.drawn.values())
        end.seeded = list(trace.seeds.values())
        checks = trace.take_checks()
        roots = self._with_tape(trace, end, roots)
        if roots and graph.writes:
            needed = ancestors(trace._use(y._value) for _, y in roots)
            end.overwrites = bool(trace.depth) or any(target in needed for target, _ in graph.writes)
        first = None
        if checks and (graph.writes or end.grads or end.arg_grads):
            kept = graph.outputs, graph.writes
            graph.outputs, graph.writes = [v for v, _ in checks], []
            first, checks = _checking(self._make(graph.copy(), list(sources)), checks), []
            graph.outputs, graph.writes = kept
        places = [(len(graph.outputs) + k, refuse) for k, (_, refuse) in enumerate(checks)]
        graph.outputs += [v for v, _ in checks]
        if roots:
            self._backward(trace, end, graph, sources, roots)
        trained = bool(roots or end.grads or end.arg_grads)
        segment = Segment(self._make(graph, sources, trained))
        segment.ending, segment.checks, segment.first = end, places, first
        loops = any(n.op in (while_loop, scan) for n in graph.nodes)  # which may be interrupted
        if trace.depth == (1 if roots else 0) and not trace.grad_reads and not loops:
            segment.released = [owner for owner, _ in end.grads]
        return segment

    def _find_state(self, trace: Trace, effects_outside: Any) -> None:
        """Make arguments of the tensors that the function found somewhere and put another one in the place of."""
        if trace.depth:
            return  # earlier segments have been made with them as they are
        for e in effects_outside:
            t = e.before
            if (
                t.__class__ is not _host().tensor_class
                or not isinstance(e.value, Symbol)
                or t._base is not None
            ):
                continue
            if e.kind not in ("attr", "item", "cell") or id(t) in self.args or id(t) not in trace.lifted:
                continue
            source = trace._origin[trace.inputs[id(trace.lifted[id(t)][1])]]
            if source.kind != "tensor":
                continue
            source.kind, source.key, source.tensor = "arg", len(self.tensors), None
            self.args[id(t)] = len(self.tensors)
            self.tensors = [*self.tensors, t]
            self.variant.state.append(State(e))

    def _results(self, trace: Trace, end: Ending, faces: list[Symbol], output: Any) -> list[tuple[str, Any]]:
        """Where each result comes from: an argument or other tensor itself, an output, or a view of one of these."""
        storages = [id(f._storage) for f in faces]
        bases: dict[int, tuple[Symbol, tuple[str, Any]]] = {}  # by storage: the whole memory and its place

        def base_of(face: Symbol) -> tuple[Symbol, tuple[str, Any]]:
            key = id(face._storage)
            if key not in bases:
                tensor = trace.roots.get(key)
                if tensor is not None:
                    bases[key] = trace.lifted[id(tensor)][1], self._place(tensor)
                else:
                    whole = next((f for f in faces if id(f._storage) == key and f._base is None), face)
                    while whole._base is not None:
                        whole = whole._base
                    whole = trace.face(whole)
                    bases[key] = whole, ("output", output(whole))
            return bases[key]

        places = []
        for face, storage in zip(faces, storages):
            if storage not in trace.roots and storages.count(storage) == 1:
                places.append(("output", output(face)))
                continue
            base, place = base_of(face)
            if face is not base:
                end.views.append((*place, look_at(face)))
                place = "view", len(end.views) - 1
            places.append(place)
        return places

    def _with_tape(self, trace: Trace, end: Ending, roots: list[Any]) -> list[Any]:
        """The roots whose gradient can be taken after the call; others raise what eager mode raises, when asked."""
        good = []
        leaves = [s for _, s in trace.lifted.values() if s._requires_grad]
        for place, y in roots:
            if not vjp.has_tape(y):
                try:
                    vjp.walk([y], [y], leaves, retain_graph=True)
                except AutogradError as e:
                    end.broken.append((place, broken(y, e)))
                    continue
            good.append((place, y))
        return good

    def _backward(self, trace: Trace, end: Ending, forward: Any, sources: list[Source], roots: Any) -> None:
        """The backward graph: from gradients of the outputs to gradients of all leaves; what it reads is carried."""
        leaves = [(t, s) for t, s in trace.lifted.values() if t._requires_grad]
        trace.next_graph(self.variant.name + " backward")
        cotangents = []
        for n, (_, root) in enumerate(roots):
            value = trace.graph.add_input(root.type, root.device)
            trace._known.add(value)
            symbol = Symbol(value, trace)
            trace.sources.append(Source("cotangent", ("cotangent", n), None, symbol))
            cotangents.append(symbol)
        grads = vjp.walk([s for _, s in roots], cotangents, [s for _, s in leaves])
        graph = trace.graph
        end.present = [g is not None for g in grads]
        graph.outputs = [trace._use(g._value) for g in grads if g is not None]
        serials = {serial: v for v, serial in trace._serial.items()}
        make_again(trace, graph, serials)
        remove_dead(graph)
        used = {v for n in graph.nodes for v in n.values()} | set(graph.outputs)
        needed = [k for k, s in enumerate(trace.sources) if s.kind == "cotangent" or graph.inputs[k] in used]
        graph.inputs = [graph.inputs[k] for k in needed]
        trace.sources = [trace.sources[k] for k in needed]
        here = {v for node in forward.nodes for v in node.outputs}
        spots = {v: k for k, v in enumerate(forward.outputs)}
        for k, source in enumerate(trace.sources):
            if source.kind in ("arg", "tensor"):
                # Read through the tape, so that a change between forward and backward is noticed.
                key = ("input", k)
                end.saved.append((key, source.kind, source.key if source.kind == "arg" else source.tensor))
                trace.sources[k] = Source("carry", key, None, None)
            elif source.kind == "carry":
                value = serials[source.key]
                if value not in here:
                    end.saved.append((source.key, "carry", source.key))
                    continue
                if value not in spots:
                    spots[value] = len(forward.outputs)
                    forward.outputs.append(value)
                end.saved.append((source.key, "output", spots[value]))
        end.differentiable = [self._place(t) for t, _ in leaves]
        end.roots = [place for place, _ in roots]
        end.backward = self._make(graph, trace.sources)


def _checking(runner: Any, checks: list[tuple[Any, Any]]) -> Segment:
    """A segment that only computes and checks the outputs of a graph."""
    segment = Segment(runner)
    segment.checks = [(k, refuse) for k, (_, refuse) in enumerate(checks)]
    return segment


def _runner(graph: Any, sources: list[Source]) -> Runner:
    devices = {v.device for v in graph.inputs} | {v.device for n in graph.nodes for v in n.outputs} or {"cpu"}
    if len(devices) > 1:
        raise TraceError(
            "function", f"uses tensors on {' and '.join(sorted(devices))}", "one function runs on one device"
        )
    device = devices.pop()
    traced = graph.copy()  # passes may change the graph; comparisons want it as it was recorded
    compiled = compile_graph(graph, device)
    if os.environ.get("DUOGRAD_SHOW"):
        from .explain import show_compiled, wanted

        show_compiled(compiled, wanted())
    return Runner(compiled, device, sources, traced)
