"""Recompute: cheap values that later kernels compute again from what lies in memory anyway, instead of loading them.

Chosen after fusion has been tried once, when it is known what would be stored and who would load it; then
fusion runs again without these values. Each is computed by the same expression as before, so no bit changes.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

from ..group import INLINE_COST, MAP, OP, REDUCE, Group, Item, Rules
from ..ir import Value
from ..layout import is_dense

#: bytes of traffic that take as long as an operation on one element
OPERATION_BYTES = 0.5
#: values of at most this part of an element-level value are rows of it, and are kept instead of computed again
ROW = 1 / 16


class Choice(NamedTuple):
    """A value that is computed again, and what is computed on the way to it (`inner`, itself included)."""

    value: Value
    inner: frozenset[Value]


class Made(NamedTuple):
    """What a value is made of: on the way to it (`inner`, itself included), from memory, and from small values that are
    not in memory so far (`rows`); operations for an element."""

    inner: set[Value]
    kept: set[Value]
    rows: set[Value]
    cost: int


def choose(groups: Sequence[Group], rules: Rules) -> list[Choice]:
    """Values whose computing again costs less than their traffic, and no memory. groups: in the order they run."""
    chooser = Chooser(groups, rules)
    found = (chooser.choice(item) for g in groups for item in g.items if item.kind == MAP)
    return [c for c in found if c is not None]


def traffic(groups: Sequence[Group], rules: Rules) -> int:
    """Bytes that groups load and store, each value once for each of them."""
    total = 0
    for g in groups:
        inside = set(g.items)
        loaded = {
            layout.base
            for i in g.items
            for _, layout in i.reads
            if rules.producer.get(layout.base) not in inside
        }
        stored = {v for i in g.items for v in i.node.outputs if rules.stored(v, inside)}
        total += sum(v.nbytes for v in (*loaded, *stored))
    return total


class Chooser:
    """What values are made of, and until when that is there.

    groups: in the order they run. later: whether inputs that the graph writes may be read at another time than now.
    """

    def __init__(self, groups: Sequence[Group], rules: Rules, later: bool = False):
        self.rules = rules
        self.written = frozenset() if later else rules.written
        self.position = {id(g): k for k, g in enumerate(groups)}
        self.inside = {id(g): set(g.items) for g in groups}
        self.loads = {id(g): {layout.base for i in g.items for _, layout in i.reads} for g in groups}

    def choice(self, item: Item) -> Choice | None:
        rules, group, node = self.rules, item.group, item.node
        v = node.outputs[0]
        inside = self.inside[id(group)]
        if (
            len(node.outputs) > 1
            or v in rules.places.of
            or not rules.stored(v, inside)
            or v.type.dtype.is_complex
        ):
            return None
        readers = rules.readers[v]
        if any(r.kind == OP or r.node.again != node.again or not _whole(r, v) for r in readers):
            return None
        users = list(dict.fromkeys(r.group for r in readers if r not in inside))
        made = self.made_of(item)
        if made is None:
            return None
        inner, kept, rows, cost = made
        last = max(self.position[id(g)] for g in users)
        dying = self.dying(v, kept, last)
        if len(dying) > 1 or any(x.nbytes > v.nbytes for x in dying):
            return None
        saved = v.nbytes * (1 + len(users)) - OPERATION_BYTES * cost * v.size * len(users)
        saved -= sum(x.nbytes for g in users for x in kept | rows if x not in self.loads[id(g)])
        saved -= sum(x.nbytes for x in rows)
        return Choice(v, frozenset(inner)) if saved > 0 else None

    def made_of(self, item: Item) -> Made | None:
        """What the value of a map is made of; None where it cannot be computed elsewhere, or not cheaply."""
        made = Made(set(), set(), set(), 0)
        v = item.node.outputs[0]
        if not self._expand(item, v, self.inside[id(item.group)], made.inner, made.kept, made.rows):
            return None
        cost = sum(self.rules.producer[x].cost for x in made.inner)
        return made._replace(cost=cost) if cost <= INLINE_COST else None

    def dying(self, v: Value, kept: set[Value], position: int) -> list[Value]:
        """Which of the large values that v is made of are read for the last time before this position."""
        return [x for x in kept if self._last(x) < position and x.size > v.size * ROW]

    def _last(self, x: Value) -> float:
        """The last group that reads a value; state and results outlive all."""
        if x.producer is None or x in self.rules.places.of:
            return math.inf
        return max((self.position[id(r.group)] for r in self.rules.readers[x]), default=0)

    def _expand(
        self, item: Item, v: Value, inside: set[Item], inner: set[Value], kept: set[Value], rows: set[Value]
    ) -> bool:
        """Follow what a value is made of to what lies in memory; False where that cannot be computed elsewhere."""
        if item.indexed or item.inline or not item.reads:
            return False
        inner.add(item.node.outputs[0])
        for x, layout in item.reads:
            base = layout.base
            maker = self.rules.producer.get(base)
            if base in self.written:
                return False
            if maker is None or maker not in inside or self.rules.stored(base, inside):
                kept.add(base)
            elif base.size <= v.size * ROW:
                rows.add(base)
            elif base not in inner and not (
                maker.kind == MAP
                and len(maker.node.outputs) == 1
                and _dense(x, layout.strides, layout.offset, v)
                and all(_whole(r, v) for r in self.rules.readers[base])
                and self._expand(maker, v, inside, inner, kept, rows)
            ):
                return False
        return True


def _whole(reader: Item, v: Value) -> bool:
    """Whether a reader takes just the elements of v, each where it computes or reduces that element."""
    over = reader.node.inputs[0] if reader.kind == REDUCE else reader.node.outputs[0]
    return over.type.shape == v.type.shape and all(  # type: ignore[union-attr]
        _dense(x, layout.strides, layout.offset, v) for x, layout in reader.reads if layout.base is v
    )


def _dense(x: Value, strides: tuple[int, ...], offset: int, v: Value) -> bool:
    return not offset and x.type.shape == v.type.shape and is_dense(x.type.shape, strides)
