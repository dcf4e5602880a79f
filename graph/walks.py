"""Walks over the tape of a call, which is one node where eager mode has many: what they meet, look at and free.

A walk may come from some of the results only, lead to some tensors only, want the gradient of a result that others are
computed from, or meet hooks there. The node knows of eager mode's tape what that takes (`Part`).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from ..core.errors import AutogradError
from ..core.saved import Need, freed
from ..core.step import fitted
from ..core.unfolding import Folded


class Part(NamedTuple):
    """What walks from the same roots to the same targets (both by bits) meet: the first op, and which one it is."""

    roots: int
    leads: int
    name: str
    where: Any
    number: int


class Lost(NamedTuple):
    """What a walk needs and the call has changed: why, and where. It stands for a `Need`."""

    need: Need
    place: Any

    def refuse(self, changed: Any) -> AutogradError:
        return self.need.refuse(changed or self.place)


#: which of the storages that are watched (-1: none of them), why a walk looks at it, from which roots, where it leads
#: to, at which node
Wanted = tuple[int, Need | Lost, int, int, int]


def bits_of(row: Iterable[Any]) -> int:
    """The places at which something stands."""
    return sum(1 << k for k, x in enumerate(row) if x)


class Outline:
    """Eager mode's tape of a call, as far as walks over it go; one for all calls.

    parts: in the order of a walk; above: by root, the roots whose walks come to it; leaves: how many of the targets are
    no roots; hooked: bits of the roots that have hooks of the function's own; gone: bits of the parts that the call
    itself has freed; lost: the `needs` of `Walks` that the call itself has changed; ages: by root, its place
    on the tape; noisy: bits of the roots from which walks that fail meet code of the user's before: only the
    function's own ops, run once more, can say what it does.
    """

    def __init__(self, parts: list[Part], above: list[int], leaves: int, hooked: int = 0, gone: int = 0):
        self.parts, self.above, self.leaves, self.hooked, self.gone = parts, above, leaves, hooked, gone
        self.lost: list[Wanted] = []
        self.ages: Sequence[float] = ()
        self.noisy = 0
        #: bits of the roots from which a walk to everything fails by what the call has freed or changed
        self.barred = 0
        #: whether there is a way to each of the leaves
        self.leads = [any(p.leads >> k & 1 for p in parts) for k in range(leaves)]
        self._met: dict[tuple[int, int], int] = {}
        self._over: dict[int, bool] = {}

    def bar(self, lost: list[tuple[int, int]]) -> list[int]:
        """Find the roots that are `barred`. lost: by which roots what the call has changed is needed, and where that
        leads to. Returns: by root, bits of the targets that walks from it can lead to all the same."""
        found = []
        for k in range(len(self.above)):
            gone = [p for n, p in enumerate(self.parts) if self.gone >> n & 1 and p.roots >> k & 1]
            closed = [p.leads for p in gone] + [leads for roots, leads in lost if roots >> k & 1]
            self.barred |= bool(closed) << k
            leads = bad = 0
            for p in self.parts:
                leads |= p.leads if p.roots >> k & 1 else 0
            for bits in closed:
                bad |= bits
            found.append(leads & ~bad & (1 << self.leaves + len(self.above)) - 1)
        return found

    def met(self, roots: int, aim: int) -> int:
        """Bits of the parts that a walk from these roots to these targets meets."""
        found = self._met.get((roots, aim))
        if found is None:
            found = self._met[roots, aim] = bits_of(p.roots & roots and p.leads & aim for p in self.parts)
        return found

    def is_over(self, gone: int) -> bool:
        """Whether no walk from any of the roots comes to a leaf or another root without the parts that are gone, or
        to hooks of the function's own, which need no part."""
        found = self._over.get(gone)
        if found is None:
            barred = all(self._is_barred(k, gone) for k in range(len(self.above)))
            found = self._over[gone] = barred and not (self.hooked or self.noisy)
        return found

    def _is_barred(self, root: int, gone: int) -> bool:
        leads = barred = 0
        for n, p in enumerate(self.parts):
            if p.roots >> root & 1:
                leads |= p.leads
                if gone >> n & 1:
                    barred |= p.leads
        return not leads & ~barred

    def only(self, roots: int, aim: int) -> int:
        """Bits of the leaves to which a walk from these roots has to be made alone (-1: it may be made to all)."""
        return aim & (1 << self.leaves) - 1 if roots & self.barred else -1

    def is_deep(self, k: int, roots: int) -> bool:
        """Whether a walk from these roots comes to root k from another one, or changes its gradient there."""
        return bool(self.above[k] & roots & ~(1 << k) or self.hooked & roots & 1 << k)


def _changed(of: Any, version: int) -> Any:
    """The storage of a reference, where it has another version; one that is gone cannot have been changed."""
    storage = of()
    return None if storage is None or storage.version == version else storage


class Walks:
    """The walks over one call's tape.

    gone: bits of the parts that have been freed. Of the last walk: roots, aim (bits of targets; -1: all), until (the
    node before which it ended), taps (roots whose gradient it wants, others lead to them), hooks (by such roots), ready
    (what it found when it was asked for taps), held (gradients that inputs have already, and are added to), keeps
    (leaves keep what comes to them, in rows).
    """

    __slots__ = (
        "aim", "gone", "held", "hooks", "keeps", "needs", "outline", "ready", "roots", "states", "taps", "until",
    )  # fmt: skip

    def __init__(self, outline: Outline):
        self.outline = outline
        self.gone, self.roots, self.aim, self.until = outline.gone, 0, -1, 0.0
        self.taps: tuple[int, ...] = ()
        self.hooks: dict[int, Any] = {}
        self.held: dict[int, Any] = {}
        self.keeps = False
        self.ready: Any = None
        #: why a walk looks at which storages (`Ending.needs`); these, and their versions after the call
        self.needs: Sequence[Wanted] = ()
        self.states: Sequence[tuple[Any, int]] = ()

    def begin(self, roots: int) -> AutogradError | None:
        """A walk from these roots; the error where it first meets what is gone, or looks at what was changed."""
        self.roots, self.until = roots, 0
        met = self.outline.met(roots, self.aim) & self.gone if self.gone else 0
        part = self.outline.parts[(met & -met).bit_length() - 1] if met else None
        changed = [*(_changed(*state) for state in self.states), None]
        for k, need, by, leads, number in self.needs if any(changed) else self.outline.lost:
            storage = changed[k]
            if not storage and need.__class__ is not Lost:
                continue
            if roots & by and self.aim & leads and (part is None or number < part.number):
                self.until = number
                return need.refuse(storage and storage.changed)
        if part is None:
            return None
        self.until = part.number
        return freed(part.name, part.where)

    def fails_by_call(self) -> bool:
        """Whether the first part that the last walk met and that is gone, if there is one, was so from the start."""
        met = self.outline.met(self.roots, self.aim) & self.gone
        return not met or bool(met & -met & self.outline.gone)

    def is_fresh(self) -> bool:
        """Whether nothing of the tape has been freed, and nothing that it looks at changed."""
        return not (self.gone or self.outline.lost or any(_changed(*state) for state in self.states))

    def forget(self) -> None:
        """Free what the last walk met."""
        met = self.outline.met(self.roots, self.aim)
        if self.until != math.inf:
            met &= bits_of(p.number < self.until for p in self.outline.parts)
        self.gone |= met


class CallNode(Folded):
    """What stands on the tape for a call."""

    __slots__ = ("sums", "walks")
    walks: Walks
    is_call = True

    def _aim(self, targets: Sequence[int], edges: Sequence[Any]) -> int:
        return bits_of(edges) | sum(1 << self.walks.outline.leaves + k for k in targets)

    def leading(self, targets: Sequence[int], edges: Sequence[Any]) -> int:
        """Bits of the outputs that are targets or lead to one. targets, edges: as in `enter`."""
        aim = self._aim(targets, edges)
        met = self.walks.outline.met
        return bits_of(k in targets or met(1 << k, aim) for k in range(len(self.out_types)))

    def leads_within(self, outputs: Sequence[int], targets: Sequence[int]) -> bool:
        roots = sum(1 << k for k in outputs)
        return any(self.walks.outline.is_deep(k, roots) for k in targets)

    def enter(
        self, grads: list[Any], targets: Sequence[int], edges: Sequence[Any] | None, cut: bool, held: dict[int, Any],
        keeps: bool,
    ) -> bool:  # fmt: skip
        """A walk comes with these gradients; those of outputs that take no part in it are dropped. targets: the
        outputs that are targets; edges: whether each of the node's leads to a target (None: all do); cut: the tape
        ends at the targets; held: what inputs have already; keeps: leaves keep their gradients. Returns: whether it
        goes on from here."""
        walks = self.walks
        walks.ready, walks.taps, walks.hooks, walks.held, walks.keeps = None, (), {}, held, keeps
        walks.aim = live = -1
        if edges is not None:
            live = self.leading(targets, edges)
            grads[:] = [g if live >> k & 1 else None for k, g in enumerate(grads)]
            walks.aim = self._aim(() if cut else targets, edges)
        roots, is_deep = bits_of(g is not None for g in grads), walks.outline.is_deep
        if self.hooks:
            deep, ages = (
                [k for k, hooks in self.hooks.items() if hooks and live >> k & 1 and is_deep(k, roots)],
                walks.outline.ages,
            )
            last = max([ages[k] for k in deep], default=-1)
            late = [
                k for k, g in enumerate(grads) if g is not None and ages[k] < last
            ]  # they run after these
            walks.hooks = {k: hooks for k, hooks in self.hooks.items() if k in deep or k in late}
        walks.taps = () if cut else tuple([k for k in targets if is_deep(k, roots) or k in walks.hooks])
        return edges is None or bool(walks.outline.met(roots, walks.aim))

    def in_order(self) -> list[tuple[int, Any]]:
        """The hooks of the outputs, in the order in which a walk over eager mode's tape meets these."""
        ages = self.walks.outline.ages
        return sorted(self.hooks.items(), key=lambda row: -ages[row[0]])

    def onto(self, grads: list[Any], held: dict[int, Any]) -> list[Any]:
        return fitted(self, grads)

    def told(self, index: int) -> tuple[str, Any]:
        return next((p.name, p.where) for p in self.walks.outline.parts if p.roots >> index & 1)

    def tapped(self, grads: Sequence[Any]) -> dict[int, Any]:
        """The whole gradients of the outputs that are targets and that others lead to."""
        walks = self.walks
        if not walks.taps:
            return {}
        if self.saved is None:
            raise self.spent(grads)
        found, leaves = self.rules.fn(tuple(grads)), walks.outline.leaves
        walks.ready = found[:leaves]
        return dict(zip(walks.taps, found[leaves:]))

    def forget(self) -> None:
        walks = self.walks
        walks.forget()
        if walks.outline.is_over(walks.gone):
            super().forget()

    give_up = forget

    def spent(self, grads: Sequence[Any]) -> AutogradError:
        return self.walks.begin(bits_of(g is not None for g in grads)) or super().spent(grads)
