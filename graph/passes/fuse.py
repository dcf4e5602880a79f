"""Fuse: choose which ops share a kernel.

First every op goes to the one group that uses its result (its value then never reaches memory), latest ops
first, so that the backward pass computes again what is cheap instead of keeping it; then matrix products
take the pointwise work on their results; then producers and consumers that both need the value in memory
merge; at last ops side by side that read the same values.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from operator import itemgetter
from types import MappingProxyType
from typing import Any, NamedTuple

from ...core.backend import Operand, Pooling, Scalar
from ...core.exact import typed
from ...core.listed import FEW
from ...core.numbers import estimate
from ...core.op_lower import reduces_in_a_loop
from ...core.ops.comparison import cast
from ...core.types import Shape, contiguous_strides, float32
from ..group import (
    INLINE_COST,
    MAP,
    OP,
    REDUCE,
    Group,
    Item,
    Joined,
    Rules,
    cost_of,
    map_domain,
    reduce_domain,
    walked,
)
from ..ir import Graph, Node, Number, Value
from ..layout import Layout, is_dense, is_seen_through, spread, through
from ..placement import Places
from .recompute import choose, traffic

#: elements of an input whose cast is computed again by each loop that reads it
SHORT = 1 << 13


class Fusion(NamedTuple):
    """Groups in an order that respects what they read and overwrite, and the rules that they follow.

    again: values that each group computes for itself.
    """

    groups: list[Group]
    rules: Rules
    why_apart: Callable[[Group, Group], str]
    again: frozenset[Value]


def fuse(
    graph: Graph, layouts: dict[Value, Layout], places: Places, backend: Any, on: bool = True,
    again: frozenset[Value] | None = None, kept: Mapping[Node, str] = MappingProxyType({}),
) -> Fusion:  # fmt: skip
    """Divide the ops of a graph into groups. on=False: every op by itself. again: see `Fusion`, where that is known.

    kept: why casts are not left to the products that read them.
    """
    fuser = _Fuser(graph, layouts, places, backend, kept, again or frozenset())
    groups = fuser.run(on)
    chosen = choose(groups, fuser.rules) if on and again is None else []
    if chosen:
        inner = frozenset(v for c in chosen for v in c.inner)
        other = _Fuser(graph, layouts, places, backend, kept, inner)
        lighter = other.run(on)
        saved = traffic(groups, fuser.rules) - traffic(lighter, other.rules)
        if saved > 0:
            names = ", ".join(dict.fromkeys(c.value.producer.op.name for c in chosen if c.value.producer))
            graph.notes.append(
                f"computed again where they are read, not kept: {len(chosen)} of {names}; "
                f"{saved:,} bytes of traffic less"
            )
            fuser, groups = other, lighter
    return Fusion(groups, fuser.rules, fuser.why_apart, fuser.again)


def number_kinds(node: Node) -> list[Any]:
    """What `Op.form` wants to know of the inputs of a pointwise node."""
    return [
        x.type.dtype if x.__class__ is Value else x.kind if isinstance(x, Number) else type(x)
        for x in node.inputs
    ]


class _Fuser:
    """One way to fuse. again: values that each group computes for itself."""

    def __init__(
        self, graph: Graph, layouts: dict[Value, Layout], places: Places, backend: Any, kept: Mapping[Node, str],
        again: frozenset[Value] = frozenset(),
    ):  # fmt: skip
        self.kept = kept
        self.layouts, self.places, self.backend, self.again = layouts, places, backend, again
        self.written = places.written
        self.nodes = [n for n in graph.nodes if not is_seen_through(n, layouts)]
        self.items: list[Item] = []
        self.producer: dict[Value, Item] = {}
        self.by_node: dict[Node, Item] = {}
        self.readers: dict[Value, list[Item]] = {}
        #: the groups that there are, in the program's order, and the pairs (by what they hold) that cannot be one
        self.groups: dict[Group, None] = {}
        self.apart: set[tuple[int, int]] = set()
        #: makers and readers, the largest values first
        self.edges: list[tuple[Item, Item]] | None = None

    def _item(self, node: Node, order: int, on: bool) -> Item:
        op = node.op
        kind = OP
        values = node.values()
        empty = [v for row in (values, node.outputs) for v in row if not v.size]
        if not empty:
            if op.kind == "pointwise":
                kind = MAP
            elif op.reduction is not None and self.backend.primitive(op.name) is None:
                kind = REDUCE if reduces_in_a_loop(op, node.inputs[0].type.dtype) else OP
        reads: list[tuple[Value, Layout]] = []
        indexed, again, plain, real = False, 0, True, True
        domain = (
            ()
            if kind == OP
            else reduce_domain(node)
            if kind == REDUCE
            else map_domain(node.outputs[0].type.shape)
        )
        for x in values:
            layout = self.layouts[x]
            maker = self.producer.get(layout.base)
            if (
                maker is not None
                and maker.inline
                and kind != OP
                and self._inlines(node, kind, domain, x, maker)
            ):
                reads += _seen_through(x, layout, maker)
                indexed |= maker.indexed
                again += maker.cost
                plain &= maker.plain
                real &= maker.real
            else:
                reads.append((x, layout))
        item = Item(node, order, kind, reads)
        producer = self.producer
        item.makers = [(producer[row[1].base], *row) for row in reads if row[1].base in producer]
        item.plain &= plain
        item.real &= real
        if kind == MAP:
            item.form = op.form(number_kinds(node), node.attrs)
            item.cost, item.indexed = cost_of(item.form)
            item.indexed |= indexed
            item.cost += again
            if (
                on
                and item.cost <= INLINE_COST
                and (item.size == 1 or not reads or self._narrows(node, reads))
            ):
                item.inline = not any(layout.base in self.written for _, layout in reads)
            item.inline |= node.outputs[0] in self.again
        item.domain = domain
        return item

    def _narrows(self, node: Node, reads: list[tuple[Value, Layout]]) -> bool:
        """Whether an op is a short input's cast to 16 bits, a bias's: the cast is less than a kernel of its own."""
        half = node.op is cast and node.outputs[0].type.dtype.is_half
        return (
            half
            and estimate(node.outputs[0].size) <= SHORT
            and all(layout.base.producer is None for _, layout in reads)
        )

    def _inlines(self, node: Node, kind: str, domain: Any, x: Value, maker: Item) -> bool:
        """Whether the loop of an op can compute again what it reads, in place of loading it."""
        over = x.type.shape if kind == REDUCE else node.outputs[0].type.shape
        sizes, layout = tuple(n for n, _ in domain), self.layouts[x]
        found = through(sizes, contiguous_strides(sizes), 0, over, spread(x.type.shape, layout.strides, over))
        return found is not None and walked(
            maker, sizes, found[0], found[1] + layout.offset, self.layouts, self.producer
        )

    def run(self, on: bool) -> list[Group]:
        for node in self.nodes:
            item = self.by_node[node] = self._item(node, len(self.items), on)
            self.items.append(item)
            for v in node.outputs:
                self.producer[v] = item
                self.readers[v] = []
            for _, layout in item.reads:
                if layout.base in self.readers:
                    self.readers[layout.base].append(item)
        takes = self._takes, self._halves, self._pools
        self.rules = Rules(self.layouts, self.places, self.producer, self.readers, *takes, self.kept)
        for item in self.items:
            if not item.inline or any(v in self.places.of or self.readers[v] for v in item.node.outputs):
                item.group = Group(item, 1 << item.order)
        self.groups = {i.group: None for i in self.items if i.group is not None}
        alone = {i for i in self.items if i.group is None}
        for readers in self.readers.values() if alone else ():
            readers[:] = [r for r in readers if r not in alone]
        self._order_groups()
        self.updates = self._updates() if on and self.backend.lists else 0
        if on:
            self._sink()
            self._epilogues()
            while self._join_neighbours():
                pass
            self._join_siblings()
        return self._sorted()

    def _takes(self, op: str, shape: Shape, x: Value | None, layout: Layout | None) -> bool:
        """Whether the kernel of `op` takes pointwise work that reads x (None: a number) on its result."""
        predicate = getattr(self.backend, "takes_epilogue", None)
        if predicate is None:
            return False
        if x is None or layout is None:
            return bool(predicate(op, shape, Scalar(0, float32)))
        return bool(predicate(op, shape, Operand(0, 0, x.type.dtype, x.type.shape, layout.strides)))

    def _halves(self, op: str) -> bool:
        """Whether the kernel of `op` takes 16-bit floats, and work in them on its result."""
        return getattr(self.backend.primitive(op), "takes_halves", False)

    def _pools(self, head: Node, pool: Node) -> str:
        """Why the kernel of one op does not pool its result, as another does; empty where it does."""
        predicate = getattr(self.backend, "takes_pooling", None)
        if predicate is None:
            return f"the kernel of {head.op.name} takes no pooling of its result"
        operands = [Operand(0, 0, x.type.dtype, x.type.shape, self.layouts[x].strides) for x in head.values()]
        (out,) = head.outputs
        whole = Operand(0, 0, out.type.dtype, out.type.shape, contiguous_strides(out.type.shape))
        pooling = Pooling(pool.op.name, pool.named)
        return str(predicate(head.op.name, operands, whole, head.named, pooling, pool.outputs[0].type.shape))

    def _updates(self) -> int:
        """The bits of ops of one kind that change state and that nobody waits for: they become one launch
        (`core/listed.py`)."""
        kinds: dict[Any, list[Item]] = {}
        for item in self.items:
            node, of = item.node, self.places.of
            if item.kind == MAP and all(
                v in of and isinstance(of[v], Value) and not self.readers[v] for v in node.outputs
            ):
                key = node.op, typed(node.attrs), tuple(v.type.dtype for v in node.values())
                kinds.setdefault(key, []).append(item)
        return sum(1 << item.order for kind in kinds.values() if len(kind) >= FEW for item in kind)

    # -- order -------------------------------------------------------------------------------

    def _order_groups(self) -> None:
        """Fill in which groups must run before which."""
        for item in self.items:
            if item.group is not None:
                for maker, _, _ in item.makers:
                    item.group.direct |= maker.group.own
        self.first_readers: set[Item] = set()
        for reader, writer in self.places.before:
            r, w = self.by_node.get(reader), self.by_node[writer]
            if r is not None and r.group is not w.group:
                w.group.direct |= r.group.own
                self.first_readers.add(r)
        for group in _in_order(list(self.groups), self._owners):
            group.before = group.direct
            for x in self._owners(group.direct):
                group.before |= x.before

    def _owners(self, mask: int) -> list[Group]:
        """The groups that hold these items now."""
        found: dict[Group, None] = {}
        items = self.items
        while mask:  # all that a group holds at once
            group = items[(mask & -mask).bit_length() - 1].group
            found[group] = None
            mask &= ~group.own
        return list(found)

    def _joined(self, a: Group, b: Group) -> Joined:
        one, other = bool(a.own & self.updates), bool(b.own & self.updates)
        if (one and other) or ((one or other) and REDUCE in (a.kind, b.kind)):
            return "updates of one kind are one launch, with nothing else in it"
        for first, second in ((a, b), (b, a)):
            if second.before & first.own:
                for x in self._owners(second.direct & ~first.own):
                    if x.before & first.own:
                        return f"{x.items[0].node.op.name} has to run between them"
        return self.rules.joined(a, b)

    def why_apart(self, maker: Group, reader: Group) -> str:
        """Why two groups, one of which reads what the other computes, were not made one."""
        found = self._joined(maker, reader)
        if isinstance(found, str):
            return found
        return "they could share a kernel, but other merges came first"

    def _try(self, a: Group, b: Group, sole: bool = False) -> bool:
        """Merge b into a when rules and order allow. sole: nothing but a must come after b."""
        if (a.own, b.own) in self.apart:  # what kept them apart stays while neither changes
            return False
        joined = self._joined(a, b)
        if isinstance(joined, str):
            self.apart.add((a.own, b.own))
            return False
        del self.groups[b]
        a.become(*joined)
        a.items += b.items
        for item in b.items:
            item.group = a
        a.own |= b.own
        a.direct = (a.direct | b.direct) & ~a.own
        a.before = (a.before | b.before) & ~a.own
        if not sole:
            everything = a.before | a.own
            for g in self.groups:
                if g is not a and g.before & a.own:
                    g.before |= everything
        return True

    # -- merging -------------------------------------------------------------------------------

    def _sink(self) -> None:
        for item in reversed(self.items):
            group = item.group
            outputs = item.node.outputs
            if group is None or item.kind == OP or not self.places.of.keys().isdisjoint(outputs):
                continue
            users = {r.group for v in outputs for r in self.readers[v]}
            if len(users) == 1:
                user = users.pop()
                if user is not group and user.kind != OP:
                    self._try(user, group, not self.first_readers.intersection(group.items))

    def _epilogues(self) -> None:
        for item in self.items:
            if item.kind != OP or item.group is None:
                continue
            changed = True
            while changed:
                changed = False
                users = {r.group for i in item.group.items for v in i.node.outputs for r in self.readers[v]}
                for user in sorted(users, key=_first):
                    if user is not item.group and user.kind == MAP and self._try(item.group, user):
                        changed = True
                        break
            for user in sorted(users - {item.group}, key=_first):
                if user.kind == OP:
                    self._try(item.group, user)

    def _join_neighbours(self) -> bool:
        """Producers and consumers, the largest values first: a merge can rule out another."""
        if self.edges is None:
            edges = [
                (-layout.base.nbytes, item.order, maker, item)
                for item in self.items if item.group is not None and item.kind != OP
                for maker, _, layout in item.makers
            ]  # fmt: skip
            edges.sort(key=itemgetter(0, 1))
            self.edges = [(maker, item) for _, _, maker, item in edges]
        changed = False
        for maker, item in self.edges:
            a, b = maker.group, item.group
            if a is not b and a.kind != OP and b.kind != OP and (a.own, b.own) not in self.apart:
                changed |= self._try(a, b)
        return changed

    def _join_siblings(self) -> None:
        seen: dict[Value, list[Item]] = {}
        for item in self.items:
            if item.group is not None and item.kind != OP:
                for _, layout in item.reads:
                    if layout.base in seen:
                        seen[layout.base].append(item)
                    else:
                        seen[layout.base] = [item]
        for value, users in seen.items():
            for k, user in enumerate(users) if len(users) > 1 else ():
                for other in users[k + 1 :]:
                    a, b = user.group, other.group
                    if a is not b and a.kind == b.kind and a.total == b.total == value.size:
                        self._try(a, b)

    def _sorted(self) -> list[Group]:
        """Groups in an order that respects `direct`, close to the program's.

        What others wait for stands where they need it, although its last op (a copy at the end) may come later.
        """
        for g in self.groups:
            g.items.sort(key=_order)
        order = _in_order(sorted(self.groups, key=_last), self._owners)
        place = {g: _last(g) for g in order}
        for g in reversed(order):
            for x in self._owners(g.direct):
                if place[x] > place[g]:
                    place[x] = place[g]
        return sorted(order, key=place.__getitem__)


def _seen_through(x: Value, layout: Layout, maker: Item) -> list[tuple[Value, Layout]]:
    """What is loaded where a read of x computes it again: of a cast the places that x stands for in its operand."""
    if maker.node.op is cast and len(maker.reads) == 1:
        ((y, below),) = maker.reads
        if is_dense(y.type.shape, below.strides):
            return [(x, Layout(below.base, layout.strides, below.offset + layout.offset))]
    return maker.reads


def _in_order(groups: list[Group], owners: Callable[[int], list[Group]]) -> list[Group]:
    """The groups, each after those that it must wait for, else as they stand."""
    done = 0  # the items of those in `out`
    out: list[Group] = []
    waits: dict[Group, list[Group]] = {}
    missing: dict[Group, int] = {}  # how many a group waits for, once its turn has come
    ready = list(reversed(groups))
    while ready:
        group = ready.pop()
        if group.direct & ~done:
            first = owners(group.direct & ~done)
            missing[group] = len(first)
            for x in first:
                waits.setdefault(x, []).append(group)
            continue
        done |= group.own
        out.append(group)
        if group in waits:
            for x in reversed(waits.pop(group)):
                missing[x] -= 1
                if not missing[x]:
                    ready.append(x)
    if len(out) < len(groups):
        raise AssertionError("groups wait for each other")
    return out


def _order(item: Item) -> int:
    return item.order


def _first(group: Group) -> int:
    return group.items[0].order


def _last(group: Group) -> int:
    return group.own.bit_length() - 1
