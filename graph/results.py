"""Where the tensors that a call hands out lie: arguments, outputs of the graph, and views of both.

Each symbol between a result and the memory that it looks into becomes a tensor, as in eager mode: strides, what may be
changed in place, and whose history follows a change, all depend on that chain.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from ..core import dispatch
from ..core.storage import overlaps
from .live import is_live
from .live_uses import as_formulas, at_call
from .symbol import Symbol

if TYPE_CHECKING:
    from .closing import Closing

#: ("arg", position), ("tensor", it), ("output", number), ("grad", number), ("view", number)
Place = tuple[str, Any]


class Results:
    """The places of the results of one trace, by `places`; what they need is added to its graph and its `Ending`.

    gradients: those that the call leaves, which may look into the same memory; views among them lie as results do.
    hidden: computed memory, with a history, that results look into without being it, and one of these results.
    """

    def __init__(self, closing: Closing, faces: Sequence[Symbol], gradients: Sequence[Symbol] = ()):
        self.closing, self.trace, self.faces = closing, closing.trace, faces
        self.hidden: list[tuple[Place, Symbol, Symbol]] = []
        outside = {*self.trace.roots, *self.trace.grad_inputs}
        counts = Counter(id(x._storage) for x in {id(x): x for x in (*faces, *gradients)}.values())
        self._views = [
            g for g in gradients if _looks(g, counts[id(g._storage)] == 1, id(g._storage) in outside)
        ]
        #: by storage: the gradient that is the whole memory
        self._gradients = {
            id(g._storage): g for g in gradients if g._base is None and not any(g is v for v in self._views)
        }
        self._by_storage: dict[int, list[Symbol]] = {}
        for f in (*faces, *[g for g in self._views if all(g is not f for f in faces)]):
            self._by_storage.setdefault(id(f._storage), []).append(f)
        #: by storage: the symbol that is the whole memory
        self._whole: dict[int, Symbol] = {}
        self._found: dict[int, Place] = {}

    def places(self) -> list[Place]:
        """Where each result comes from."""
        return [self._place(f) for f in self.faces]

    def place_of(self, x: Symbol) -> Place:
        """Where a gradient that the call leaves comes from."""
        return self._place(x) if any(x is g for g in self._views) else ("output", self.output_of(x))

    def output_of(self, x: Symbol) -> int:
        """The output of the graph that a gradient is: that of a result where this is the same tensor."""
        kind, k = self._found.get(id(x), ("", None))
        if kind != "output":
            k = self.closing._output(x)
            self._found.setdefault(id(x), ("output", k))
        return k  # type: ignore[no-any-return]

    def _place(self, x: Symbol) -> Place:
        place = self._found.get(id(x))
        if place is None:
            place = self._found[id(x)] = self._find(x)
        return place

    def _find(self, x: Symbol) -> Place:
        key = id(x._storage)
        if key not in self._whole:
            if not self._is_shared(key, x) and self._stands_alone(x):
                return "output", self.closing._output(x)
            self._whole[key] = self._find_whole(key)
            if x is self._whole[key]:
                return self._found[id(x)]
        if x._detached or x._base is None:
            return self._view(self._found[id(self._whole[key])], Look(_steps(x), plain=True))
        place = self._view(self._place(x._base), Look((x._view,)))  # type: ignore[arg-type]
        # Others see a change through it.
        shared = self._is_shared(key) or key in self.trace.roots or self._is_hidden(key)
        if shared and x._requires_grad and x._node is not None and not any(f is x for f in self.faces):
            self.closing.end.between.append(place[1])
        return place

    def _view(self, base: Place, look: Look) -> Place:
        views = self.closing.end.views
        views.append((*base, look))
        return "view", len(views) - 1

    def _is_shared(self, key: int, alone: Symbol | None = None) -> bool:
        """Whether several results, or one and a gradient that is not itself `alone`, look into some memory."""
        return len(self._by_storage[key]) > 1 or self._gradients.get(key, alone) is not alone

    def _is_hidden(self, key: int) -> bool:
        return any(id(whole._storage) == key for _, whole, _ in self.hidden)

    def _stands_alone(self, x: Symbol) -> bool:
        """Whether a result that nothing else looks into may have memory of its own, of its own size."""
        trace, key = self.trace, id(x._storage)
        if key in trace.roots or key in trace.grad_inputs or not x.is_contiguous:
            return False
        while not x._detached and x._base is not None:
            x = x._base
            if overlaps(x.shape, x.strides):  # then no change in place is allowed
                return False
        return True

    def _find_whole(self, key: int) -> Symbol:
        """The symbol that is the whole memory, which gets its place here."""
        trace, closing = self.trace, self.closing
        tensor = trace.roots.get(key)
        if tensor is not None:
            whole = trace.lifted[id(tensor)][1]
            self._found[id(whole)] = closing._place(tensor)
            return whole
        if key in trace.grad_inputs:
            whole, _, tensor = trace.grad_inputs[key]
            closing.end.handed_grads.append(closing._whose(tensor))
            self._found[id(whole)] = "grad", len(closing.end.handed_grads) - 1
            return whole
        ends = [_bottom(f) for f in self._by_storage[key]]
        if key in self._gradients:
            ends.insert(0, self._gradients[key])
        whole = trace.face(next((x for x in ends if not x._detached), ends[0]))
        place = self._found[id(whole)] = "output", self.output_of(whole)
        looking = self._by_storage[key]
        bound = [f for f in looking if _is_bound(f) and not any(f is g for g in self._views)]
        # A change of one of several renews the histories of all from that of the whole memory.
        matters = bound and (self._is_shared(key) or not bound[0]._requires_grad)
        if (
            matters
            and whole._requires_grad
            and whole._node is not None
            and not any(f is whole for f in looking)
        ):
            self.hidden.append((place, whole, bound[0]))
        return whole


def _bottom(x: Symbol) -> Symbol:
    """What a chain of views ends at."""
    while x._base is not None:
        x = x._base  # type: ignore[assignment]
    return x


def _looks(g: Symbol, alone: bool, outside: bool) -> bool:
    """Whether a gradient is one that looks into memory. alone: nothing else does; outside: it is that of a tensor from
    there."""
    return outside or (g._base is not None and (alone or not g._requires_grad)) or (g._detached and not alone)


def _is_bound(x: Symbol) -> bool:
    """Whether no alias without history stands between a symbol and the whole memory."""
    while not x._detached and x._base is not None:
        x = x._base  # type: ignore[assignment]
    return not x._detached


def _steps(x: Symbol) -> list[Any]:
    """The views from the whole memory to an alias, which has no history and is a view of nothing."""
    steps: list[Any] = []
    while x._base is not None:
        steps.append(x._view)
        x = x._base  # type: ignore[assignment]
    return steps[::-1]


class Look:
    """Makes an eager view of a tensor; plain: an alias without history, and a view of nothing. sized: it needs the
    values of the call's live numbers."""

    __slots__ = ("plain", "sized", "steps")

    def __init__(self, steps: Sequence[Any], plain: bool = False):
        self.plain, self.sized = plain, is_live(tuple(steps))
        self.steps = [(op, as_formulas(attrs)) for op, attrs in steps]

    def __call__(self, base: Any, live: Any = None) -> Any:
        with dispatch.set_grad(False):
            for op, attrs in self.steps:
                base = dispatch.apply(op, (base,), at_call(attrs, live) if self.sized else attrs)
        return base._alias() if self.plain else base
