"""One traced variant of a function: guards, the compiled graph, and the work of a call around it."""

from __future__ import annotations

from typing import Any

from ..core import dispatch, vjp
from ..core.backend import get_backend, scalar_bits
from ..core.errors import AutogradError, TraceError, user_frame
from ..core.op import GradRule
from .arguments import Slot, empty_slots, fill, flatten
from .compile import Compiled, compile_graph
from .guards import ReadRecorder, compile_guards
from .symbol import Symbol
from .trace import Source, Trace, check_aliases, effects


class Runner:
    """A compiled graph with its call: which addresses go where, and an arena for each call at a time."""

    def __init__(self, compiled: Compiled, device: str, sources: list[Source]):
        self.compiled = compiled
        self._execute = compiled.executable.run
        self._backend = get_backend(device)
        self._empty = self._backend.empty
        host = dispatch._State.executor
        self._tensor = host.tensor_class  # type: ignore[attr-defined]
        self._outputs = [(host.layout(t.dtype, t.shape), max(1, t.nbytes)) for t in compiled.outputs]  # type: ignore[attr-defined]
        self._arenas: list[Any] = []
        self._numbers = compiled.numbers
        self._tail = list(compiled.constants)
        n = len(sources)
        self._n_inputs = n
        self._template: list[int] = [0] * n
        self._varying: list[tuple[int, Source]] = []
        self.lifted: list[Any] = []
        for k, source in enumerate(sources):
            if source.kind == "tensor":
                t = source.tensor
                self._template[k] = t._storage.ptr + t._offset
                self.lifted.append(t)
            else:
                self._varying.append((k, source))
        self._args = [(k, s.key) for k, s in self._varying if s.kind == "arg"]
        self._grads = [(k, s.tensor) for k, s in self._varying if s.kind == "grad"]
        self._others = [(k, s) for k, s in self._varying if s.kind in ("carry", "cotangent")]

    def __call__(self, tensors: list[Any], carried: dict[Any, Any] | None = None) -> list[Any]:
        """Run on the call's tensors (and values carried from earlier graphs); returns the output tensors."""
        dynamic = self._template[:]
        for k, position in self._args:
            x = tensors[position]
            dynamic[k] = x._storage.ptr + x._offset
        for k, owner in self._grads:
            x = owner._grad
            dynamic[k] = x._storage.ptr + x._offset
        held = []
        for k, source in self._others:
            x = carried[source.key]  # type: ignore[index]
            if not x._layout.contiguous:
                x = x.clone()
                held.append(x)
            dynamic[k] = x._storage.ptr + x._offset
        outputs = []
        empty, make = self._empty, self._tensor
        for lay, nbytes in self._outputs:
            storage = empty(nbytes)
            dynamic.append(storage.ptr)
            outputs.append(make(lay, storage))
        for number, dtype in self._numbers:
            dynamic.append(scalar_bits(number.read(), dtype))
        dynamic += self._tail
        if self.compiled.arena_bytes:
            try:
                arena = self._arenas.pop()
            except IndexError:
                arena = empty(self.compiled.arena_bytes)
            dynamic.append(arena.ptr)
            self._execute(dynamic)
            self._arenas.append(arena)
        else:
            self._execute(dynamic)
        return outputs


class _FunctionOp:
    """What stands on the tape for a call of a graph."""

    variadic = False
    attr_names: tuple[str, ...] = ()

    def __init__(self, name: str):
        self.name = name


class Variant:
    """A trace made runnable. `check` says whether it fits this call; `run` does the call."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.guards: Any = None
        self.check: Any = None
        self.forward: Any = None
        self.backward: Any = None
        self.structure: Any = None
        self.reason = self.line = ""
        self.seconds = 0.0
        self.kept: Any = None
        self.eager_call: Any = None
        self._written: list[Any] = []
        self._written_args: list[int] = []
        self._grad_effects: list[tuple[Any, Any]] = []
        self._arg_grad_effects: list[tuple[int, Any]] = []
        self._drawn: list[tuple[Any, int]] = []
        self._returned: list[tuple[str, Any]] = []
        self._single: int | None = None
        self._saved: list[tuple[Any, str, Any]] = []
        self._gradients: list[bool] = []
        self._differentiable: list[tuple[str, Any]] = []
        self._root_outputs: list[int] = []

    # -- a call ------------------------------------------------------------------------------

    def run(self, tensors: list[Any]) -> Any:
        """Run on the call's tensors; effects on tensors, gradients and generators take place here."""
        outputs = self.forward(tensors)
        for t in self._written:
            t._storage.version += 1
        for position in self._written_args:
            tensors[position]._storage.version += 1
        for owner, k in self._grad_effects:
            owner._grad = None if k is None else outputs[k]
        for position, k in self._arg_grad_effects:
            tensors[position]._grad = None if k is None else outputs[k]
        for generator, count in self._drawn:
            generator._offset += count
        if self.backward is not None:
            self._attach(tensors, outputs)
        single = self._single
        if single is not None:
            return outputs[single]
        return fill(self.structure, self._results(tensors, outputs))

    def _results(self, tensors: list[Any], outputs: list[Any]) -> list[Any]:
        return [outputs[k] if kind == "output" else tensors[k] if kind == "arg" else k for kind, k in self._returned]

    def _attach(self, tensors: list[Any], outputs: list[Any]) -> None:
        """Put the call on the tape: outputs get one node whose rule runs the backward graph."""
        inputs = [tensors[k] if kind == "arg" else k for kind, k in self._differentiable]
        carried: dict[Any, Any] = {}
        for value, kind, k in self._saved:
            carried[value] = outputs[k] if kind == "output" else tensors[k] if kind == "arg" else k
        saved = {f"saved {n}": (t._alias(), t._get_version()) for n, t in enumerate(carried.values())}
        keys = list(carried)
        del carried
        backward, present = self.backward, self._gradients
        again = self._again

        def rule(gs: tuple[Any, ...], *kept: Any) -> tuple[Any, ...]:
            if dispatch.state.grad:
                return again(tensors, inputs, gs)
            values = dict(zip(keys, kept))
            for n, g in enumerate(gs):
                values["cotangent", n] = g
            grads = iter(backward([], values))
            return tuple(next(grads) if p else None for p in present)

        roots = [outputs[k] for k in self._root_outputs]
        frame = user_frame(2)
        node = vjp.Node(
            _FunctionOp(self.name), (), tuple(vjp._edge(t) for t in inputs), GradRule(rule, ("gs", *saved)), saved,
            tuple(y.type for y in roots), None if frame is None else (frame.f_code, frame.f_lineno),
        )  # fmt: skip
        for k, y in enumerate(roots):
            y._node, y._index, y._requires_grad = node, k, True

    def _again(self, tensors: list[Any], inputs: list[Any], gs: tuple[Any, ...]) -> tuple[Any, ...]:
        """Gradients of gradients: the function once more in eager mode, on the tape."""
        args, kwargs = fill(self.kept.args, tensors), fill(self.kept.kwargs, tensors)
        leaves: list[Any] = []
        empty_slots(self.eager_call(*args, **kwargs), lambda x: isinstance(x, self.forward._tensor), leaves)
        outs = [y for y in leaves if y._node is not None]
        if len(outs) != len(gs):
            raise AutogradError(
                self.name, "its gradient's gradient needs the function to give the same outputs when run again",
                "call fn.eager(...) for gradients of gradients of this function",
            )  # fmt: skip
        return tuple(vjp.walk(outs, list(gs), inputs, create_graph=True))

    # -- looking inside ------------------------------------------------------------------------

    def describe(self) -> list[str]:
        """Facts for `explain()`."""
        c = self.forward.compiled
        lines = [
            f"{len(c.graph.nodes)} ops -> {len(c.program.launches)} kernel launches, arena {c.arena_bytes:,} bytes, "
            f"traced and compiled in {self.seconds:.3f} s"
        ]
        if self.backward is not None:
            b = self.backward.compiled
            lines.append(f"backward: {len(b.graph.nodes)} ops -> {len(b.program.launches)} kernel launches")
        return lines + ["guard: " + text for text in self.guards.explain()]

    def show(self) -> list[str]:
        from .show import show

        return [show(r.compiled.graph) for r in (self.forward, self.backward) if r is not None]

    def sources(self) -> list[str]:
        return [launch.source for r in (self.forward, self.backward) if r is not None for launch in r.compiled.program.launches]


def trace_variant(function: Any, args: tuple[Any, ...], kwargs: dict[str, Any], key: Any) -> tuple[Variant, Any]:
    """Trace a function at a real call, compile, run. Returns the variant and the call's result."""
    host = dispatch._State.executor
    variant = Variant(function.name)
    variant.eager_call = function._fn
    _, tensors, rest = flatten(args, kwargs)
    if rest is None:
        from .arguments import Arguments

        rest = Arguments(tuple(Slot(k) for k in range(len(tensors))), {}, [])
    variant.kept = rest
    trace = Trace(function.name, host)
    symbols = [trace.argument(k, t) for k, t in enumerate(tensors)]
    recorder = ReadRecorder()
    with dispatch.executing(trace):
        with recorder:
            result = function._fn(*fill(rest.args, symbols), **fill(rest.kwargs, symbols))
        _finish(variant, trace, result, tensors, host)
    trace.done = True
    variant.guards = compile_guards(recorder.reads, extra=_tensor_guards(trace, tensors))
    variant.check = variant.guards.check
    return variant, variant.run(tensors)


def _tensor_guards(trace: Trace, tensors: list[Any]) -> list[Any]:
    from .guards import grad_guard, tensor_guard

    args = {id(t) for t in tensors}
    lifted = [t for t, _ in trace.lifted.values() if id(t) not in args]
    return [tensor_guard(t) for t in lifted] + [grad_guard(t, absent) for t, absent in trace.grad_reads]


def _finish(variant: Variant, trace: Trace, result: Any, tensors: list[Any], host: Any) -> None:
    """Fix outputs and effects of the trace, add the backward graph, compile both."""
    args = {id(t): k for k, t in enumerate(tensors)}

    def place(t: Any) -> tuple[str, Any]:
        return ("arg", args[id(t)]) if id(t) in args else ("tensor", t)

    graph, forward_sources = trace.graph, trace.sources
    leaves: list[Any] = []
    is_leaf = lambda x: isinstance(x, (Symbol, host.tensor_class))  # noqa: E731
    variant.structure = empty_slots(result, is_leaf, leaves)
    outputs: list[Symbol] = []
    returned: list[tuple[str, Any]] = []

    def output(symbol: Symbol) -> int:
        outputs.append(symbol)
        graph.outputs.append(trace._use(symbol._value))
        return len(outputs) - 1

    for leaf in leaves:
        face = trace.face(leaf)
        root = trace.roots.get(id(face._storage)) if face._base is None else None
        if root is not None and face._storage is trace.lifted[id(root)][1]._storage and face._node is None:
            returned.append(place(root))
        else:
            returned.append(("output", output(face)))
    writes, grads = effects(trace)
    check_aliases(trace, writes)
    for tensor, symbol in writes:
        target = trace.lifted[id(tensor)][1]
        position = [s.symbol for s in trace.sources].index(target)
        graph.writes.append((graph.inputs[position], trace._use(trace.face(symbol)._value)))
    variant._written = [t for t, _ in writes if id(t) not in args]
    variant._written_args = [args[id(t)] for t, _ in writes if id(t) in args]
    variant._grad_effects, variant._arg_grad_effects = [], []
    for tensor, symbol in grads:
        if symbol is not None and symbol is _unchanged(trace, tensor):
            continue
        k = None if symbol is None else output(symbol)
        if id(tensor) in args:
            variant._arg_grad_effects.append((args[id(tensor)], k))
        else:
            variant._grad_effects.append((tensor, k))
    variant._drawn = list(trace.drawn.values())
    variant._returned = returned
    is_single = isinstance(variant.structure, Slot) and returned[0][0] == "output"
    variant._single = returned[0][1] if is_single else None
    devices = {v.device for v in graph.inputs} | {v.device for n in graph.nodes for v in n.outputs} or {"cpu"}
    if len(devices) > 1:
        raise TraceError("function", f"uses tensors on {' and '.join(sorted(devices))}", "one function runs on one device")
    device = devices.pop()
    roots = [
        (k, s) for k, s in enumerate(outputs[: sum(r[0] == "output" for r in returned)])
        if s._requires_grad and s._node is not None and s._node.saved is not None
    ]  # fmt: skip
    backward = _trace_backward(variant, trace, roots, outputs, args) if roots and dispatch.state.grad else None
    variant.forward = Runner(compile_graph(graph, device), device, forward_sources)
    if backward is not None:
        variant.backward = Runner(compile_graph(backward, device), device, trace.sources)


def _unchanged(trace: Trace, tensor: Any) -> Any:
    for source in trace.sources:
        if source.kind == "grad" and source.tensor is tensor:
            return source.symbol
    return None


def _trace_backward(variant: Variant, trace: Trace, roots: Any, outputs: list[Symbol], args: dict[int, int]) -> Any:
    """The backward graph: from gradients of the outputs to gradients of all leaves; what it reads is carried."""
    forward, sources = trace.graph, trace.sources
    leaves = [(t, s) for t, s in trace.lifted.values() if t._requires_grad]
    trace.next_graph(variant.name + "_backward")
    cotangents = []
    for n, (_, root) in enumerate(roots):
        value = trace.graph.add_input(root.type, root.device)
        trace._known.add(value)
        symbol = Symbol(value, trace)
        trace.sources.append(Source("cotangent", ("cotangent", n), None, symbol))
        cotangents.append(symbol)
    grads = vjp.walk([s for _, s in roots], cotangents, [s for _, s in leaves])
    graph = trace.graph
    present = [g is not None for g in grads]
    graph.outputs = [trace._use(g._value) for g in grads if g is not None]
    spots = {v: k for k, v in enumerate(forward.outputs)}
    inputs = dict(zip(forward.inputs, sources))
    saved = []
    for source in trace.sources:
        if source.kind != "carry":
            continue
        value = source.key
        at = inputs.get(value)
        if at is not None and at.kind in ("arg", "tensor"):
            saved.append((value, "arg", at.key) if at.kind == "arg" else (value, "tensor", at.tensor))
            continue
        if value not in spots:
            spots[value] = len(forward.outputs)
            forward.outputs.append(value)
        saved.append((value, "output", spots[value]))
    variant._saved, variant._gradients = saved, present
    variant._differentiable = [("arg", args[id(t)]) if id(t) in args else ("tensor", t) for t, _ in leaves]
    variant._root_outputs = [k for k, _ in roots]
    return graph
