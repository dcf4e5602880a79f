"""The way back through a call: graphs from gradients of its results to gradients of what it read.

The graph for all results at once is traced with the call, so that what it reads is kept. Where only some results
are used, a gradient of zero for the others is no substitute (0 * inf is NaN, and what only they depend on
has no gradient at all), so another graph is traced from the same tape when it is first asked for; so it is where
results look into memory which, once one of them has been changed in place, has a gradient of its own; and where what
several ops send a gradient to has one already: theirs are added to it one by one, as in eager mode.
"""

from __future__ import annotations

import threading
from collections.abc import Container, Sequence
from typing import TYPE_CHECKING, Any

from ..core import dispatch, forks, vjp
from ..core.errors import AutogradError
from ..core.op import Op
from ..core.reach import of_several_parts
from ..core.region import cond, scan, while_loop
from ..core.saved import has_tape, needs_of, nodes_behind
from .again import make_again
from .ending import spent
from .growing import has_sizes
from .guards import ReadRecorder, compile_guards
from .ir import Graph
from .layout import lay_out
from .ledger import Leave
from .live import RestartError, is_live
from .passes.dce import remove_dead
from .rest import is_ours, is_quiet, is_tame, is_whole
from .segment import make_runner
from .sizes import LateError
from .sources import Source
from .symbol import Symbol
from .trace import Trace, effects
from .walks import Lost, Outline, Part, bits_of

if TYPE_CHECKING:
    from .closing import Closing
    from .runner import Runner

lock = forks.lock()
_ADVICE = "take the gradient inside the function, or call it in eager mode"
#: for so many ways in which gradients lie in memory a way back is compiled
LAYOUTS = 64


class Way:
    """A graph of the way back. present: which leaves get a gradient, and then which taps.

    There is a program for each way in which the gradients that it is given lie in memory (by strides; None: in rows):
    products add up as their operands lie, and what it finds lies as they do. Leaves that keep what they get (by bits)
    get rows at once, which the walk would make. sized: sizes in the graph are live numbers, of which nothing more can
    be worked out once the trace has ended, so the usual program is the only one.
    """

    def __init__(self, graph: Graph, sources: list[Source], present: list[bool], sized: bool = False):
        self.graph, self.sources, self.present, self.sized = graph, sources, present, sized
        given = [(v, s.key) for v, s in zip(graph.inputs, sources) if s.kind == "cotangent"]
        self.cotangents = {v: key[1] for v, key in given if key[0] == "cotangent"}
        #: by how gradients lie and who keeps them: a runner (None: the usual one), where its settings stand among all
        self.known: dict[Any, tuple[Runner | None, list[int] | None] | None] = {}
        self._made: dict[Any, tuple[Runner | None, list[int] | None]] = {}

    def laid(self, lie: tuple[Any, ...], kept: int) -> Graph:
        """The graph for gradients that lie like this. kept: bits of the leaves that keep theirs."""
        graph = self.graph.copy()
        for v, n in self.cotangents.items():
            if lie[n] is not None:
                graph.strides[v] = lie[n]
        there = [k for k, p in enumerate(self.present) if p]
        lay_out(graph, self.cotangents, [n for n, k in enumerate(there) if kept >> k & 1])
        return graph

    def usual(self, roots: int, kept: int) -> Graph:
        """The graph that the usual runner is to be made of: for gradients in rows."""
        lie = (None,) * roots
        graph = self.laid(lie, kept)
        self.known[lie, kept] = self._made[lie, graph.seen] = None, None
        if self.sized:  # live numbers lead to the trace
            self.graph = Graph(graph.name)
        return graph

    def find(
        self, lie: tuple[Any, ...], kept: int, full: Runner
    ) -> tuple[Runner | None, list[int] | None] | None:
        """A runner (None: the usual one, `full`) and where its settings stand among those of the usual one; None where
        `LAYOUTS` are known, or no other can be made."""
        if (lie, kept) not in self.known and not self.sized:
            with lock:
                if (lie, kept) not in self.known and len(self.known) < LAYOUTS:
                    self.known[lie, kept] = self._make(lie, kept, full)
        return self.known.get((lie, kept))

    def _make(
        self, lie: tuple[Any, ...], kept: int, full: Runner
    ) -> tuple[Runner | None, list[int] | None] | None:
        graph = self.laid(lie, kept)
        key = lie, graph.seen
        if key not in self._made:
            runner = make_runner(graph, self.sources)
            spots = {(n.ident, dtype): k for k, (n, dtype) in enumerate(full.compiled.numbers)}
            numbers = [spots.get((n.ident, dtype), -1) for n, dtype in runner.compiled.numbers]
            if -1 in numbers:
                return None
            self._made[key] = runner, numbers
        return self._made[key]


class Tape:
    """The tape of a call, for the ways back from some of its results, or onto gradients that are there already.

    roots, leaves: symbols at its ends; keys: by what they are, the values that the usual way back reads; traced: graphs
    with their sources and what is present, where code of the user's takes part in the way: it ran with the call's
    trace, and there are no others; sized: bits of the roots from which sizes are live numbers, as for `Way`.
    """

    def __init__(
        self, trace: Trace, roots: list[Symbol], leaves: list[Symbol], keys: dict[Any, Any],
        traced: dict[Any, Any] | None, sized: int = 0,
    ):  # fmt: skip
        self.trace, self.roots, self.leaves, self.keys, self.traced = trace, roots, leaves, keys, traced
        self.sized = sized
        #: None: it reads what the other one does not, so it cannot be
        self.ways: dict[Any, Way | None] = {}

    def forget(self, args: Container[int]) -> None:
        """Let go of the tensors of the call that was traced."""
        forget(self.trace, args)

    def way(
        self, used: tuple[bool, ...], taps: tuple[int, ...], begun: tuple[int, ...], aim: int
    ) -> Way | None:  # fmt: skip
        """The way back from the results that are used, to the leaves (those at `begun` have a gradient already; aim: as
        in `walk_back`) and to the results in taps."""
        key = used, taps, begun, aim
        if self.sized & bits_of(used):
            return None
        with lock:
            if key not in self.ways:
                self.ways[key] = self._trace(*key)
        return self.ways[key]

    def _trace(
        self, used: tuple[bool, ...], taps: tuple[int, ...], begun: tuple[int, ...], aim: int
    ) -> Way | None:  # fmt: skip
        trace, known = self.trace, len(self.trace.lifted)
        if self.traced is not None:
            found = self.traced.get((used, taps, begun, aim))
            return None if found is None else self._way(*found)
        trace.done = False
        if trace.now is not None:
            trace.now.late, trace.now.thread = True, threading.get_ident()
        try:
            with dispatch.executing(trace):
                graph, present = walk_back(trace, self.roots, self.leaves, used, True, taps, begun, aim)
        except (LateError, RestartError, Leave):
            return None
        finally:
            trace.done = True
        return None if len(trace.lifted) != known else self._way(graph, trace.sources, present)

    def _way(self, graph: Graph, sources: list[Source], present: list[bool]) -> Way | None:
        sources = list(sources)
        for k, source in enumerate(sources):
            if source.kind != "cotangent" and source.key != "constant":
                key = self.keys.get(name_of(source))
                if key is None:
                    return None
                sources[k] = Source("carry", key, None, None)
        graph.steady = frozenset()
        return Way(graph, sources, present)


def forget(trace: Trace, args: Container[int]) -> None:
    """Let go of the tensors of the call that was traced; args: the ids of its arguments."""
    trace.lifted = {k: row for k, row in trace.lifted.items() if k not in args}
    trace.roots = {k: t for k, t in trace.roots.items() if id(t) not in args}
    trace.sharing.clear()
    trace.founds.clear()
    trace.met.clear()
    trace.grads.clear()
    trace.grad_reads.clear()
    trace.leaves.clear()
    trace.tracer = trace.breaker = trace.answer = trace.attempt = trace.meet = None


def name_of(source: Source) -> Any:
    """What an input of a way back is, whichever graph it is an input of."""
    return source.kind, id(source.tensor) if source.kind == "tensor" else source.key


def walk_back(
    trace: Trace, roots: Sequence[Symbol], leaves: Sequence[Symbol], used: Sequence[bool], retain: bool,
    taps: Sequence[int] = (), begun: Sequence[int] = (), aim: int = -1,
) -> tuple[Graph, list[bool]]:  # fmt: skip
    """Trace a graph from gradients of the used roots to gradients of the leaves, and of the roots in taps; also which
    of these there are. begun: the leaves that have a gradient already, which the graph is given and adds to; aim: bits
    of the leaves whose gradient is asked for, where a walk to the others would fail (-1: no walk does)."""
    trace.next_graph(trace.graph.name.removesuffix(" backward") + " backward")
    ends = [(n, root) for n, root in enumerate(roots) if used[n]]
    cotangents = [_given(trace, root, ("cotangent", n)) for n, root in ends]
    before = {k: _given(trace, leaves[k], ("before", k)) for k in begun}
    spots = [k for k in range(len(leaves)) if aim >> k & 1]
    targets = [*(vjp.Leaf(leaves[k]) for k in spots), *(roots[k] for k in taps)]
    made = vjp.walk(
        [y for _, y in ends], cotangents, targets, retain_graph=retain, inner=True,
        begin=[before.get(k) for k in spots], aimed=aim != -1,
    )  # fmt: skip
    grads = [None] * len(leaves) + made[len(spots) :]
    for k, g in zip(spots, made):
        grads[k] = None if g is before.get(k) else g
    graph = trace.graph
    graph.outputs = [trace._use(g._value) for g in grads if g is not None]
    serials = {serial: v for v, serial in trace._serial.items()}
    make_again(trace, graph, serials)
    remove_dead(graph)
    read = {v for n in graph.nodes for v in n.values()} | set(graph.outputs)
    needed = [k for k, s in enumerate(trace.sources) if s.kind == "cotangent" or graph.inputs[k] in read]
    graph.inputs = [graph.inputs[k] for k in needed]
    trace.sources = [trace.sources[k] for k in needed]
    return graph, [g is not None for g in grads]


def _given(trace: Trace, like: Symbol, key: Any) -> Symbol:
    """A gradient of a symbol, which the way back is given."""
    value = trace.graph.add_input(like.type, like.device)
    trace._known.add(value)
    made = Symbol(value, trace)
    trace.sources.append(Source("cotangent", key, None, made))
    return made


def close_back(closing: Closing, forward: Graph, roots: Any) -> None:
    """Trace the way back of a call and compile it; what it reads becomes further outputs of the forward graph."""
    trace, end = closing.trace, closing.end
    leaves = trace.leaves_of_tape()
    ends, starts = [y for _, y in roots], [s for _, s in leaves]
    end.spots = [closing.spots[id(y)] for y in ends]
    good = [has_tape(y) for y in ends]
    seen = [kind != "whole" and fine for (kind, _), fine in zip(end.spots, good)]
    usual = tuple(seen if any(seen) else good)
    _keep_before(closing, good)
    behind = nodes_behind(ends, starts)
    parts: dict[Any, Part] = {}
    traced: dict[Any, Any] | None = None
    needs: list[tuple[Any, Any, int, int, int]] = []
    for number, (node, bits, leads) in enumerate(behind):
        kind = bits, leads, node.saved is None
        parts.setdefault(kind, Part(bits, leads, node.name, node.where, number))
        for need, x, version in needs_of(node):
            why = need if x._get_version() == version else Lost(need, x._changed_place())
            needs.append((why, x, bits, leads, number))
    reached = {node.number: bits for node, bits, _ in behind}
    above = [reached[y._node.number] for y in ends]
    hooked = bits_of((y._node.hooks or {}).get(y._index) for y in ends)
    _refuse_views(closing, [place for place, _ in roots], [p.leads >> len(starts) for p in parts.values()])
    gone = bits_of(freed for _, _, freed in parts)
    end.outline = Outline(list(parts.values()), above, len(starts), hooked, gone)
    end.outline.ages = [y._node.number for y in ends]
    end.sums = tuple(of_several_parts(ends, starts))
    lost = [row[2:4] for row in needs if row[0].__class__ is Lost]
    clear = end.outline.bar(lost)
    for k, y in enumerate(ends):
        if not good[k] and not (is_tame(y) if clear[k] else _fails_quietly(behind, k)):
            if end.overwrites[k] or any(bits >> k & 1 for bits, _ in lost):
                trace.leave(
                    "has a result whose gradient cannot be taken, hooks on the way to it, and changes in place of what "
                    "it or its gradient depends on", _ADVICE,
                )  # fmt: skip
            end.outline.noisy |= 1 << k
    sized = _sized(trace, behind)
    del behind
    breaker, answer = trace.breaker, trace.answer
    trace.breaker, trace.answer = _left_for_a_value, None
    trace.needed = []
    ways: list[Any] = []  # the usual one; others show what has to be kept
    keeps = len(ends) > 1 or bool(end.sums) or not all(good)
    try:
        if any(good) and not all(is_ours(y) for y, fine in zip(ends, good) if fine):
            graph, present, traced = _watched(closing, ends, starts, usual)
            ways.append(((usual, (), (), -1), graph, present, trace.sources))
        elif any(good):
            graph, present = _own(trace, ends, starts, usual, keeps)
            ways.append(((usual, (), (), -1), graph, present, trace.sources))
        for k, y in enumerate(ends):
            if clear[k] and not good[k] and traced is None and is_tame(y, quiet=False):
                used = tuple([n == k for n in range(len(ends))])
                taps = tuple([n for n in range(len(ends)) if clear[k] >> len(starts) + n & 1])
                aim = end.outline.only(1 << k, clear[k])
                graph, present = _own(trace, ends, starts, used, True, taps, (), aim)
                ways.append(((used, taps, (), aim), graph, present, trace.sources))
    finally:
        trace.breaker, trace.answer = breaker, answer
    _watch(closing, [*needs, *((need, x, -1, -1, 0) for need, x in trace.needed)])
    trace.needed = None
    end.differentiable = [closing._place(t) for t, _ in leaves]
    end.roots = [place for place, _ in roots]
    if not ways:
        return
    keys: dict[Any, Any] = {}
    for _, _, _, sources in ways:
        _keep(closing, forward, sources, keys)
    end.usual, graph, present, sources = ways[0]
    end.way = Way(graph, sources, present, bool(sized & bits_of(end.usual[0])))
    kept = bits_of(t._node is None and not t._hooks for t, _ in leaves)
    laid = end.way.usual(len(ends), kept)
    end.backward = closing.path.make(laid, sources)
    graph.steady = laid.steady
    if keeps:
        end.tape = Tape(trace, ends, starts, keys, traced, sized)


def _sized(trace: Trace, behind: Sequence[tuple[vjp.Node, int, int]]) -> int:
    """Bits of the roots from which a walk meets sizes, or other attributes, that are live numbers."""
    if trace.now is None or not trace.now.sized:
        return 0
    made = (v.producer for v in trace._serial)
    if not has_sizes(n for n in made if n is not None):
        return 0
    found = 0
    for node, bits, _ in behind:
        hidden = node.is_folded or not isinstance(node.op, Op) or node.op in (cond, scan, while_loop)
        needed = [need for need, _, _ in needs_of(node)]
        if hidden or is_live((node.attrs, node.out_types, node.saved, needed)):
            found |= bits
    return found


def _keep_before(closing: Closing, good: list[bool]) -> None:
    """Note what the call changes, with copies where running it once more would need these for a result's gradient."""
    trace, end = closing.trace, closing.end
    depends = {k for n, fine in enumerate(good) if fine and end.overwrites[n] for k in end.depends[n]}
    changed = {id(t): symbol for t, symbol in effects(trace)[0]}
    for k, (t, symbol) in enumerate(trace.lifted.values()):
        if id(t) not in changed:
            continue
        copy = None
        if k in depends:
            with dispatch.set_grad(False):
                made = Symbol(trace.inputs[id(symbol)], trace).clone()
            copy = closing._output(trace.face(made))
        end.before.append((k, copy))
        end.changes_of.append(changed[id(t)]._storage.version)


def _keep(closing: Closing, forward: Graph, sources: list[Source], keys: dict[Any, Any]) -> None:
    """Keep what a way back reads. keys: see `Tape`."""
    trace, end = closing.trace, closing.end
    serials = {serial: v for v, serial in trace._serial.items()}
    here = {v for node in forward.nodes for v in node.outputs}
    spots = {v: k for k, v in enumerate(forward.outputs)}
    for k, source in enumerate(sources):
        if source.kind == "grad":  # it may be another one when the gradient is taken
            trace.leave(
                "has a result whose gradient depends on the gradient of a tensor from outside", _ADVICE
            )
        if source.kind not in ("arg", "tensor", "carry"):
            continue
        name = name_of(source)
        known = name in keys
        if source.kind == "carry":
            key = keys[name] = source.key
        else:
            key = keys.setdefault(name, ("input", len(keys)))
            sources[k] = Source("carry", key, None, None)
        if known:
            continue
        if source.kind != "carry":
            end.saved.append((key, source.kind, source.key if source.kind == "arg" else source.tensor))
            continue
        value = serials[source.key]
        if value not in here:
            end.saved.append((source.key, "carry", source.key))
            continue
        if value not in spots:
            spots[value] = len(forward.outputs)
            forward.outputs.append(value)
        end.saved.append((source.key, "output", spots[value]))


def are_spent(closing: Closing, roots: list[tuple[Any, Symbol]]) -> bool:
    """Whether the ways back of all results are used up at their first step, as those of a train step are: no walk goes
    further, and no tape is needed."""
    nodes = [y._node for _, y in roots]
    if any(n.saved is not None or any((n.hooks or {}).values()) for n in nodes):  # type: ignore[union-attr]
        return False
    if any(kind in ("arg", "tensor") for (kind, _), _ in roots):
        return False
    leaves = closing.trace.leaves_of_tape()
    rows = sorted(roots, key=lambda row: row[1]._node.number)  # type: ignore[union-attr]
    ends = [y for _, y in rows]
    leads = {node.number: bits for node, _, bits in nodes_behind(ends, [s for _, s in leaves])}
    for k, (place, y) in enumerate(rows):
        bits = leads[y._node.number]  # type: ignore[union-attr]
        behind = [closing._place(t) for n, (t, _) in enumerate(leaves) if bits >> n & 1]
        others = [n for n in range(k) if bits >> len(leaves) + n & 1]
        closing.end.spent.append((place, spent(y), behind, others))
    return True


def _fails_quietly(behind: Sequence[tuple[Any, int, int]], root: int) -> bool:
    """Whether a walk from a root ends in an error before it meets code of the user's: a hook, a rule with effects."""
    for node, bits, _ in behind:
        if bits >> root & 1:
            if any((node.hooks or {}).values()):
                return False
            if not is_whole(node):
                return True
            if not is_quiet(node.op):
                return False
    return False


def _refuse_views(closing: Closing, places: list[tuple[str, Any]], leads: list[int]) -> None:
    """Leave calls to Python which change a view that others of the roots are computed from: it is a view of the changed
    memory then, outside of the call, and a walk from those meets that. leads: by part, the roots that it leads to."""
    for k, (kind, x) in enumerate(places):
        if kind in ("arg", "tensor") and any(bits >> k & 1 for bits in leads):
            if kind == "arg":
                closing.path.variant.aliases.whole.add(x)
            t = closing.path.tensors[x] if kind == "arg" else x
            if t._base is not None:
                if kind == "arg":
                    closing.trace.only = lambda tensors, _, x=x: tensors[x]._base is not None
                closing.trace.leave(
                    f"changes {t.type}, which is a view of another tensor, and gives results that depend on the change",
                    "pass the whole tensor and take the view inside",
                )


def _watch(closing: Closing, needs: list[tuple[Any, Any, int, int, int]]) -> None:
    """Note what of the tape the caller can change in place between the call and the gradient, and what the call has
    changed."""
    trace, end = closing.trace, closing.end
    places = {id(f._storage): place for f, place in zip(closing.faces, end.returned)}
    places |= {id(s._storage): closing._place(t) for t, s in trace.lifted.values()}
    spots: dict[int, int] = {}
    known: dict[Any, list[tuple[int, int]]] = {}
    for need, x, bits, leads, number in needs:
        key, lost = id(x._storage), need.__class__ is Lost
        before = known.setdefault((key, lost), [])
        if not (key in places or lost) or any(not (bits & ~b or leads & ~t) for b, t in before):
            continue
        before.append((bits, leads))
        if key in places and key not in spots:
            spots[key] = len(spots)
            end.watched.append(places[key])
        end.needs.append((spots.get(key, -1), need, bits, leads, number))
        if lost:
            end.outline.lost.append(end.needs[-1])


def _left_for_a_value(trace: Trace, *_: Any) -> Any:
    """What reads a value while a way back is traced: there is none yet."""
    trace.leave("has a gradient whose rule or hook reads the value of a tensor", _ADVICE)


def _own(trace: Trace, *of: Any) -> tuple[Graph, list[bool]]:
    """The way back through ops alone. A rule of theirs that raises is an error when the gradient is taken, not now."""
    try:
        return walk_back(trace, *of)
    except AutogradError as e:
        trace.leave(f"has a gradient that raises {type(e).__name__}", _ADVICE)


def _watched(
    closing: Closing, roots: list[Symbol], leaves: list[Symbol], usual: tuple[bool, ...]
) -> tuple[Graph, list[bool], dict[Any, Any]]:  # fmt: skip
    """The way back where code of the user's takes part in it: hooks, gradients of the user's own, checkpoints.

    That code runs when the gradient is taken, at every time. A graph may stand for it where it changes nothing and
    what it reads is the same as now. Returns: as `walk_back`, and ways for `Tape`.
    """
    trace, end = closing.trace, closing.end
    before = _changes(trace)
    recorder = ReadRecorder(closing.path.variant.call, known=closing.path.outside.values())
    try:
        with recorder:
            trace.tracer = recorder.restable
            traced = {}
            if end.sums:
                begun = walk_back(trace, roots, leaves, usual, True, (), end.sums)
                traced[usual, (), end.sums, -1] = begun[0], trace.sources, begun[1]
            made = walk_back(trace, roots, leaves, usual, retain=False)
    except Leave:
        raise
    except Exception as e:
        trace.leave(f"has a gradient that raises {type(e).__name__}", _ADVICE)
    finally:
        trace.tracer = None
        recorder.undo()
        trace.take_back()
    if recorder.effects or _changes(trace) != before:
        trace.leave(
            "has a gradient whose rule, hook or checkpoint changes state or draws random numbers", _ADVICE
        )
    reads = [r for r in recorder.reads if not isinstance(r.value, Symbol)]
    end.still = compile_guards(reads).check
    return *made, traced


def _changes(trace: Trace) -> Any:
    """What differs when state was changed."""
    versions = {k: s._storage.version for k, s in trace.written.items()}
    drawn = {k: n for k, (_, n) in trace.drawn.items()}
    grads = {k: id(g) for k, (_, g) in trace.grads.items()}
    flags = {k: trace.lifted[k][1]._requires_grad for k in trace.asked}
    return versions, drawn, grads, flags, dict(trace.seeds)
