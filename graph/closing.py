"""The end of a trace: its results, its effects and the way back become the last segment of a path."""

from __future__ import annotations

import types
from typing import TYPE_CHECKING, Any

from ..core import dispatch
from ..core.errors import line_of
from ..core.reach import frontier
from ..core.region import scan, while_loop
from ..core.value import retains
from .arguments import Slot
from .caches import last_asked
from .ending import Ending
from .given import Given
from .ir import ancestors
from .live import RestartError, as_now
from .live_uses import as_formulas
from .rebuild import Descriptions
from .results import Results
from .segment import Segment, checking, placed
from .state import find_states
from .symbol import Symbol
from .trace import Trace, effects
from .ways import are_spent, close_back

if TYPE_CHECKING:
    from .path import Path


class Closing:
    """The end of one trace of a path, while its `Ending` is being made."""

    def __init__(self, path: Path, trace: Trace):
        self.path, self.trace, self.end = path, trace, Ending()
        #: the results' symbols
        self.faces: list[Symbol] = []
        #: by id of a symbol with a history, where it is found when the function runs once more: `Ending.spots`
        self.spots: dict[int, tuple[str, Any]] = {}
        self.tensor_class: Any = dispatch._State.executor.tensor_class  # type: ignore[attr-defined]

    def _output(self, symbol: Symbol) -> int:
        """One more output of the graph; returns its place."""
        graph = self.trace.graph
        graph.outputs.append(self.trace._use(symbol._value))
        return len(graph.outputs) - 1

    def _place(self, t: Any) -> tuple[str, Any]:
        return ("arg", self.path.args[id(t)]) if id(t) in self.path.args else ("tensor", t)

    def _whose(self, tensor: Any) -> Any:
        """A tensor by which its gradient is found: its position among the arguments, or itself."""
        return self.path.args.get(id(tensor), tensor)

    def _is_own(self, tensor: Any, symbol: Symbol) -> bool:
        """Whether the gradient of a tensor is the one that was there."""
        found = self.trace.grad_inputs.get(id(symbol._storage))
        own = found is not None and found[2] is tensor
        if not own and id(symbol._storage) in self.trace.founds:
            self.trace.leave(
                f"makes {symbol.type}, which was there before the call, the gradient of another tensor",
                "do it outside, or set a clone of it",
            )
        return own and (found[0] is symbol or symbol._value in self.trace._origin)  # type: ignore[index]

    def segment(self, result: Any, effects_outside: Any) -> Segment:
        """Fix outputs and effects of the trace, add the backward graph, compile both. result: the function's."""
        path, trace, end = self.path, self.trace, self.end
        graph, sources = trace.graph, trace.sources
        is_leaf = lambda x: isinstance(x, (Symbol, self.tensor_class))
        seen = Descriptions(is_leaf, path.outside, path.watch.paths, path.nursery)
        end.structure = seen.describe(result)
        end.changes = [(e, seen.describe(e.value)) for e in effects_outside]
        at = path.watch.paths
        end.keys = {k: Given(at[id(e.key)]) for k, e in enumerate(effects_outside) if id(e.key) in at}
        end.contents = [(place, [(step, seen.describe(x)) for step, x in row]) for place, row in path.changes]
        path.handed = seen.kept
        if any(isinstance(e.key, Symbol) for e in effects_outside):
            trace.leave(
                "has a tensor that it made as a key of a dict from outside",
                "use a name or a number as the key",
            )
        if seen.held:
            trace.chances = 2
            if isinstance(result, types.CoroutineType):
                result.close()  # nobody will await it
            trace.leave(
                f"hands out a {type(seen.held[0]).__name__} that it made, which cannot be made again at each call",
                "return tensors, in containers or plain objects",
            )
        faces = [trace.face(leaf) for leaf in seen.leaves]
        self._check_arrays(seen, faces)
        if any(map(retains, faces)):
            trace.leave(
                "hands out a tensor whose gradient it keeps (retain_grad)",
                "return the gradient, or keep it outside",
            )
        self._find_state(effects_outside)
        if trace.now is not None and trace.now.sized:
            trace.now.program.place_sizes(path.args, [t._layout for t in path.tensors], len(path.called))
        writes, grads = effects(trace)
        # A gradient may have been changed in place since, through a view of it.
        grads = [(t, None if g is None else trace.face(g)) for t, g in grads]
        left = [g for _, g in grads if g is not None]
        left += [trace.face(f._grad) for f in faces if f._grad is not None and trace.original(f) is None]
        self.faces, results = faces, Results(self, faces, left)
        end.returned = results.places()
        self.spots = {key: ("result", k) for k, key in enumerate(dict.fromkeys(map(id, faces)))}
        end.count = len(self.spots)
        if isinstance(end.structure, Slot) and end.returned[0][0] == "output":
            end.single = end.returned[0][1]
        ends = dict(zip(map(id, faces), zip(end.returned, faces)))
        for place, whole, face in results.hidden:
            ends[id(whole)] = place, whole
            self.spots[id(whole)] = "whole", self.spots[id(face)][1]
        for tensor, _ in writes:
            face = trace.face(trace.lifted[id(tensor)][1])
            ends.setdefault(id(face), (self._place(tensor), face))
            self.spots.setdefault(id(face), self._place(tensor))
        for tensor in trace.asked.values():
            face = trace.face(trace.lifted[id(tensor)][1])
            if face._node is None and face._requires_grad is not tensor._requires_grad:
                end.asked.append((self._place(tensor), face._requires_grad))
        for tensor, symbol in grads:
            if symbol is None or symbol._node is None or not symbol._requires_grad or id(symbol) in ends:
                continue
            ends[id(symbol)] = results.place_of(symbol), symbol
            self.spots[id(symbol)] = "gradient", self._place(tensor)
        roots = [(place, y) for place, y in ends.values() if y._requires_grad and y._node is not None]
        self._fresh_leaves(results, [y for _, y in roots])
        for tensor, symbol in writes:
            original = trace.lifted[id(tensor)][1]
            target = trace._use(trace.inputs[id(original)])
            graph.writes.append((target, trace._use(trace.face(symbol)._value)))
            (end.written_args if id(tensor) in path.args else end.written).append(
                (path.args.get(id(tensor), tensor), symbol._storage.changed)
            )
        for key, (face, _, tensor) in trace.grad_inputs.items():
            if key in trace.written:
                graph.writes.append((trace._use(trace.inputs[id(face)]), trace._use(trace.face(face)._value)))
                end.written_grads.append((self._whose(tensor), face._storage.changed))
        for tensor, symbol in grads:
            if symbol is None or not self._is_own(tensor, symbol):
                kind, k = ("output", None) if symbol is None else results.place_of(symbol)
                if kind != "output":
                    end.grad_views.append((self._whose(tensor), (kind, k)))
                    continue
                (end.arg_grads if id(tensor) in path.args else end.grads).append(
                    (path.args.get(id(tensor), tensor), k)
                )
        end.drawn = [(g, as_formulas(n)) for g, n in trace.drawn.values()]
        end.seeded = list(trace.seeds.values())
        end.looked_up = last_asked(path.recorder.looked_up)
        end.settings = [(owner, key) for owner, key, _ in trace.settings]
        checks = trace.take_checks()
        if are_spent(self, roots):
            roots = []
        if roots and trace.sizes:
            y = roots[0][1]
            where = line_of(y._node.where)  # type: ignore[union-attr]
            raise RestartError(
                f"the result {as_now(y.type)} of {where} has a history: take its gradient inside, or return "
                "y.detach()"
            )
        if roots:
            self._find_read([y for _, y in roots])
            end.found_grads = [self._place(t) for t, _ in trace.grad_reads]
        for tensor, symbol, words in trace.hooks_on.values():
            if [*map(id, symbol._hooks)] != [*map(id, tensor._hooks or ())]:
                trace.leave(
                    f"registers a hook on a leaf {words}, which stays there after the call",
                    "register it outside, once, or remove it at the end",
                )
            if tensor._hooks is None:  # its place among those that have had hooks
                end.hooked.append(self._place(tensor))
        first = None
        values, places = placed(checks)
        if values and (graph.writes or end.grads or end.arg_grads or end.grad_views):
            kept = graph.outputs, graph.writes
            graph.outputs, graph.writes = values, []
            first, checks = checking(path.make(graph.copy(whole=False), list(sources)), places), []
            graph.outputs, graph.writes = kept
        values, places = placed(checks, len(graph.outputs))
        graph.outputs += values
        if roots:
            close_back(self, graph, roots)
        trained = bool(roots or end.grads or end.arg_grads or end.grad_views)
        segment = Segment(path.make(graph, sources, trained))
        segment.ending, segment.checks, segment.first = end, places, first
        loops = any(n.op in (while_loop, scan) for n in graph.nodes)  # which may be interrupted
        if trace.depth == (end.backward is not None) and not trace.grad_reads and not loops:
            segment.released = [owner for owner, _ in end.grads]
        return segment

    def _check_arrays(self, seen: Descriptions, faces: list[Symbol]) -> None:
        """Leave to Python what hands out the memory of a tensor as an array, where the tensor is seen as well: what the
        function got is a copy."""
        for array, _, face in self.path.shown:
            key = id(face._storage)
            if seen.makes(array) and (key in self.trace.roots or any(id(f._storage) == key for f in faces)):
                self.trace.leave(
                    f"hands out the memory of {face.type} as a NumPy array, and the tensor lives on",
                    "return one of the two, or a copy",
                )
        written = {id(t) for t, _ in effects(self.trace)[0]} if self.trace.memories else ()
        for array, tensor, before in self.trace.memories:
            found = self.trace.lifted.get(id(tensor))
            seen_as = {id(tensor)} if found is None else {id(tensor), id(found[1]._storage)}
            handed = any(id(x) in seen_as for f in (*seen.leaves, *faces) for x in (f, f._storage))
            if handed or id(tensor) in written or array.tobytes() != before:
                self.trace.leave(
                    f"makes {tensor.type} of a NumPy array, with its memory, and changes it or hands it out",
                    "make it with dg.tensor, or outside",
                )

    def _find_read(self, roots: list[Symbol]) -> None:
        """Note which tensors from outside each of the roots is computed from, and whether the call changes one."""
        trace, end = self.trace, self.end
        rows = list(trace.lifted.values())
        end.read = [self._place(t) for t, _ in rows]
        inputs = [trace.inputs[id(s)] for _, s in rows]
        written = {trace.inputs[id(trace.lifted[id(t)][1])] for t, _ in effects(trace)[0]}
        for y in roots:
            needed = set(inputs) if trace.depth else ancestors([trace._use(y._value)])
            end.depends.append([k for k, v in enumerate(inputs) if v in needed])
            end.overwrites.append(not written.isdisjoint(needed))

    def _find_state(self, effects_outside: Any) -> None:
        """Make arguments of the tensors that the function found somewhere and put another one in the place of."""
        path, trace = self.path, self.trace
        apart = {
            *(id(e.owner) for e in effects_outside),
            *path.handed,
            *path.recorder.compared,
            *path.containers,
        }
        reads = path.recorder.reads
        for state in path.states:
            if not state.is_alone(reads, apart):
                trace.leave(
                    f"finds what {state.name} holds in another place as well, or changes it in place",
                    "keep a copy in one of the places",
                )
        found = find_states(
            effects_outside, reads, apart, self._is_free, self.tensor_class, path.parts(), trace.sizes
        )
        new = [state for state in found if not any(id(t) in path.args for t in state.tensors)]
        if trace.depth:  # earlier segments have been made with them as they are: the next trace knows
            path.variant.later = [*path.states, *new]
            return
        for state in new:
            for t in state.tensors:
                source = self._source(t)
                source.kind, source.key, source.tensor = "arg", len(path.tensors), None
                for s in trace.sources:
                    if s.kind == "grad" and s.tensor is t:
                        s.key, s.tensor = source.key, None
                path.add_tensor(t)
            path.states.append(state)
            path.variant.state.append(state)

    def _source(self, t: Any) -> Any:
        return self.trace._origin[self.trace.inputs[id(self.trace.lifted[id(t)][1])]]

    def _is_free(self, t: Any) -> bool:
        """Whether the trace uses a tensor for what it holds alone, so that another one could stand for it."""
        if (
            t.__class__ is not self.tensor_class
            or t._base is not None
            or any(t is x for x in self.trace.apart)
        ):
            return False
        self.trace.lift(t)  # one that it only found, too: it has a layout
        return bool(self._source(t).kind == "tensor")

    def _fresh_leaves(self, results: Results, roots: list[Symbol]) -> None:
        """Results that are leaves of their own: they ask for a gradient, and may have one already."""
        trace, end, faces = self.trace, self.end, self.faces
        own = [
            k for k, f in enumerate(faces)
            if f._requires_grad and f._node is None and trace.original(f) is None
        ]  # fmt: skip
        if not own and not trace.hooked:
            return
        ids = {id(edge) for edge in frontier(roots, -1) if not isinstance(edge, tuple)}
        if any(id(x) in ids and x._hooks for x in trace.hooked):
            trace.leave(
                "has a result that depends on a leaf which it made, with a hook",
                "register the hook on what is computed of it",
            )
        for k in own:
            face = faces[k]
            if face._hooks:
                trace.leave(
                    f"hands out a leaf {face.type} that it made, with a hook",
                    "register the hook outside, on the result",
                )
            if id(face) in ids:
                trace.leave(
                    f"returns a leaf {face.type} that it made, and a result that depends on it",
                    "return one of the two",
                )
            place = None
            if face._grad is not None:
                grad = trace.face(face._grad)
                known = [end.returned[n] for n, f in enumerate(faces) if f is grad]
                place = known[0] if known else results.place_of(grad)
            end.leaves.append((end.returned[k], place))
