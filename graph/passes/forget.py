"""Forget: large values that are read again much later are given up in between, and made again for those readers.

What a training step saves for its way back is of this kind: the result of `relu` over a batch normalisation is read by
a convolution, and long after by that convolution's gradient, when the image that it was made of is still in memory.
Only values that lie there while the most memory is in use are worth it, and only as many as cost a small part of the
work. They are made by the same expressions as before, so no bit changes.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from typing import NamedTuple

from ..group import MAP, OP, Group, Item, Rules
from ..ir import Graph, Node, Value
from ..layout import is_dense
from ..live import is_size
from ..work import flops
from .fuse import Fusion
from .recompute import Chooser, traffic

#: bytes in use at once from which a graph is worth it (and a kernel that smaller batches do not have); the least part
#: of them to be saved
LEAST, GAIN = 16 << 20, 1 / 32
#: the part of a graph's work that making values again may add
SHARE = 1 / 128
#: bytes of traffic that take as long as a floating-point operation of a product
FLOP_BYTES = 1 / 8


class _Choice(NamedTuple):
    """A value that may be forgotten: after position `after` of the groups, until the first of its late readers.

    large: what it is made of that must be there; traffic: bytes of making it again.
    """

    value: Value
    inner: frozenset[Value]
    large: frozenset[Value]
    after: int
    until: int
    late: tuple[Item, ...]
    traffic: int

    @property
    def nbytes(self) -> int:
        return self.value.nbytes


def forget(graph: Graph, nodes: list[Node], fusion: Fusion) -> frozenset[Value] | None:
    """Make again what is worth it: the values that each group computes for itself from now on; None without a change.

    nodes: of the graph, without what was added to place results; they are what is changed.
    """
    groups, rules = fusion.groups, fusion.rules
    if any(is_size(n) for v in graph.inputs for n in v.type.shape):
        return None  # what is worth it depends on the sizes: one graph for any is worth more
    use = _in_use(groups, rules)
    most = max(use, default=0)
    if most < LEAST:
        return None
    work = traffic(groups, rules) + FLOP_BYTES * sum(flops(i.node) for g in groups for i in g.items)
    chosen = _choose(_choices(graph, groups, rules), use, work * SHARE)
    saved = most - max(use)
    if saved < most * GAIN:
        return None
    graph.nodes = nodes
    maker = _Maker(graph, rules, chosen)
    maker.run()
    names = ", ".join(dict.fromkeys(c.value.producer.op.name for c in chosen if c.value.producer))
    graph.notes.append(
        f"made again for late readers, not kept: {len(chosen)} of {names}; {saved:,} bytes less in use at once, "
        f"{sum(c.traffic for c in chosen):,} bytes of traffic more"
    )
    return fusion.again | maker.inline


def _in_use(groups: Sequence[Group], rules: Rules) -> list[int]:
    """Bytes in use beside inputs and outputs while each group runs; outputs that are not there yet serve for others."""
    last: dict[Value, int] = {}
    for k, g in enumerate(groups):
        for item in g.items:
            for _, layout in item.reads:
                last[layout.base] = k
    places, change = rules.places, [0] * (len(groups) + 1)
    ends: dict[Value, int] = {}
    for k, g in enumerate(groups):
        inside = set(g.items)
        for v in (v for i in g.items for v in i.node.outputs if rules.stored(v, inside)):
            place = places.of.get(v)
            if isinstance(place, int):
                change[0] -= v.nbytes
                change[k] += v.nbytes
            elif place is None and v not in places.same and v not in places.parts:
                over = next((x for x in _in_step(g, v) if ends.get(x) == k), None)
                if over is None:
                    change[k] += v.nbytes
                else:  # v has its memory
                    change[ends.pop(over) + 1] += v.nbytes
                ends[v] = max(last.get(v, k), k)
                change[ends[v] + 1] -= v.nbytes
    return list(itertools.accumulate(change[:-1]))


def _in_step(group: Group, v: Value) -> list[Value]:
    """Values of the size of v that a group reads element by element: it may write v over one that it reads last."""
    if group.kind == OP:
        return []
    reads: dict[Value, bool] = {}
    for item in group.items:
        for x, layout in item.reads:
            whole = not layout.offset and is_dense(x.type.shape, layout.strides)
            reads[layout.base] = reads.get(layout.base, True) and whole
    size, nbytes = v.size, v.nbytes
    return [x for x, whole in reads.items() if whole and x.size == size and x.nbytes == nbytes]


def _choices(graph: Graph, groups: Sequence[Group], rules: Rules) -> list[_Choice]:
    """The values that can be made again."""
    chooser = Chooser(groups, rules, later=True)
    places = rules.places
    taken = {rules.layouts[v].base for v in graph.results()}.union(
        places.of, places.same, places.same.values(), places.parts
    )
    found = []
    for k, g in enumerate(groups):
        for item in g.items:
            v = item.node.outputs[0]
            if item.kind != MAP or len(item.node.outputs) > 1 or item.node.again or v.type.dtype.is_complex:
                continue
            if v in taken or v.nbytes < LEAST * GAIN / 2 or not rules.stored(v, chooser.inside[id(g)]):
                continue
            at = {r: chooser.position[id(r.group)] for r in rules.readers[v]}
            after, until = max(itertools.pairwise(sorted({k, *at.values()})), key=lambda p: p[1] - p[0])
            made = chooser.made_of(item)
            if made is None or chooser.dying(v, made.kept, until):
                continue
            loaded = sum(x.nbytes for x in made.kept | made.rows)
            found.append(_Choice(
                v, frozenset(made.inner), frozenset(made.kept), after, until,
                tuple(r for r, p in at.items() if p >= until), v.nbytes + loaded,
            ))  # fmt: skip
    return found


def _choose(choices: list[_Choice], use: list[int], budget: float) -> list[_Choice]:
    """Take the largest that live while the most is in use, one after the other; `use` becomes what is left."""
    chosen: list[_Choice] = []
    while True:
        at = use.index(max(use))
        gone, needed = {c.value for c in chosen}, {x for c in chosen for x in c.large}
        fitting = [
            c for c in choices
            if c.after < at < c.until and c.traffic <= budget and c not in chosen
            and c.value not in needed and not c.large & gone
        ]  # fmt: skip
        if not fitting:
            break
        best = max(fitting, key=lambda c: (c.nbytes, -c.traffic, c.until - c.after))
        chosen.append(best)
        budget -= best.traffic
        _add(use, best, -1)
    most = max(use)
    for c in sorted(chosen, key=lambda c: c.nbytes):  # those that others made needless
        if all(n + c.nbytes <= most for n in use[c.after + 1 : c.until]):
            chosen.remove(c)
            _add(use, c, 1)
    return chosen


def _add(use: list[int], c: _Choice, sign: int) -> None:
    for k in range(c.after + 1, c.until):
        use[k] += sign * c.nbytes


class _Maker:
    """Writes the graph in which late readers of each choice read a second value, made just before the first of them.

    inline: what is made again of the choices by each of its readers.
    """

    def __init__(self, graph: Graph, rules: Rules, choices: Sequence[_Choice]):
        self.graph, self.layouts, self.producer = graph, rules.layouts, rules.producer
        self.nodes: list[Node] = []
        self.twins: dict[tuple[Value, int], Value] = {}
        self.inline: set[Value] = set()
        #: by value its choice and a mark, which keeps the second apart from the first (those of `checkpoint` count up)
        self.of = {c.value: (c, -1 - k) for k, c in enumerate(choices)}
        self.late: dict[Node, set[Value]] = {}
        for c in choices:
            for r in c.late:
                self.late.setdefault(r.node, set()).add(c.value)

    def run(self) -> None:
        for node in self.graph.nodes:
            values = self.late.get(node)
            if values is not None:
                node.inputs = [self._read(x, values) if x.__class__ is Value else x for x in node.inputs]
            self.nodes.append(node)
        self.graph.nodes = self.nodes
        self.graph.nodes = self.graph.needed()

    def _inline(self, x: Value) -> Node | None:
        """The node of a value that each of its readers computes."""
        item = self.producer.get(x)
        return item.node if item is not None and item.inline and item.reads and item.size > 1 else None

    def _read(self, x: Value, values: set[Value]) -> Value:
        """What a late reader of these values reads in place of x."""
        base = self.layouts[x].base
        if base in values:
            choice, mark = self.of[base]
            return self._second(x, choice.inner, mark)
        if not self._depends(base, values):
            return x
        copy = self._copy(x, lambda y: self._read(y, values), None)
        if x is base:
            self.inline.add(copy)
        return copy

    def _depends(self, base: Value, values: set[Value]) -> bool:
        node = self._inline(base)
        if node is None:
            return False
        below = {self.layouts[y].base for y in node.values()}
        return not values.isdisjoint(below) or any(self._depends(y, values) for y in below)

    def _second(self, x: Value, inner: frozenset[Value], mark: int) -> Value:
        """The second of x, a value on the way to one that is forgotten; x itself where that is in memory."""
        base = self.layouts[x].base
        if base not in inner and self._inline(base) is None:
            return x
        found = self.twins.get((x, mark))
        if found is None:
            found = self._copy(x, lambda y: self._second(y, inner, mark), mark)
            self.twins[x, mark] = found
        return found

    def _copy(self, x: Value, swap: Callable[[Value], Value], mark: int | None) -> Value:
        """x computed once more, of other values; mark: its repetition, when that is not its own."""
        node = x.producer
        assert node is not None
        inputs = [swap(y) if y.__class__ is Value else y for y in node.inputs]
        twin = Node(node.op, inputs, node.attrs, tuple(v.type for v in node.outputs), x.device, node.where)
        twin.again = node.again if mark is None else mark
        self.nodes.append(twin)
        return twin.outputs[x.index]
