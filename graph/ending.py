"""What happens after the last segment of a path: effects, results, and the way back."""

from __future__ import annotations

import math
import weakref
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from ..core import dispatch, vjp
from ..core.declared import GradRule
from ..core.errors import AutogradError, user_place
from ..core.storage import writes
from .given import Given, change
from .live import LIVE
from .rebuild import build
from .repeat import Moment
from .symbol import Symbol
from .walks import CallNode, Outline, Walks, Wanted, bits_of

if TYPE_CHECKING:
    from .runner import Runner
    from .variant import Variant
    from .ways import Tape, Way


class _FunctionOp:
    """What stands on the tape for a call of a graph."""

    variadic = False
    partial = True
    attr_names: tuple[str, ...] = ()

    def __init__(self, name: str, moment: Moment | None = None):
        self.name = name
        self.unfold = None if moment is None else moment.unfold

    def used(self) -> _FunctionOp:
        """What stays on a tape that has been used: the name."""
        self.unfold = None
        return self


class Ending:
    """What happens after the last segment of a path: effects, results, and the way back."""

    def __init__(self) -> None:
        #: what is changed in place, and where in the user's code
        self.written: list[tuple[Any, Any]] = []
        self.written_args: list[tuple[int, Any]] = []
        self.grads: list[tuple[Any, int | None]] = []
        self.arg_grads: list[tuple[int, int | None]] = []
        #: gradients that look into other memory: positions of arguments and other tensors, and their places
        self.grad_views: list[tuple[Any, tuple[str, Any]]] = []
        #: whose gradients are changed in place, and are results themselves: positions of arguments and other tensors
        self.written_grads: list[tuple[Any, Any]] = []
        self.handed_grads: list[Any] = []
        self.drawn: list[tuple[Any, Any]] = []
        #: containers among the arguments that the function changes: (path, new contents)
        self.contents: list[tuple[Any, Any]] = []
        self.seeded: list[tuple[Any, int]] = []
        self.structure: Any = None
        self.returned: list[tuple[str, Any]] = []
        self.views: list[tuple[str, Any, Any]] = []
        #: those that stand between results and what these are views of, and have a history
        self.between: list[int] = []
        self.single: int | None = None
        self.changes: list[tuple[Any, Any]] = []
        #: by number of the change, where its key is an argument: the call's own object is the key
        self.keys: dict[int, Given] = {}
        self.backward: Runner | None = None
        self.saved: list[tuple[Any, str, Any]] = []
        #: places of what eager mode's tape would look at, as far as the caller can change it, and why a walk looks at
        #: which of them, by bits from which roots, at which node
        #: the tape in eager mode, for `Walks`
        self.outline = Outline([], [], 0)
        self.watched: list[tuple[str, Any]] = []
        self.needs: list[Wanted] = []
        #: what `backward` is one of the programs of
        self.way: Way | None = None
        #: those to which several ops send a gradient
        self.sums: tuple[int, ...] = ()
        self.differentiable: list[tuple[str, Any]] = []
        self.roots: list[tuple[str, Any]] = []
        #: which way back `backward` is, see `Tape.way`: as a rule from all that the caller can see and that have one
        self.usual: Any = None
        #: where they are when the function runs once more: ("result", which of `count` tensors that it hands out),
        #: ("whole", the same, of the memory that this one looks into), ("gradient", whose it is), or as in `written`
        self.spots: list[tuple[str, Any]] = []
        self.count = 0
        #: ways back from some of the results only, or onto gradients that are there; whether what code of the user's on
        #: the way reads is the same
        self.tape: Tape | None = None
        self.still: Callable[[], bool] | None = None
        #: leaves that had their first hooks, which are gone
        self.hooked: list[tuple[str, Any]] = []
        #: leaves that ask for a gradient, or no longer, from then on
        self.asked: list[tuple[tuple[str, Any], bool]] = []
        #: whether gradients are recorded from then on, where the function changes that
        self.grad_mode: bool | None = None
        #: results that are leaves of their own, and the places of their gradients
        self.leaves: list[tuple[tuple[str, Any], tuple[str, Any] | None]] = []
        #: results whose way back is used up: what raises the error, the places of the leaves behind it, and which of
        #: these results are behind it
        self.spent: list[tuple[tuple[str, Any], vjp.Node, list[tuple[str, Any]], list[int]]] = []
        #: tensors that were there before; by root, which of them it depends on, and whether the call changes one of
        #: these
        self.read: list[tuple[str, Any]] = []
        self.depends: list[list[int]] = []
        self.overwrites: list[bool] = []
        #: those that the call changes: which they are, and where an output whose gradient can be taken depends on what
        #: they were, the outputs that hold it; how often the function's ops change each
        self.before: list[tuple[int, int | None]] = []
        self.changes_of: list[int] = []
        #: functions with a cache of so many results, and the arguments by which the call asks for one that is there: it
        #: is kept longer
        self.looked_up: list[tuple[Any, tuple[Any, ...]]] = []
        #: items of dicts that the graphs read at each call: learning rates and the like
        self.settings: list[tuple[dict[str, Any], str]] = []
        #: tensors from outside whose gradients the function finds
        self.found_grads: list[tuple[str, Any]] = []

    def finish(
        self,
        variant: Variant,
        tensors: list[Any],
        outputs: list[Any],
        carried: dict[Any, Any],
        given: Any = None,
    ) -> Any:
        """Let the effects take place and build the result. given: the call's args and kwargs."""
        for cached, args in self.looked_up:
            cached(*args)
        grads = [_grad_of(k, tensors) for k in self.handed_grads]
        changed = [*self.written, *((tensors[k], place) for k, place in self.written_args)]
        changed += [(_grad_of(k, tensors), place) for k, place in self.written_grads]
        for t, place in changed:
            t._storage.version += 1
            t._storage.changed = place
        if changed:
            writes.last = object()
        owners = [tensors[k] if kind == "arg" else k for kind, k in self.found_grads]
        before = [(t, t._grad) for t in owners]
        for owner, k in self.grads:
            owner._grad = None if k is None else outputs[k]
        for position, k in self.arg_grads:
            tensors[position]._grad = None if k is None else outputs[k]
        numbers: list[int] = []
        generators: list[Any] = []
        if self.backward is not None:
            numbers = self.backward.read_numbers(carried)
        if self.roots:
            drawn = {id(g): g for g, _ in (*self.drawn, *self.seeded)}
            generators = [(g, g.get_state()) for g in drawn.values()]
        for generator, seed in self.seeded:
            generator.set_state((seed, 0))
        for generator, count in self.drawn:
            generator._advance(count if count.__class__ is int else count.at(carried.get(LIVE)))
        found = {"arg": tensors, "output": outputs, "grad": grads}
        if self.views:
            views = found["view"] = []
            for kind, k, look in self.views:
                views.append(look(found[kind][k] if kind in found else k, carried.get(LIVE)))
        for whose, place in self.grad_views:
            (tensors[whose] if whose.__class__ is int else whose)._grad = _those([place], found)[0]
        if self.roots:
            moment = Moment(variant, self, tensors, generators, carried.get(LIVE), before, outputs)
            self._attach(moment, outputs, carried, found, numbers)
        for k in self.between:
            dispatch._State.executor._refresh(found["view"][k])  # type: ignore[attr-defined]
        for (kind, k), grad in self.leaves:
            y = found[kind][k]
            y._requires_grad = True
            y._grad = None if grad is None else found[grad[0]][grad[1]]
        nodes: list[vjp.Node] = []
        for place, node, leaves, others in self.spent:
            nodes.append(spent_here(node, _those(leaves, found), [nodes[k] for k in others]))
            _give_history([place], _those([place], found), nodes[-1])
        for t in _those(self.hooked, found):
            t._own_hooks()
        if self.grad_mode is not None:
            dispatch.state.grad = self.grad_mode
        for (kind, k), value in self.asked:
            (found[kind][k] if kind in found else k)._requires_grad = value
        if self.single is not None and not self.changes and not self.contents:
            return outputs[self.single]
        results = _those(self.returned, found)
        return self.result(results, given, carried.get(LIVE))

    def result(self, results: list[Any], given: Any = None, live: Any = None) -> Any:
        """Make the changes of Python state again, and build what the function returns."""
        made: dict[int, Any] = {}
        for k, (effect, value) in enumerate(self.changes):
            key = effect.key if k not in self.keys or given is None else self.keys[k].find(given)
            effect.apply(build(value, results, given, made, live), key)
        result = build(self.structure, results, given, made, live)
        if self.contents and given is not None:  # last: parts of the arguments are found where they were
            news = [
                (place.find(given), [(s, build(x, results, given, made, live)) for s, x in row])
                for place, row in self.contents
            ]
            for target, row in news:
                change(target, row)
        return result

    def _way(
        self, gs: tuple[Any, ...], taps: tuple[int, ...], begun: tuple[int, ...], aim: int, kept: int
    ) -> tuple[Runner, list[bool], list[int] | None] | None:
        """What computes gradients from those of the results, of which some may be None: a graph, the leaves and then
        the taps that get one, where its settings stand among all. begun: leaves that have one already; aim: as in
        `walk_back`; kept: bits of the leaves that keep theirs. None: no graph does."""
        if self.backward is None or (self.still is not None and not self.still()):
            return None
        used = tuple([g is not None for g in gs])
        way = self.way
        if (used, taps, begun, aim) != self.usual:
            way = None if self.tape is None else self.tape.way(used, taps, begun, aim)
        if way is None:
            return None
        lie = tuple([None if g is None or g._layout.contiguous else g._layout.strides for g in gs])
        found = way.find(lie, kept, self.backward)
        return None if found is None else (found[0] or self.backward, way.present, found[1])

    def _attach(
        self, moment: Moment, outputs: list[Any], carried: dict[Any, Any], found: Any,
        numbers: list[int],
    ) -> None:  # fmt: skip
        """Put the call on the tape: results, and what was changed, get one node whose rule runs the backward graph.

        found: tensors by the kind of place; numbers: what the backward graph is to take for settings and random
        offsets, which were other ones then.
        """
        tensors = moment.tensors
        pick = {"arg": tensors.__getitem__, "output": outputs.__getitem__, "carry": carried.__getitem__}
        inputs = [pick[kind](k) if kind == "arg" else k for kind, k in self.differentiable]
        kept = {key: (k if kind == "tensor" else pick[kind](k))._alias() for key, kind, k in self.saved}
        walks = Walks(self.outline)
        # Where they stood when the call began: it may have changed them in place.
        ends = [vjp.Leaf(t) if t._node is None else (t._node, t._index) for t in inputs]

        def rule(gs: tuple[Any, ...]) -> tuple[Any, ...]:
            if walks.ready is not None:
                return walks.ready  # type: ignore[no-any-return]
            error = walks.begin(bits_of(g is not None for g in gs))
            noisy = walks.roots & self.outline.noisy and walks.fails_by_call() and not moment.is_past()
            if error is not None and not noisy:
                raise error
            at_once = (
                dispatch.state.executor is dispatch._State.executor
            )  # no vmap or trace takes the gradient
            alone = at_once and not dispatch.state.grad and not walks.hooks
            held = walks.held
            aim = self.outline.only(walks.roots, walks.aim)
            way = None
            if alone and not noisy:
                own = ends if walks.keeps else ()
                kept_by = bits_of(e.__class__ is vjp.Leaf and not e.tensor._hooks for e in own)
                way = self._way(gs, walks.taps, tuple(held), aim, kept_by)
            if way is None:
                found = moment.gradients(ends, gs, walks.taps, walks.hooks, held, aim)
                if error is not None:  # it was not met by the ops themselves
                    raise error
                walks.until = math.inf
                return found
            given = {**kept, LIVE: moment.live}
            for n, g in enumerate(gs):
                given["cotangent", n] = g
            for n, g in held.items():
                given["before", n] = g
            runner, present, spots = way
            grads = iter(runner([], given, numbers if spots is None else [numbers[k] for k in spots]))
            walks.until = math.inf
            return tuple(next(grads) if p else None for p in present)

        roots = _those(self.roots, found)
        node = CallNode(
            _FunctionOp(moment.variant.name, moment), (),
            tuple(vjp.end_of(t) if there else None for t, there in zip(inputs, self.outline.leads)),
            GradRule(rule, ("gs",)), {}, tuple(y.type for y in roots), user_place(2),
        )  # fmt: skip
        node.walks, node.sums, node.unfolded = walks, self.sums, False
        _give_history(self.roots, roots, node)
        watched = _those(self.watched, found)
        walks.needs = self.needs
        walks.states = [(weakref.ref(t._storage), t._storage.version) for t in watched]


def _those(places: list[tuple[str, Any]], found: Any) -> list[Any]:
    """The tensors at some places. found: tensors by the kind of place."""
    return [found[kind][k] if kind in found else k for kind, k in places]


def _give_history(places: list[tuple[str, Any]], tensors: list[Any], node: vjp.Node) -> None:
    """Make the tensors at these places the outputs of a node."""
    for k, ((kind, _), y) in enumerate(zip(places, tensors)):
        if kind in ("arg", "tensor"):  # changed in place by what has a gradient
            changed = y._alias()
            changed._node, changed._index, changed._requires_grad = node, k, True
            dispatch._State.executor._rebase(y, changed)  # type: ignore[attr-defined]
            while y._base is not None:
                y = y._base
                if y._node is not node:  # it follows the change, and was made at its line
                    y._node.where = node.told(k)[1]
        else:
            y._node, y._index, y._requires_grad = node, k, True
    for (kind, _), y in zip(places, tensors):
        if (
            kind == "view"
        ):  # its history is its own, not that of what it looks into, which may have changed here
            y._seen = y._storage.tape_version


def _grad_of(whose: Any, tensors: list[Any]) -> Any:
    return (tensors[whose] if whose.__class__ is int else whose)._grad


def spent(y: Symbol) -> vjp.Node:
    """The history of a result whose way back is used up: it raises the error."""
    error = y._node.spent(())  # type: ignore[union-attr]

    def rule(g: Any) -> Any:
        raise AutogradError(error.op, error.message, error.fix)

    return vjp.Node(_FunctionOp(error.op), (), (), GradRule(rule, ("g",)), {}, (y.type,), user_place(2))


def spent_here(node: vjp.Node, leaves: Sequence[Any], nodes: Sequence[vjp.Node]) -> vjp.Node:
    """The same in a call with these leaves and results behind it: a walk that leads to one of them meets the error."""
    edges = (*map(vjp.end_of, leaves), *((n, 0) for n in nodes))
    return vjp.Node(node.op, (), edges, node.rules, {}, node.out_types, node.where)
