"""Gradients that no graph gives: the function once more on the tape, with what it read then, without its effects."""

from __future__ import annotations

import collections
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from types import FunctionType
from typing import TYPE_CHECKING, Any

import numpy as np

from ..core import dispatch, vjp
from ..core.attended import Attended
from ..core.errors import AutogradError
from ..core.op import Attrs, Op
from ..core.unfolding import asking, unfold
from .arguments import fill_call
from .formulas import Site
from .given import Watch
from .guards import compile_guards
from .nursery import Nursery
from .plain import ABSENT
from .reads import Effect, contents_of, now_at, order_again, own_at, replace, space_of
from .rebuild import Descriptions
from .recorder import ReadRecorder
from .witness import Place, copied, undo_of

if TYPE_CHECKING:
    from .ending import Ending
    from .variant import Variant


class ChangedError(Exception):
    """What a function reads has changed since the call, and cannot be put back for a while."""


class Moment:
    """What a call found, as far as running the function again must find it: tensors, versions, random generators, live
    numbers, gradients."""

    def __init__(
        self, variant: Variant, end: Ending, tensors: list[Any], generators: list[Any], live: Any = None,
        grads: Sequence[tuple[Any, Any]] = (), outputs: Sequence[Any] = (),
    ):  # fmt: skip
        self.variant, self.end, self.tensors, self.generators = variant, end, tensors, generators
        self.live, self.grads = live, grads
        self.settings = [(owner, key, owner.get(key, ABSENT)) for owner, key in end.settings]
        self.read = [tensors[k] if kind == "arg" else k for kind, k in end.read]
        self.versions = [t._storage.version for t in self.read]
        # Leaves alone: what the call takes the history from is none when it runs again.
        self.asking = [(t, t._requires_grad) for t in self.read if t._node is None]
        self.before = [(Place(self.read[k]), None if n is None else outputs[n]) for k, n in end.before]
        self.hooks = {id(t): vjp.Hooks(t._hooks, t._hooks.number) for t in self.read if t._hooks}

    def gradients(
        self, inputs: list[Any], gs: tuple[Any, ...], taps: tuple[int, ...], hooks: dict[int, list[Any]],
        held: dict[int, Any], aim: int = -1,
    ) -> tuple[Any, ...]:  # fmt: skip
        """Gradients of the call's results for `inputs` (edges or leaves), on the tape where gradients are recorded,
        and then for the results in taps.

        gs: None for a result that is not used; hooks: of results on the way; held: gradients
        that inputs have already; aim: as in `walk_back`. Raises: AutogradError when the function
        changed in place what the others depend on, or somebody did since.
        """
        variant, end, again = self.variant, self.end, dispatch.state.grad
        roots = [n for n, g in enumerate(gs) if g is not None]
        needed = {k for n in roots for k in end.depends[n]}
        changed = self._is_changed(needed)
        what = (
            "its gradient's gradient"
            if again
            else "the gradient of this result, by code that no graph holds,"
        )
        advice = "call fn.eager(...) for such gradients of this function"
        if changed or self._is_lost(roots):
            raise AutogradError(
                variant.name, f"{what} needs values that were changed in place "
                + ("after the call" if changed else "by the call"), f"{advice}, or change a copy",
            )  # fmt: skip
        try:
            outs, places = self._run()
        except ChangedError as e:
            raise AutogradError(
                variant.name,
                f"{what} needs what the function reads to be what it was at the call: {e}",
                advice,
            ) from None
        if any(y is None for y in outs):
            raise AutogradError(
                variant.name, f"{what} needs the function to give the same outputs when run again", advice
            )
        used = [(y, g) for y, g in zip(outs, gs) if g is not None]
        ends, ways = [y for y, _ in used], [g for _, g in used]
        for k, row in hooks.items():
            node = outs[k]._node
            before = node.hooks or {}  # of the function's own
            node.hooks = {**before, outs[k]._index: [*before.get(outs[k]._index, ()), *row]}
        spots = [k for k in range(len(inputs)) if aim >> k & 1]
        with _recalled(places):
            made = vjp.walk(
                ends, ways, [*(inputs[k] for k in spots), *(outs[k] for k in taps)], create_graph=again, cut=len(spots),
                inner=True, begin=[held.get(k) for k in spots], aimed=aim != -1,
            )  # fmt: skip
        found = dict(zip(spots, made))
        return (*(found.get(k) for k in range(len(inputs))), *made[len(spots) :])

    def unfold(self, node: Any) -> None:
        """Let the function's ops, run once more, take the place of the call's node. Where something was changed in
        place or freed since it stays as it is, for `gradients` and its errors."""
        end = self.end
        if not node.walks.is_fresh() or self._is_lost(range(len(end.overwrites))) or self.is_past():
            return
        first = vjp.mark()
        with suppress(ChangedError):
            outs, _ = self._run()
            if all(y is not None for y in outs):
                unfold(node, outs, first)

    def _is_lost(self, roots: Iterable[int]) -> bool:
        """Whether some of these outputs depend on what the call changes, of which nothing was kept."""
        kept = any(old is not None for _, old in self.before)
        return not kept and any(self.end.overwrites[n] for n in roots)

    def is_past(self) -> bool:
        """Whether something that the function read was changed in place since."""
        return self._is_changed(range(len(self.read)))

    def _is_changed(self, which: Iterable[int]) -> bool:
        """Whether some of the tensors that it read were changed in place since."""
        return any(self.read[k]._storage.version != self.versions[k] for k in which)

    def _run(self) -> tuple[list[Any], list[Place]]:
        """The results with a history, as aliases in the order in which the trace met them, None for one that is not
        there; and the places on the tape of what the call changes, when it ended."""
        end = self.end
        outs, places, counts = self._run_once(end.changes_of)
        if counts != end.changes_of:  # versions on the tape would not be those of now
            end.changes_of = counts
            outs, places, _ = self._run_once(counts)
        return outs, places

    def _run_once(self, counts: list[int]) -> tuple[list[Any], list[Place], list[int]]:
        """As `_run`, and how often the ops changed each of what the call changes. counts: how often, so that versions
        end where they are."""
        variant = self.variant
        host: Any = dispatch._State.executor
        quiet: Any = Quiet(host)
        made: dict[int, Any] = {}
        given = fill_call(variant.kept, self.tensors, made, variant.numbers(self.live))
        parts = [made[id(x)] for x in variant.kept.parts]
        watch = Watch(given)
        recorder = ReadRecorder(variant.call, watch.paths)
        is_leaf = lambda x: isinstance(x, host.tensor_class)
        with (
            _generators(self.generators),
            _settings(self.settings),
            _state(variant, self.tensors, parts, self.live),
            asking(self.asking),
            _hooked(self.read, self.hooks),
            dispatch.set_grad(True),
        ):
            _check(variant, parts)
            try:
                for t in self.read:
                    recorder.meet(t)
                for t, g in self.grads:
                    quiet.set_grad(t, g)
                begun = [quiet.put(place, old, count) for (place, old), count in zip(self.before, counts)]
                with Nursery() as nursery, dispatch.executing(quiet):
                    try:
                        with recorder:
                            result = variant.python(given)
                    finally:
                        recorder.undo()
                    seen = Descriptions(is_leaf, recorder.outside, watch.paths, nursery)
                    seen.describe(result)
                    for value in self._changed(recorder.effects):
                        seen.describe(value)
                    for _, row in watch.changes():
                        for _, x in row:
                            seen.describe(x)
                found = [self._found(spot, seen.leaves) for spot in self.end.spots]
                ended = [Place(p.target) for p, _ in self.before]
                return found, ended, [p.target._storage.version - v for (p, _), v in zip(self.before, begun)]
            finally:
                quiet.undo()

    def _changed(self, effects: list[Effect]) -> list[Any]:
        """What the function put where, in the order of the call's changes; effects: those of this run."""
        changes = [e for e, _ in self.end.changes]
        place = lambda e: (e.kind, id(e.owner), e.key)
        order = [place(e) for e in changes]
        if [place(e) for e in effects] == order:
            return [e.value for e in effects]
        # A tensor that was changed in place and put where it was is no effect here, though one of the trace; what is
        # printed at every call is one here.
        found = {place(e): e.value for e in effects}
        for e in changes:
            if e.kind != "extend":
                found.setdefault(place(e), e.now())
        return [found.pop(p) for p in order if p in found] + list(found.values())

    def _found(self, spot: tuple[str, Any], leaves: list[Any]) -> Any:
        """What lies at one of `Ending.spots`, as it is now; leaves: the tensors that the function handed out."""
        kind, k = spot
        if kind in ("result", "whole"):
            y = leaves[k] if len(leaves) == self.end.count else None
            while kind == "whole" and y is not None and y._base is not None:
                y = y._base
        elif kind == "gradient":
            y = (self.tensors[k[1]] if k[0] == "arg" else k[1])._grad
        else:
            y = self.tensors[k] if kind == "arg" else k
        if y is None or dispatch.state.executor.face(y)._node is None:
            return None
        found = y._alias()
        found._node, found._index, found._requires_grad = y._node, y._index, y._requires_grad
        return found


class Quiet(Attended):
    """The host executor; what it changes besides its own results is put back by `undo`."""

    def __init__(self, host: Any):
        super().__init__(host)
        self._own: dict[int, Any] = {}
        self._log: list[Callable[[], None]] = []

    def run(self, op: Op, inputs: tuple[Any, ...], attrs: Attrs, into: Any = None) -> tuple[Any, ...]:
        for t in into or ():
            self._keep(t)
        made: tuple[Any, ...] = self.host.run(op, inputs, attrs, into)
        for t in made:
            if t._base is None:
                self._own[id(t._storage)] = t._storage
        return made

    def constant(self, array: Any, device: str) -> Any:
        made = self.host.constant(array, device)
        self._own[id(made._storage)] = made._storage
        return made

    def write(self, target: Any, value: Any) -> Any:
        self._keep(target)
        return self.host.write(target, value)

    def set_grad(self, x: Any, value: Any) -> None:
        before = x._grad
        self._log.append(lambda: setattr(x, "_grad", before))
        self.host.set_grad(x, value)

    def put(self, place: Place, old: Any, count: int) -> int:
        """Put a tensor back as it was before so many changes (old: None where nothing depends on that). Returns its
        version then."""
        self._log.append(undo_of(place.target))
        storage = place.target._storage
        place.put(place.target._array() if old is None else copied(old))
        storage.version -= count
        return storage.version  # type: ignore[no-any-return]

    def _keep(self, target: Any) -> None:
        if id(target._storage) not in self._own:
            self._log.append(undo_of(target))

    def undo(self) -> None:
        """Put everything back as it was."""
        while self._log:
            self._log.pop()()


@contextmanager
def _recalled(places: list[Place]) -> Iterator[None]:
    """Tensors at their places on another tape, and back: a checkpoint on it computes again from what it was given."""
    now = [Place(p.target) for p in places]
    for p in places:
        p.recall()
    try:
        yield
    finally:
        for p in now:
            p.recall()


@contextmanager
def _hooked(tensors: list[Any], hooks: dict[int, vjp.Hooks]) -> Iterator[None]:
    """Tensors with the hooks that they had, by id, which walks inside of the function meet, and back."""
    now = [(t, t._hooks) for t in tensors]
    for t in tensors:
        t._hooks = hooks.get(id(t))
    try:
        yield
    finally:
        for t, row in now:
            t._hooks = row


@contextmanager
def _generators(states: list[Any]) -> Iterator[None]:
    """Random generators as they were, and back."""
    now = [(g, g.get_state()) for g, _ in states]
    for g, state in states:
        g.set_state(state)
    try:
        yield
    finally:
        for g, state in now:
            g.set_state(state)


@contextmanager
def _settings(settings: list[tuple[dict[str, Any], str, Any]]) -> Iterator[None]:
    """Items of dicts as they were, and back: a schedule, or the function itself, has set others since."""
    now = [(owner, key, owner.get(key, ABSENT)) for owner, key, _ in settings]
    for row in settings:
        _set(*row)
    try:
        yield
    finally:
        for row in now:
            _set(*row)


def _set(owner: dict[str, Any], key: str, value: Any) -> None:
    """Set an item as a dict does, or take it away: what a group of parameters checks was right."""
    if value is ABSENT:
        dict.pop(owner, key, None)
    else:
        dict.__setitem__(owner, key, value)


@contextmanager
def _state(variant: Variant, tensors: list[Any], parts: list[Any], live: Any) -> Iterator[None]:
    """Python state that the function reads as it was at the call, and back. parts: containers of the arguments."""
    own = iter(tensors[len(tensors) - sum(s.size for s in variant.state) :])
    wanted = [
        (s.kind, s.owner, s.key, s.value([next(own) for _ in range(s.size)], live), s.name)
        for s in variant.state
    ]
    wanted += [
        (r.kind, r.owner, r.key, variant.identity.placed(r.value, parts, r.kind == "content"), r.name)
        for r in variant.reads if r.kind in ("attr", "item", "cell", "content")
    ]  # fmt: skip
    if variant.live is not None:
        found = zip(variant.live.sites, live[len(variant.live.positions) :])
        wanted += [(s.kind, s.owner, s.key, v, s.name) for s, v in found if type(s) is Site and v is not None]
    swapped: list[Effect] = []
    orders: dict[int, tuple[Any, list[Any]]] = {}

    def note(space: Any) -> None:
        """The order of a dict's keys as it is before anything in it is changed here."""
        if isinstance(space, dict) and id(space) not in orders:
            orders[id(space)] = space, [*contents_of(space)]

    for r in variant.reads:  # whatever else was read of these is put back after that
        before = _as_read(r.kind, r.owner, r.key, r.value)
        if before is not None:
            note(r.owner)
            swapped.append(Effect("content", r.owner, None, contents_of(r.owner), None, r.name))
            replace(r.owner, before)
    for kind, owner, key, value, name in wanted:
        now = _here(kind, owner, key)
        if kind == "attr" and now is ABSENT:
            now = _by_kind(owner, key)
            if isinstance(now, str) and now == value:
                continue
        if kind == "attr" and now is ABSENT and now_at(kind, owner, key) is not ABSENT:
            owner = _holder(owner, key)  # what an object holds would hide its class from the function
            now = _here(kind, owner, key)
        if kind == "content" or now is not value:
            note(owner if kind == "content" else space_of(kind, owner))
            swapped.append(Effect(kind, owner, key, now, None, name))
            with suppress(AttributeError):  # a class with slots has lost it, as `_check` says
                Effect(kind, owner, key, value, None, name).undo()
    try:
        yield
    finally:
        for effect in reversed(swapped):
            effect.undo()
        for space, names in orders.values():
            order_again(space, names)


#: of these the guards say when a trace can be used, not what it found
_NOT_FOUND = ("cached", "level", "never")


def _check(variant: Variant, parts: list[Any]) -> None:
    """Raise ChangedError where something that the function reads is not what it read."""
    known = variant.found
    if known is None or known[0] != len(variant.reads):
        reads = [r for r in variant.reads if r.kind not in _NOT_FOUND]
        known = variant.found = len(variant.reads), compile_guards(reads, (), variant.identity)
    given = tuple(map(id, parts))
    if not known[1].check(given):
        raise ChangedError(known[1].first_failure(given))


def _as_read(kind: str, owner: Any, key: Any, value: Any) -> Any:
    """What an array held when it was read, and a container when its length was, or whether it is empty or has a key:
    nothing that was added since, and anything for what is gone, for nobody has looked at it (what was read otherwise,
    too, is put back after that). None where it still is what was read."""
    if kind == "array" and owner.flags.writeable and owner.nbytes == len(value) and owner.tobytes() != value:
        return np.frombuffer(value, owner.dtype).reshape(owner.shape)
    if kind not in ("length", "truth", "has") or not isinstance(owner, (list, dict, set, collections.deque)):
        return None
    now = contents_of(owner)
    if kind == "has":
        if (key in now) is value:
            return None
        if isinstance(now, dict):
            return {**now, key: None} if value else {k: x for k, x in now.items() if k != key}
        return [*now, key] if value else [x for x in now if x != key]
    size = int(value) if kind == "length" else max(1, len(now)) if value else 0
    if size == len(now):
        return None
    lost = [object() for _ in range(size - len(now))]
    return (
        {**dict([*now.items()][:size]), **dict.fromkeys(lost)}
        if isinstance(now, dict)
        else [*now[:size], *lost]
    )


def _by_kind(owner: Any, name: str) -> Any:
    """What every class or function has and no dict of theirs holds, as `__qualname__`: it cannot be deleted."""
    kind: Any = type if isinstance(owner, type) else FunctionType if isinstance(owner, FunctionType) else None
    if kind is not None and hasattr(vars(kind).get(name), "__set__"):
        return kind.__getattribute__(owner, name)
    return ABSENT


def _holder(owner: Any, name: str) -> Any:
    """The class in which an object, or a class, finds an attribute that it does not hold itself."""
    rows: tuple[type, ...] = type(owner).__mro__
    if isinstance(owner, type):
        rows = owner.__mro__ + rows
    return next((c for c in rows if name in vars(c)), owner)


def _here(kind: str, owner: Any, key: Any) -> Any:
    """What lies at a place itself, not in a class behind it."""
    if kind == "content":
        return contents_of(owner)
    return own_at(kind, owner, key)
