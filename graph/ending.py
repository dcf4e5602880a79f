"""What happens after the last segment of a path: effects, results, and the way back."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from ..core import dispatch, vjp
from ..core.errors import AutogradError, user_place
from ..core.op import GradRule
from ..core.storage import writes
from .given import change
from .rebuild import build
from .repeat import Moment
from .symbol import Symbol

if TYPE_CHECKING:
    from .runner import Runner
    from .variant import Variant
    from .ways import Tape


class _FunctionOp:
    """What stands on the tape for a call of a graph."""

    variadic = False
    partial = True
    attr_names: tuple[str, ...] = ()

    def __init__(self, name: str):
        self.name = name


class Ending:
    """What happens after the last segment of a path: effects, results, and the way back."""

    def __init__(self) -> None:
        self.written: list[Any] = []
        self.written_args: list[int] = []
        self.grads: list[tuple[Any, int | None]] = []
        self.arg_grads: list[tuple[int, int | None]] = []
        #: whose gradients are changed in place, and are results themselves: positions of arguments and other tensors
        self.written_grads: list[Any] = []
        self.handed_grads: list[Any] = []
        self.drawn: list[tuple[Any, int]] = []
        #: containers among the arguments that the function changes: (path, new contents)
        self.contents: list[tuple[Any, Any]] = []
        self.seeded: list[tuple[Any, int]] = []
        self.structure: Any = None
        self.returned: list[tuple[str, Any]] = []
        self.views: list[tuple[str, Any, Any]] = []
        self.single: int | None = None
        self.changes: list[tuple[Any, Any]] = []
        self.backward: Runner | None = None
        self.saved: list[tuple[Any, str, Any]] = []
        self.present: list[bool] = []
        self.differentiable: list[tuple[str, Any]] = []
        self.roots: list[tuple[str, Any]] = []
        #: ways back from some of the results only, and whether what code of the user's on the way reads is the same
        self.tape: Tape | None = None
        self.still: Callable[[], bool] | None = None
        #: tensors changed in place by what has no history, and so without one of their own from then on
        self.dropped: list[tuple[str, Any]] = []
        #: results that are leaves of their own, and the places of their gradients
        self.leaves: list[tuple[tuple[str, Any], tuple[str, Any] | None]] = []
        self.broken: list[tuple[tuple[str, Any], Any]] = []
        #: results with a history depend on what a tensor held that the call changes in place
        self.overwrites = False

    def finish(
        self,
        variant: Variant,
        tensors: list[Any],
        outputs: list[Any],
        carried: dict[Any, Any],
        given: Any = None,
    ) -> Any:
        """Let the effects take place and build the result. given: the call's args and kwargs."""
        grads = [_grad_of(k, tensors) for k in self.handed_grads]
        changed = [*self.written, *(tensors[k] for k in self.written_args)]
        changed += [_grad_of(k, tensors) for k in self.written_grads]
        for t in changed:
            t._storage.version += 1
        if changed:
            writes.last = object()
        for owner, k in self.grads:
            owner._grad = None if k is None else outputs[k]
        for position, k in self.arg_grads:
            tensors[position]._grad = None if k is None else outputs[k]
        numbers, generators = None, []
        if self.backward is not None:
            numbers = self.backward.read_numbers()
            drawn = {id(g): g for g, _ in (*self.drawn, *self.seeded)}
            generators = [(g, g.get_state()) for g in drawn.values()]
        for generator, seed in self.seeded:
            generator.set_state((seed, 0))
        for generator, count in self.drawn:
            generator._advance(count)
        found = {"arg": tensors, "output": outputs, "grad": grads}
        if self.views:
            found["view"] = [look(found[kind][k] if kind in found else k) for kind, k, look in self.views]
        if self.backward is not None:
            self._attach(Moment(variant, self, tensors, generators), outputs, carried, found, numbers)
        for kind, k in self.dropped:
            y = found[kind][k] if kind in found else k
            dispatch._State.executor._rebase(y, y._alias())  # type: ignore[attr-defined]
        for (kind, k), grad in self.leaves:
            y = found[kind][k]
            y._requires_grad = True
            y._grad = None if grad is None else found[grad[0]][grad[1]]
        for (kind, k), node in self.broken:
            y = found[kind][k] if kind in found else k
            y._node, y._index, y._requires_grad = node, 0, True
        if self.single is not None and not self.changes and not self.contents:
            return outputs[self.single]
        results = [found[kind][k] if kind in found else k for kind, k in self.returned]
        return self.result(results, given)

    def result(self, results: list[Any], given: Any = None) -> Any:
        """Make the changes of Python state again, and build what the function returns."""
        made: dict[int, Any] = {}
        for effect, value in self.changes:
            effect.apply(build(value, results, given, made))
        if self.contents and given is not None:
            news = [
                (place.find(given), [(s, build(x, results, given, made)) for s, x in row])
                for place, row in self.contents
            ]
            for target, row in news:
                change(target, row)
        return build(self.structure, results, given, made)

    def _way(self, gs: tuple[Any, ...]) -> tuple[Runner, list[bool], list[int] | None] | None:
        """What computes gradients from those of the results, of which some may be None: a graph, the leaves that get
        one, where its settings stand among all. None: no graph does."""
        assert self.backward is not None
        if self.still is not None and not self.still():
            return None
        used = tuple([g is not None for g in gs])
        if all(used):
            return self.backward, self.present, None
        way = None if self.tape is None else self.tape.way(used, self.backward)
        return None if way is None else (way.runner, way.present, way.numbers)

    def _attach(
        self, moment: Moment, outputs: list[Any], carried: dict[Any, Any], found: Any,
        numbers: list[int] | None,
    ) -> None:  # fmt: skip
        """Put the call on the tape: results, and what was changed, get one node whose rule runs the backward graph.

        found: tensors by the kind of place; numbers: what the backward graph is to take for settings and random
        offsets, which were other ones then.
        """
        tensors = moment.tensors
        pick = {"arg": tensors.__getitem__, "output": outputs.__getitem__, "carry": carried.__getitem__}
        inputs = [pick[kind](k) if kind == "arg" else k for kind, k in self.differentiable]
        values = {key: k if kind == "tensor" else pick[kind](k) for key, kind, k in self.saved}
        saved = {f"saved {n}": (t._alias(), t._get_version()) for n, t in enumerate(values.values())}
        keys = list(values)
        assert numbers is not None

        def rule(gs: tuple[Any, ...], *kept: Any) -> tuple[Any, ...]:
            at_once = (
                dispatch.state.executor is dispatch._State.executor
            )  # no vmap or trace takes the gradient
            way = self._way(gs) if at_once and not dispatch.state.grad else None
            if way is None:
                return moment.gradients(inputs, gs)
            given: dict[Any, Any] = dict(zip(keys, kept))
            for n, g in enumerate(gs):
                given["cotangent", n] = g
            runner, present, spots = way
            grads = iter(runner([], given, numbers if spots is None else [numbers[k] for k in spots]))
            return tuple(next(grads) if p else None for p in present)

        roots = [found[kind][k] if kind in found else k for kind, k in self.roots]
        node = vjp.Node(
            _FunctionOp(moment.variant.name), (), tuple(vjp._edge(t) for t in inputs),
            GradRule(rule, ("gs", *saved)), saved, tuple(y.type for y in roots), user_place(2),
        )  # fmt: skip
        for k, ((kind, _), y) in enumerate(zip(self.roots, roots)):
            if kind in ("arg", "tensor"):  # changed in place by what has a gradient
                changed = y._alias()
                changed._node, changed._index, changed._requires_grad = node, k, True
                dispatch._State.executor._rebase(y, changed)  # type: ignore[attr-defined]
            else:
                y._node, y._index, y._requires_grad = node, k, True


def _grad_of(whose: Any, tensors: list[Any]) -> Any:
    return (tensors[whose] if whose.__class__ is int else whose)._grad


def broken(y: Symbol, error: AutogradError) -> vjp.Node:
    """The history of a result whose way back is used up or was changed: it raises the error."""

    def rule(g: Any) -> Any:
        raise AutogradError(error.op, error.message, error.fix)

    return vjp.Node(_FunctionOp(error.op), (), (), GradRule(rule, ("g",)), {}, (y.type,), user_place(2))


def look_at(face: Symbol) -> Any:
    """What makes an eager view, or alias without history, of the tensor that stands for a symbol's whole memory."""
    steps: list[Any] = []
    x: Any = face
    while x._base is not None:
        steps.append(x._view)
        x = x._base
    steps.reverse()
    plain = face._detached or not steps

    def look(base: Any) -> Any:
        with dispatch.set_grad(False):
            for op, attrs in steps:
                base = dispatch.apply(op, (base,), attrs)
        return base._alias() if plain else base

    return look
