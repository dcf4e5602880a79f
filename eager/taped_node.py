"""What stands on the tape for a call of a composite as one program (`eager/hot.py`)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ..core.errors import AutogradError
from ..core.saved import freed, needs_of
from ..core.unfolding import Folded


class TapeName:
    """What stands on the tape for a composite that is one program.

    unfold: makes a node stand for the ops of the body, before a walk that is recorded; needs: what these ops need, as
    `saved.needs_of`.
    """

    variadic, partial = False, True
    attr_names: tuple[str, ...] = ()
    differentiable = True
    unfold: Any = None
    needs: Any = None

    def __init__(self, name: str):
        self.name = name


class TapedNode(Folded):
    """A call of a composite as one program; errors are those that the ops of its body would raise."""

    __slots__ = ()

    @property
    def sums(self) -> Sequence[int]:  # type: ignore[override]
        return () if self.step is None else self.step.sums  # type: ignore[no-any-return]

    def in_order(self) -> list[tuple[int, Any]]:
        """The hooks as if the body had never been hot: on what was made last first."""
        return sorted(super().in_order(), key=lambda row: -self.step.makers[row[0]][0])

    def spent(self, grads: Sequence[Any]) -> AutogradError:
        owner = self.step
        if owner is None:  # unfolded
            return super().spent(grads)
        return freed(max(m for m, g in zip(owner.makers, grads) if g is not None)[1], self.where)

    def leads_within(self, outputs: Sequence[int], targets: Sequence[int]) -> bool:
        behind = () if self.step is None else self.step.behind
        return any(behind[k] >> n & 1 for k in targets for n in outputs if n != k) if behind else False

    def give_up(self) -> None:
        if self.saved is None or self.step is None:
            return
        for (_, x, version), (_, _, first) in zip(needs_of(self), self.step.inside):
            if x._get_version() != version:
                if not first:  # op by op, what comes before would be used up
                    self.forget()
                return


def behind(results: Sequence[Any], inputs: Sequence[Any]) -> list[int]:
    """By result of a body that was recorded op by op, bits of the others that are computed from it; nothing where there
    are none."""
    before = max((x._node.number for x in inputs if x._node is not None), default=-1)
    places = {(y._node.number, y._index): k for k, y in enumerate(results)}
    found = [0] * len(results)
    for bit, y in enumerate(results):
        todo, seen = [y._node], set()
        while todo:
            for edge in todo.pop().edges:
                if edge.__class__ is tuple and edge[0].number > before:
                    k = places.get((edge[0].number, edge[1]))
                    if k is not None:
                        found[k] |= 1 << bit
                    if edge[0].number not in seen:
                        seen.add(edge[0].number)
                        todo.append(edge[0])
    return found if any(found) else []
